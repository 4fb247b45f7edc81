"""Measures the path from a publish to the database."""

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import asyncpg
import msgspec

from sens_common.errors import SensError
from tools.bench import (
    backlog,
    fairness,
    format_decoding,
    format_path,
    hops,
    malformed,
    page,
    pairs,
    posting,
    reads,
    runs,
    scale,
    telegraf,
)
from tools.bench.figures import Rate, Results
from tools.bench.formats import FORMATS, NATIVE
from tools.bench.history import Size
from tools.bench.load import PAYLOADS, Shape
from tools.bench.machine import checkout_commit, machine
from tools.bench.measured_path import MeasuredPath
from tools.bench.replay import replay
from tools.bench.report import report
from tools.stack.path import TELEMETRY, Stack, StackError
from tools.stack.programs import POSTGRES

_FAILURES: Final = (StackError, SensError, OSError, ExceptionGroup, asyncpg.PostgresError, TimeoutError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write JSON; or write measured figures into the documentation."""
    options = _parser().parse_args(arguments)
    try:
        if options.publish:
            page.publish([_read(file) for file in options.publish])
            return 0
        results = _results(options)
    except (OSError, ValueError) as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    parts = list(PARTS) if options.all else ["formats"] if options.format else options.only
    if options.all and telegraf.installed() is None:
        print("telegraf is not on PATH: nothing to compare with", file=sys.stderr)
        parts = [name for name in parts if name not in {"telegraf", "pairs"}]
    for name in parts:
        _measure(name, results, options)
        if options.json:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(report(results))
    return 1 if any(name in results.failures for name in parts) else 0


def _measure(name: str, results: Results, options: argparse.Namespace) -> None:
    """Measure a part; what goes wrong is noted, so that the others still give their figures."""
    started = time.monotonic()
    print(f"{name} …", file=sys.stderr, flush=True)
    results.failures.pop(name, None)
    try:
        PARTS[name](results, options)
    except _FAILURES as error:
        results.failures[name] = str(error) or type(error).__name__
        print(f"scripts/bench: {name}: {results.failures[name]}", file=sys.stderr)
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--all", action="store_true", help="measure every part (takes an hour)")
    what.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        default=["end-to-end", "latency"],
        metavar="PART",
        help=f"measure these parts: {', '.join(PARTS)} (default: end-to-end latency)",
    )
    what.add_argument(
        "--format",
        nargs="+",
        choices=[NATIVE, *FORMATS],
        metavar="NAME",
        help=f"measure what messages of these formats cost the telemetry worker: {', '.join(FORMATS)}; {NATIVE} is SENS' own with sources in place,"
        " in pairs with a path that has none, or with another checkout's (--against)",
    )
    what.add_argument(
        "--publish",
        type=Path,
        nargs="+",
        metavar="FILE",
        help=f"only write the figures of JSON files, each of another database, into {page.PAGE}",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="add the figures to this file; it keeps those of other parts"
    )
    parser.add_argument(
        "--payload",
        nargs="+",
        choices=list(PAYLOADS),
        default=list(PAYLOADS),
        help="payloads; latency, backlog, devices and rows take the first one",
    )
    parser.add_argument("--messages", type=int, default=400_000, help="messages in a run (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=1000, help="devices that send them (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs; tables show the median (default: %(default)s)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[100, 2000, 10_000], help="messages per second of the latency runs"
    )
    parser.add_argument("--seconds", type=float, default=20, help="length of a latency run (default: %(default)s)")
    parser.add_argument(
        "--backlog",
        type=int,
        default=1_000_000,
        help="messages that wait in the stream while something is away (default: %(default)s)",
    )
    parser.add_argument(
        "--device-counts",
        type=int,
        nargs="+",
        default=[100, 10_000, 1_000_000],
        help="numbers of devices to compare; each run sends as many messages as the largest",
    )
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1_000_000, 10_000_000],
        help="values in the database before a load (default: 1,000,000 and 10,000,000)",
    )
    parser.add_argument(
        "--malformed", type=float, default=0.5, help="share of malformed messages (default: %(default)s)"
    )
    parser.add_argument("--replay", type=int, default=100_000, help="dead letters to replay (default: %(default)s)")
    parser.add_argument(
        "--reads",
        type=int,
        nargs=3,
        default=[1_000_000, 26, 10_000],
        metavar=("READINGS", "YEARS", "DEVICES"),
        help="what is read: a device's readings, a reading a minute; the years that another one has; devices of a fleet"
        " (default: 1000000 26 10000)",
    )
    parser.add_argument("--pairs", type=int, default=15, help="how many pairs of runs (default: %(default)s)")
    parser.add_argument(
        "--against",
        nargs="+",
        default=["telegraf"],
        metavar="OTHER",
        help="the other one of the pairs: telegraf, telegraf-with-key (a unique key on device and time), or the folder of another"
        " checkout with its environment in .venv (default: telegraf)",
    )
    parser.add_argument("--requests", type=int, default=50_000, help="HTTP requests in a run (default: %(default)s)")
    parser.add_argument(
        "--connections", type=int, default=64, help="HTTP connections at the same time (default: %(default)s)"
    )
    parser.add_argument("--postgres-programs", type=Path, help="the bin folder of another PostgreSQL")
    return parser


def _read(file: Path) -> Results:
    """Read figures.

    Raises:
        OSError: There is no such file.
        ValueError: It holds something else.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Results)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file} does not hold figures of this version: {error}") from error


def _results(options: argparse.Namespace) -> Results:
    """Return the results to add to: those in the file, if they are of this machine.

    Raises:
        ValueError: They are not, or are not readable.
    """
    fresh = Results(machine())
    if not (options.json and options.json.exists()):
        return fresh
    before = _read(options.json)
    commits = [*before.machine.commit.split(", "), fresh.machine.commit]
    both = dataclasses.replace(
        before.machine,
        commit=", ".join(dict.fromkeys(commits)),
        sync_milliseconds=fresh.machine.sync_milliseconds,
        versions=before.machine.versions | fresh.machine.versions,
    )
    same = dataclasses.replace(fresh.machine, commit=both.commit, versions=both.versions)
    if both != same:
        raise ValueError(f"{options.json} holds figures of another machine: name another file")
    return dataclasses.replace(before, machine=both)


@contextlib.contextmanager
def _measured_path(results: Results, options: argparse.Namespace, *tenants: str) -> Iterator[MeasuredPath]:
    """Run a path of its own, with an empty database, for a part; other tenants beside the load's where it needs some."""
    with Stack.running("mosquitto", postgres_programs=options.postgres_programs, tenants=("bench", *tenants)) as stack:
        versions = stack.database_versions()
        database = ", ".join(f"{name} {version}" for name, version in versions.items())
        if results.database not in {"", database}:
            raise StackError(f"the file holds figures on {results.database}, and this is {database}: name another file")
        results.database = database
        results.machine.versions.update(versions)
        yield MeasuredPath(stack)


def _shape(options: argparse.Namespace) -> Shape:
    return Shape(options.messages, devices=options.devices, payload=options.payload[0])


def _end_to_end(results: Results, options: argparse.Namespace) -> None:
    for payload in options.payload:
        shape = _shape(options)._replace(payload=payload)
        with _measured_path(results, options) as path:
            path.warm_up(shape)
            results.end_to_end[payload] = runs.fastest(path.with_empty_tables(runs.end_to_end), shape, options.rounds)
            if (size := path.columnstore_bytes(shape.messages)) is not None:
                results.columnstore[payload] = size


def _hops(results: Results, options: argparse.Namespace) -> None:
    for payload in options.payload:
        shape = _shape(options)._replace(payload=payload)
        with _measured_path(results, options) as path:
            path.warm_up(shape)
            stored: list[Rate] = []
            results.hops[payload] = {
                hops.BROKER_ALONE: runs.fastest(path.with_empty_tables(hops.broker_alone), shape, options.rounds),
                hops.INTO_THE_STREAM: runs.fastest(
                    path.with_empty_tables(partial(hops.one_after_the_other, stored)), shape, options.rounds
                ),
                hops.INTO_THE_DATABASE: stored[-options.rounds :],
            }


def _latency(results: Results, options: argparse.Namespace) -> None:
    with _measured_path(results, options) as path:
        results.latency = [runs.latency(path, rate, options.seconds, _shape(options)) for rate in options.rates]


def _backlog(results: Results, options: argparse.Namespace) -> None:
    shape = _shape(options)._replace(messages=options.backlog)
    results.backlog = []
    for away in (TELEMETRY, POSTGRES):
        with _measured_path(results, options) as path:
            results.backlog.append(backlog.backlog(path, shape, away))


def _devices(results: Results, options: argparse.Namespace) -> None:
    counts = sorted(options.device_counts)
    results.devices = []
    for count in counts:
        shape = _shape(options)._replace(messages=counts[-1], devices=count)
        with _measured_path(results, options) as path:
            results.devices.append(scale.devices(path, shape))


def _rows(results: Results, options: argparse.Namespace) -> None:
    results.rows = []
    with _measured_path(results, options) as path:
        present = 0
        for wanted in sorted(options.rows):
            results.rows.append(scale.rows(path, _shape(options), present, wanted))
            present = results.rows[-1].rows + _shape(options).values * options.messages


def _malformed(results: Results, options: argparse.Namespace) -> None:
    with _measured_path(results, options) as path:
        shape = _shape(options)
        path.warm_up(shape)
        results.malformed = malformed.compare(path, shape, options.malformed, options.rounds)


def _replay(results: Results, options: argparse.Namespace) -> None:
    with _measured_path(results, options) as path:
        results.replay = [replay(path.stack, options.replay, filtered=filtered) for filtered in (False, True)]


def _telegraf(results: Results, options: argparse.Namespace) -> None:
    if telegraf.installed() is None:
        raise StackError("telegraf is not on PATH")
    for payload in options.payload:
        with _measured_path(results, options) as path:
            shape = _shape(options)._replace(payload=payload)
            results.telegraf[payload] = telegraf.compare(path, shape, options.rounds)


def _pairs(results: Results, options: argparse.Namespace) -> None:
    for payload in options.payload:
        shape = _shape(options)._replace(payload=payload)
        for other in options.against:
            with _measured_path(results, options) as path:
                if other in {"telegraf", "telegraf-with-key"}:
                    found = pairs.against_telegraf(path, shape, options.pairs, keyed=other != "telegraf")
                else:
                    folder = Path(other)
                    with pairs.other_path(folder, options.postgres_programs) as theirs:
                        found = pairs.against_checkout(path, theirs, folder, shape, options.pairs)
            results.pairs[f"{payload} against {found.other}"] = found


def _reads(results: Results, options: argparse.Namespace) -> None:
    with _measured_path(results, options) as path:
        results.reads = reads.measure(path.stack, Size(*options.reads))


def _http(results: Results, options: argparse.Namespace) -> None:
    with _measured_path(results, options) as path:
        results.http = posting.post(path.stack, options.requests, options.connections, options.rounds)


def _formats(results: Results, options: argparse.Namespace) -> None:
    for name in options.format or [NATIVE, *FORMATS]:
        if name != NATIVE:
            results.decoding[name] = format_decoding.compare(name, options.rounds)
            with _measured_path(results, options) as path:
                results.formats[name] = format_path.against_native(path, name, options.pairs)
            continue
        for other in options.against:
            folder = None if other.startswith("telegraf") else Path(other)
            theirs = (
                _measured_path(results, options)
                if folder is None
                else pairs.other_path(folder, options.postgres_programs)
            )
            title = format_path.WITHOUT_SOURCES if folder is None else checkout_commit(folder)
            with _measured_path(results, options) as path, theirs as without:
                found = format_path.with_and_without_sources(path, without, title, options.pairs)
            results.formats[f"{NATIVE} against {title}"] = found


def _fairness(results: Results, options: argparse.Namespace) -> None:
    with _measured_path(results, options, fairness.OTHER) as path:
        results.fairness = fairness.measure(path, options.seconds, options.rounds)


PARTS: Final[MappingProxyType[str, Callable[[Results, argparse.Namespace], None]]] = MappingProxyType(
    {
        "end-to-end": _end_to_end,
        "hops": _hops,
        "latency": _latency,
        "backlog": _backlog,
        "devices": _devices,
        "rows": _rows,
        "malformed": _malformed,
        "replay": _replay,
        "telegraf": _telegraf,
        "pairs": _pairs,
        "reads": _reads,
        "http": _http,
        "formats": _formats,
        "fairness": _fairness,
    }
)


if __name__ == "__main__":
    sys.exit(main())
