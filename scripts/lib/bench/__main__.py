"""Measures the path from a publish to the database. Called by scripts/bench."""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.lib.bench import runs
from scripts.lib.bench.load import Shape
from scripts.lib.bench.machine import machine
from scripts.lib.bench.malformed import malformed, malformed_table
from scripts.lib.bench.replay import replay, replay_line
from scripts.lib.stack.path import Stack, StackError


def table(
    rounds: Sequence[runs.Throughput], latencies: Sequence[runs.Latency], backlog: runs.Backlog | None
) -> Iterator[str]:
    """Yield the figures' medians for people."""
    rates = {
        "acknowledged to publishers": [one.acknowledged_per_second for one in rounds],
        "in the log": [one.logged_per_second for one in rounds],
        "stored": [one.stored_per_second for one in rounds],
        "values stored": [one.values_per_second for one in rounds],
    }
    yield f"{rounds[0].messages:,} messages, median of {len(rounds)} runs"
    for name, values in rates.items():
        yield f"  {name:28} {statistics.median(values):10,.0f} /s"
    yield "CPU a message, and memory at the end"
    for name in rounds[0].cpu_microseconds:
        cpu = statistics.median(one.cpu_microseconds[name] for one in rounds)
        yield f"  {name:28} {cpu:10.1f} µs {rounds[-1].megabytes[name]:8.0f} MB"
    for one in latencies:
        yield (
            f"publish to visible at {one.rate:,.0f} msg/s: median {one.median_milliseconds:.0f} ms, p99 "
            f"{one.p99_milliseconds:.0f} ms, max {one.max_milliseconds:.0f} ms ({one.probes} probes)"
        )
    if backlog:
        memory = ", ".join(
            f"{name} {before:.0f} to {most:.0f} MB" for name, (before, most) in backlog.megabytes.items()
        )
        yield f"backlog of {backlog.messages:,} messages: {backlog.drained_per_second:,.0f} /s; {memory}"


def main() -> int:
    """Print a table; write everything as JSON where asked."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--broker", choices=["mosquitto", "mock-mqtt-broker"], default="mosquitto")
    parser.add_argument("--messages", type=int, default=400_000, help="messages of a throughput run")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="throughput runs; the table shows the median")
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[100, 2000, 10_000], help="of the latency runs, msg/s"
    )
    parser.add_argument("--seconds", type=float, default=20, help="length of a latency run")
    parser.add_argument("--backlog", type=int, default=0, help="messages of the backlog run; 0 leaves it out")
    parser.add_argument("--malformed", type=float, help="share of malformed messages in a further throughput run")
    parser.add_argument("--replay", type=int, default=0, help="dead letters of a replay; 0 leaves it out")
    parser.add_argument("--postgres-programs", type=Path, help="another PostgreSQL's folder of programs (…/bin)")
    parser.add_argument("--json", type=Path, help="file for everything that was measured")
    options = parser.parse_args()
    results: dict[str, object] = {"machine": machine(), "broker": options.broker}
    try:
        with Stack.running(options.broker, postgres_programs=options.postgres_programs, tenants=("bench",)) as stack:
            shape = Shape(options.messages, devices=options.devices)
            runs.throughput(stack, shape._replace(messages=min(20_000, options.messages)))
            rounds = [runs.throughput(stack, shape) for _ in range(options.rounds)]
            spoilt = [
                malformed(stack, shape, options.malformed) for _ in range(options.rounds if options.malformed else 0)
            ]
            replays = [replay(stack, options.replay, filtered=by) for by in (False, True) if options.replay]
            latencies = [runs.latency(stack, rate, options.seconds, shape) for rate in options.rates]
            backlog = runs.backlog(stack, shape._replace(messages=options.backlog)) if options.backlog else None
    except StackError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    results |= {"throughput": [one._asdict() for one in rounds], "latency": [one._asdict() for one in latencies]}
    if spoilt:
        results["malformed"] = [one._asdict() for one in spoilt]
    if replays:
        results["replay"] = [one._asdict() for one in replays]
    if backlog:
        results["backlog"] = backlog._asdict()
    print("\n".join(table(rounds, latencies, backlog)))
    if spoilt:
        print(malformed_table([one.stored_per_second for one in rounds], spoilt))
    for one in replays:
        print(replay_line(one))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
