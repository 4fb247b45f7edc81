"""Breaks the path again and again under load, and proves after each round that nothing is lost and nothing stored twice."""

import argparse
import random
import secrets
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import NamedTuple

from scripts.lib.stack.path import Stack, StackError
from scripts.lib.torture.audit import Outcome, audit, settle
from scripts.lib.torture.faults import Fault, chosen
from scripts.lib.torture.load import POISON, TENANTS, Publisher, Record

_POISON_REFUSED = f"ALTER TABLE sens.measurements ADD CONSTRAINT poison CHECK (value <> {POISON!r}::float8)"


class Plan(NamedTuple):
    """What is done.

    Attributes:
        seed: Decides the faults, their order and how long they last.
        faults: How many.
        round_faults: How many between two audits.
        broker: Which one.
        rate: Messages a second.
        seconds: How long a fault lasts: shortest and longest.
    """

    seed: int
    faults: int
    round_faults: int = 5
    broker: str = "mosquitto"
    rate: float = 1000
    seconds: tuple[float, float] = (1, 12)


def torture(plan: Plan) -> tuple[Outcome, Counter[str]]:
    """Run the plan; return the last audit, or the first with a problem, and how often each group of faults came.

    Raises:
        StackError: Something did not start again.
    """
    generator = random.Random(plan.seed)  # noqa: S311 - it has to repeat
    order = chosen(plan.broker, plan.faults, generator)
    settings = {"SENS_DEAD_LETTERS__MAX_SHARE": "1"}
    happened: Counter[str] = Counter()
    record = Record()
    with Stack.running(
        plan.broker, proxied=True, telemetry_workers=2, tenants=TENANTS, worker_settings=settings
    ) as stack:
        stack.fetch(_POISON_REFUSED)
        while True:
            with ExitStack() as publishers:
                for number in range(4):
                    publisher = Publisher(stack.mqtt_port, record, name=f"torture-{number}", rate=plan.rate / 4)
                    publishers.enter_context(publisher)
                for fault in order[: plan.round_faults]:
                    _happen(stack, fault, generator.uniform(*plan.seconds))
                    happened[fault.group] += 1
                    time.sleep(generator.uniform(0, 1))
            order = order[plan.round_faults :]
            settle(stack, record)
            outcome = audit(stack, record)
            print(
                f"{happened.total():4d} faults: {outcome.acknowledged} acknowledged, {outcome.uncertain} uncertain, "
                f"{outcome.stored} stored, {outcome.dead_lettered} dead-lettered: "
                f"{'; '.join(outcome.problems) or 'nothing lost, nothing twice'}",
                flush=True,
            )
            if outcome.problems:
                for worker in stack.workers:
                    print(f"--- {worker}\n{stack.output(worker)}")
            if outcome.problems or not order:
                return outcome, happened


def _happen(stack: Stack, fault: Fault, seconds: float) -> None:
    print(f"     {fault.name}, {seconds:.1f} s", flush=True)
    fault.happen(stack, seconds)


def main() -> int:
    """Print what happens; return 1 when something was lost or stored twice."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__, allow_abbrev=False)
    parser.add_argument("--faults", type=int, default=40, help="how many; each kind comes before any comes twice")
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument("--broker", choices=["mosquitto", "mock-mqtt-broker"], default="mosquitto")
    parser.add_argument("--rate", type=float, default=1000, help="messages a second")
    parser.add_argument("--round", type=int, default=5, help="faults between two audits")
    parser.add_argument("--seconds", type=float, nargs=2, default=(1, 12), help="how long a fault lasts, from and to")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    plan = Plan(seed, options.faults, options.round, options.broker, options.rate, tuple(options.seconds))
    print(f"seed {seed}: repeat with --seed {seed}", flush=True)
    try:
        outcome, happened = torture(plan)
    except StackError as error:
        print(f"scripts/torture: seed {seed}: {error}", file=sys.stderr)
        return 1
    for group, times in sorted(happened.items()):
        print(f"{times:4d} {group}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
