"""Breaks the running path again and again under load, and checks after each round that nothing is lost or stored twice."""

import argparse
import random
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from sens_common.topics import NATIVE_PATTERN
from tools.stack.path import Stack, StackError
from tools.stack.tap import Tap
from tools.torture import maintenance
from tools.torture.audit import SETTLE_SECONDS, Audit
from tools.torture.faults import TIME_OUTS, faults
from tools.torture.load import Publisher, Record
from tools.torture.maintenance import Maintenance
from tools.torture.messages import POISON, TENANTS, NativeMessages
from tools.torture.mixed import SOURCES, MixedMessages, make_sources
from tools.torture.posting import CLIENTS_EDGE, Poster, start_http
from tools.torture.results import Group, Result, insert, table
from tools.torture.schedule import SHORT, Planned, chosen
from tools.torture.watch import Watch

_POISON_REFUSED = {
    "sens.measurements": f"value <> {POISON!r}::float8",
    "sens.readings": f"array_position(numbers, {POISON!r}::float8) IS NULL",
}
_APART = [[f"sens/v1/{TENANTS[0]}/+/telemetry"], [f"sens/v1/{tenant}/+/telemetry" for tenant in TENANTS[1:]]]
_SHARED = [[f"$share/sens/{NATIVE_PATTERN.filter}"]] * 2
_PAGE = Path("docs/operations/failure-modes.md")


class Plan(NamedTuple):
    """What is done.

    Attributes:
        seed: Decides the faults, their order and how long they last.
        faults: How many.
        round_faults: How many between two audits.
        broker: Which one. The mock MQTT broker keeps sessions in memory alone and is not restarted.
        shared: Whether the ingestion workers share a subscription; else each has tenants of its own. Mosquitto does not keep shared
            subscriptions over a restart, so that it is not restarted then.
        rate: Messages a second.
        seconds: How long a fault lasts that need not last for a certain time: shortest and longest.
        longest: Faults that have to last longer are left out, seconds; None for none.
        disks: Whether the servers get disks of their own, which can be filled, where that is allowed.
        only: Faults without this in their name are left out.
        postgres_programs: Folder with another PostgreSQL's programs, None for the embedded one. TimescaleDB is used where it is there.
        mixed: Whether devices speak the formats of others too; there is one ingestion worker then.
        http: Whether messages are posted too, a fifth of the rate in addition.
    """

    seed: int
    faults: int
    round_faults: int = 5
    broker: str = "mosquitto"
    shared: bool = False
    rate: float = 300
    seconds: tuple[float, float] = SHORT
    longest: float | None = None
    disks: bool = True
    only: str = ""
    postgres_programs: Path | None = None
    mixed: bool = False
    http: bool = False

    @property
    def topic_filters(self) -> list[list[str]]:
        """Return what each of the ingestion workers subscribes to."""
        if self.mixed:
            return _SHARED[:1] if self.shared else [[NATIVE_PATTERN.filter]]
        return _SHARED if self.shared else _APART


class Torture:
    """A run.

    Attributes:
        result: What it has shown so far; also in the file, if there is one.
    """

    def __init__(self, plan: Plan, file: Path | None) -> None:
        self._plan = plan
        self._file = file
        self._record = Record(MixedMessages() if plan.mixed else NativeMessages())
        self._tap = Tap(self._record.taken_over)
        self._ingest_keys: Mapping[str, str] = {}
        self.result = Result(plan.seed, plan.broker, plan.rate)

    def run(self) -> None:
        """Run the plan to its end or to the first problem.

        Raises:
            StackError: Something did not start.
        """
        plan = self._plan
        started = time.monotonic()
        with (
            Stack.running(
                plan.broker,
                postgres_programs=plan.postgres_programs,
                proxied=True,
                tap=self._tap,
                own_disks=plan.disks,
                topic_filters=plan.topic_filters,
                telemetry_workers=2,
                tenants=TENANTS,
                worker_settings={"SENS_DEAD_LETTERS__MAX_SHARE": "1", **TIME_OUTS},
            ) as stack,
            ExitStack() as proxies,
        ):
            versions = stack.database_versions()
            self.result.database = ", ".join(f"{name} {version}" for name, version in versions.items())
            for name in set(stack.value_tables()).intersection(_POISON_REFUSED):
                stack.fetch(f"ALTER TABLE {name} ADD CONSTRAINT poison CHECK ({_POISON_REFUSED[name]})")
            restarts = plan.broker == "mosquitto" and not plan.shared
            every = faults(
                broker_restarts=restarts,
                disks=bool(stack.disks),
                columnstore="TimescaleDB" in versions,
                ingestion_workers=len(plan.topic_filters),
                codecs=plan.mixed,
                http=plan.http,
            )
            kinds = [fault for fault in every if plan.only in fault.name]
            if not stack.disks:
                print("left out: full disks, because only root may mount the small disks that this needs")
            order = chosen(
                kinds,
                plan.faults,
                random.Random(plan.seed),  # noqa: S311 - it has to repeat
                short=plan.seconds,
                longest=plan.longest,
            )
            maintenance.prepare(stack)
            if plan.mixed:
                make_sources(stack)
                self._subscribed()
            if plan.http:
                self._ingest_keys = start_http(stack, proxies)
            audit = Audit(stack, self._record, self._tap)
            while order and not self.result.problems:
                self._round(stack, audit, order[: plan.round_faults])
                order = order[plan.round_faults :]
                self.result.seconds = round(time.monotonic() - started, 1)
                self.write()
            if self.result.problems:
                for name in stack.names:
                    print(f"--- the end of what {name} wrote\n{stack[name].output()}")

    def write(self) -> None:
        """Write the result into the file."""
        if self._file is not None:
            self.result.write(self._file)

    def _round(self, stack: Stack, audit: Audit, order: Sequence[Planned]) -> None:
        problems: list[str] = []
        result, posted = self.result, self._record.posted
        self._record.begin_round()
        try:
            with self._load(stack), Maintenance(stack, result.maintenance):
                for planned in order:
                    if not problems:
                        self._happen(stack, audit, planned, problems)
        except StackError as error:
            problems.append(str(error).partition("\n")[0])  # the rest is the end of its output, which is printed anyway
        if not problems and (unsettled := audit.settle(loaded=False)) is not None:
            problems.append(unsettled)
        outcome = audit.check()
        if outcome.acknowledged == result.acknowledged:
            problems.append("the broker acknowledged nothing")
        if self._plan.http and self._record.posted == posted:
            problems.append("the HTTP ingestion acknowledged nothing")
        result.acknowledged, result.uncertain = outcome.acknowledged, outcome.uncertain
        result.stored, result.duplicate, result.dead_lettered = outcome.stored, outcome.duplicate, outcome.dead_lettered
        result.broker_lost = outcome.broker_lost
        result.problems = problems + outcome.problems
        over_http = f" ({self._record.posted} over HTTP)" if self._plan.http else ""
        print(
            f"{result.faults:4d} faults: {result.acknowledged} acknowledged{over_http}, {result.uncertain} uncertain, "
            f"{result.stored} stored, {result.duplicate} came again, {result.dead_lettered} dead-lettered, "
            f"{result.broker_lost} lost by the broker: "
            f"{'; '.join(result.problems) or 'nothing lost, nothing twice'}",
            flush=True,
        )

    @contextmanager
    def _load(self, stack: Stack) -> Iterator[None]:
        with ExitStack() as publishers:
            for number in range(4):
                rate = self._plan.rate / 4
                publishers.enter_context(Publisher(stack.mqtt3_port, self._record, name=f"torture-{number}", rate=rate))
            if self._plan.http:
                port, rate = stack.proxies[CLIENTS_EDGE].port, self._plan.rate / 5
                publishers.enter_context(Poster(port, self._record, self._ingest_keys, rate=rate))
            yield

    def _happen(self, stack: Stack, audit: Audit, planned: Planned, problems: list[str]) -> None:
        """Let a fault happen, and wait until everything is at rest again, if that is planned."""
        fault = planned.fault
        group = self.result.groups.setdefault(fault.group, Group())
        before = int(self._record.masks()[0].sum())
        print(f"     {fault.name}, {planned.seconds:.1f} s", end="", flush=True)
        with Watch(stack) as watch:
            fault.happen(stack, planned.seconds)
            if fault.kills_broker:
                self._subscribed()
                self._record.broker_was_killed()
        ended = time.monotonic()
        self.result.faults += 1
        group.times += 1
        rest = ""
        if planned.settled:
            if (unsettled := audit.settle(loaded=True)) is not None:
                problems.append(f"after {fault.name}: {unsettled}")
            group.settled_seconds.append(round(time.monotonic() - ended, 2))
            rest = f", at rest after {group.settled_seconds[-1]:.1f} s"
        time.sleep(planned.pause_seconds)
        group.messages += int(self._record.masks()[0].sum()) - before
        seen = self.result.seen.setdefault(fault.name, {})
        for worker, texts in watch.seen.items():
            seen[worker] = sorted(texts.union(seen.get(worker, [])))
        print(rest, flush=True)

    def _subscribed(self) -> None:
        """Wait until the ingestion workers have subscribed to everything."""
        wanted = sum(map(len, self._plan.topic_filters)) + (SOURCES if self._plan.mixed else 0)
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._tap.subscribed < wanted:
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self._tap.subscribed} of {wanted} topic filters are subscribed to after {SETTLE_SECONDS} s"
                )
            time.sleep(0.05)


def main() -> int:
    """Print what happens; return 1 when something was lost or stored twice."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--faults",
        type=int,
        default=40,
        help="how many faults; each kind comes once before any comes twice (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, help="repeat the run that printed this seed")
    parser.add_argument(
        "--broker",
        choices=["mosquitto", "mock-mqtt-broker"],
        default="mosquitto",
        help="broker; the mock MQTT broker is never killed (default: %(default)s)",
    )
    parser.add_argument("--shared", action="store_true", help="let the ingestion workers share a subscription")
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="let devices speak the formats of others too, codecs in JavaScript included; with one ingestion worker",
    )
    parser.add_argument(
        "--http", action="store_true", help="let messages be posted too, and break what is between them and the stream"
    )
    parser.add_argument("--rate", type=float, default=300, help="messages per second (default: %(default)s)")
    parser.add_argument("--round", type=int, default=5, help="faults between two audits (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs=2,
        default=SHORT,
        metavar=("FROM", "TO"),
        help="how long a fault lasts that may be short (default: 0.2 2)",
    )
    parser.add_argument("--longest", type=float, help="leave out faults that must last longer than this many seconds")
    parser.add_argument("--no-disks", action="store_true", help="do not mount disks, and so leave out full disks")
    parser.add_argument("--only", default="", help="only faults whose name contains this text")
    parser.add_argument("--postgres-programs", type=Path, help="the bin folder of another PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file after each round")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE", help=f"only write the results in these files into {_PAGE}"
    )
    options = parser.parse_args()
    if options.table:
        insert(_PAGE, table(Result.read(file) for file in options.table))
        return 0
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    torture = Torture(
        Plan(
            seed,
            options.faults,
            options.round,
            options.broker,
            options.shared,
            options.rate,
            tuple(options.seconds),
            options.longest,
            not options.no_disks,
            options.only,
            options.postgres_programs,
            options.mixed,
            options.http,
        ),
        options.json,
    )
    print(f"seed {seed}: repeat with --seed {seed}", flush=True)
    try:
        torture.run()
    except StackError as error:
        torture.result.problems.append(str(error))
        torture.write()
    for name, group in sorted(torture.result.groups.items()):
        longest = f"{max(group.settled_seconds):6.1f} s" if group.settled_seconds else "       -"
        print(f"{group.times:4d} {longest}  {name}")
    for what, times in sorted(torture.result.maintenance.items()):
        print(f"{times:4d}          -  meanwhile: {what}")
    if torture.result.problems:
        print(f"scripts/torture: seed {seed}: {'; '.join(torture.result.problems)}", file=sys.stderr)
    return 1 if torture.result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
