"""The figures as tables, for the terminal and for the page; both are Markdown, with columns that line up."""

# ruff: noqa: RUF001 - the multiplication sign is meant

import statistics
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tools.bench.compared import pairs, telegraf
from tools.bench.figures import Rate, Results
from tools.bench.format_tables import fairness, formats
from tools.bench.markdown import NAMES, PAYLOADS, table
from tools.bench.medians import cost, cpu, platform_cost, rate
from tools.bench.read_tables import reads
from tools.bench.targets import targets

END_TO_END: Final = "end to end"
_LEAST_SHOWN: Final = 0.05
_PROCESSES: Final = ("ingestion", "nats", "telemetry", "postgres")


def machine(results: Results) -> str:
    """Describe where the figures come from."""
    of = results.machine
    rows = [
        ("Processor", f"{of.processor}, {of.cores} cores"),
        ("Memory", f"{of.memory_gigabytes:.0f} GB"),
        ("System", f"{of.distribution}, {of.kernel}"),
        ("Disk", f"{of.sync_milliseconds:.2f} ms to append 4 KiB and sync it (median)"),
        ("Python", f"{of.python}, {'optimised' if of.optimised_python else 'built without optimisation'}"),
        ("Programs", ", ".join(f"{name} {version}" for name, version in of.versions.items())),
        ("Commit", of.commit),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name.ljust(width)} | {text} |" for name, text in rows)])


def hops(results: Results) -> str:
    """Return a table for each payload: rate and CPU time of each hop."""
    return "\n\n".join(
        f"{PAYLOADS[payload]}:\n\n{_rates(rows)}" for payload in PAYLOADS if (rows := _hops(results, payload))
    )


def _hops(results: Results, payload: str) -> dict[str, Sequence[Rate]]:
    found: dict[str, Sequence[Rate]] = {**results.hops.get(payload, {})}
    if payload in results.end_to_end:
        found[END_TO_END] = results.end_to_end[payload]
    if payload in results.telegraf:
        found["Telegraf, end to end"] = results.telegraf[payload].rounds
    return found


def _rates(rows: Mapping[str, Sequence[Rate]]) -> str:
    names = [name for name in NAMES if any(name in one.cpu_microseconds for rounds in rows.values() for one in rounds)]
    body = []
    for hop, rounds in rows.items():
        costs = cpu(rounds)
        body.append(
            [
                hop,
                f"{rate(rounds):,.0f}",
                *(f"{costs[name]:.1f}" if costs.get(name, 0) >= _LEAST_SHOWN else "" for name in names),
            ]
        )
    return table(["", "msg/s", *(f"{NAMES[name]} µs" for name in names)], body)


def end_to_end(results: Results) -> str:
    """Return the medians of runs with the load of which most gets through."""
    rows = [
        [
            PAYLOADS[payload],
            f"{len(rounds)} × {rounds[0].messages:,}",
            f"{rounds[0].offered_per_second:,.0f}" if rounds[0].offered_per_second else "no limit",
            *(
                f"{statistics.median(values):,.0f}"
                for values in (
                    [one.acknowledged_per_second for one in rounds],
                    [one.logged_per_second for one in rounds],
                    [one.per_second for one in rounds],
                    [one.values_per_second for one in rounds],
                )
            ),
        ]
        for payload, rounds in results.end_to_end.items()
    ]
    head = ["Payload", "runs × messages", "offered/s", "acknowledged/s", "in the stream/s", "stored/s", "values/s"]
    return f"{table(head, rows)}\n\n{_costs(results)}" if rows else ""


def _costs(results: Results) -> str:
    """Return what a message costs each process and the disk."""
    names = [name for name in NAMES if name in _PROCESSES]
    rows = [
        [
            PAYLOADS[payload],
            *(f"{cpu(rounds).get(name, 0.0):.1f} µs" for name in names),
            f"{statistics.median(map(platform_cost, rounds)):.1f} µs",
            *_bytes(rounds),
            *([f"{results.columnstore.get(payload, 0.0):,.1f} B"] if results.columnstore else []),
        ]
        for payload, rounds in results.end_to_end.items()
    ]
    head = ["A message of", *(NAMES[name] for name in names), "these together", "WAL", "disk"]
    return table([*head, *(["columnstore"] if results.columnstore else [])], rows)


def _bytes(rounds: Sequence[Rate]) -> list[str]:
    """Return how much of the database's WAL and disk a message takes; nothing where it was not looked at."""
    medians = [
        statistics.median(values) for values in zip(*((one.wal_bytes, one.disk_bytes) for one in rounds), strict=True)
    ]
    return [f"{median:,.0f} B" if median else "" for median in medians]


def latency(results: Results) -> str:
    """Return percentiles by rate."""
    if not results.latency:
        return ""
    rows = [
        [
            f"{one.rate:,.0f} msg/s",
            *(f"{one.milliseconds[at]:.1f} ms" for at in ("50", "99", "100")),
            f"{one.probes:,}",
            f"{one.poll_milliseconds:.1f} ms",
        ]
        for one in results.latency
    ]
    return table(["Load", "p50", "p99", "max", "probes", "resolution"], rows)


def backlog(results: Results) -> str:
    """Return the way back from each outage, and the most memory that each process took."""
    if not results.backlog:
        return ""
    names = [name for name in NAMES if name in results.backlog[0].peak_megabytes]
    rows = [
        [
            f"{NAMES[one.away]} away",
            f"{one.waited:,}",
            f"{one.recovery_seconds:.1f} s",
            f"{one.per_second:,.0f}",
            *(f"{one.peak_megabytes[name]:,.0f} MB" for name in names),
        ]
        for one in results.backlog
    ]
    return table(["", "waited", "first stored after", "drained/s", *(NAMES[name] for name in names)], rows)


def devices(results: Results) -> str:
    """Return rates and costs by number of devices."""
    rows = [
        [
            f"{one.devices:,}",
            f"{one.first.messages:,}",
            f"{one.first.per_second:,.0f}",
            f"{cost(one.first):.1f} µs",
            f"{one.again.per_second:,.0f}",
            f"{cost(one.again):.1f} µs",
        ]
        for one in results.devices
    ]
    head = ["Devices", "messages a pass", "new: msg/s", "new: CPU a message", "known: msg/s", "known: CPU a message"]
    return table(head, rows) if rows else ""


def rows(results: Results) -> str:
    """Return rates and costs by values that the database holds already."""
    lines = [
        [
            f"{one.rows:,}",
            f"{one.load.per_second:,.0f}",
            f"{cost(one.load):.1f} µs",
            f"{one.load.cpu_microseconds['postgres']:.1f} µs",
        ]
        for one in results.rows
    ]
    return table(["Values before", "msg/s", "CPU a message", "PostgreSQL's"], lines) if lines else ""


def malformed(results: Results) -> str:
    """Return the rate at which good messages are stored beside malformed ones, and when all are good."""
    if not results.malformed or not all(one.beside for one in results.malformed):
        return ""
    share = results.malformed[0].malformed / results.malformed[0].messages
    median = statistics.median
    row = [
        f"{share:.0%}",
        f"{median(one.beside for one in results.malformed):,.0f}",
        f"{rate(results.malformed):,.0f}",
        f"{median(one.stored_per_second for one in results.malformed):,.0f}",
        f"{median(one.per_second / one.beside for one in results.malformed):.0%}",
        f"{median(one.stored_per_second / one.beside for one in results.malformed):.0%}",
    ]
    head = ["Malformed", "without: stored/s", "settled/s", "stored/s", "settled / without", "stored / without"]
    return table(head, [row])


def replay(results: Results) -> str:
    """Return what replays of dead letters took."""
    rows = [
        [
            "every other one, by a filter" if one.others else "all",
            f"{one.dead_letters:,}",
            f"{one.left:,}",
            f"{one.replayed_per_second:,.0f}",
            f"{one.stored_seconds:.1f} s",
            f"{one.megabytes:.0f} MB",
            f"{one.sent_twice:,}",
        ]
        for one in results.replay
    ]
    head = [
        "Replayed",
        "dead letters",
        "left at the kill",
        "then replayed/s",
        "all stored after",
        "memory",
        "sent twice, stored once",
    ]
    return table(head, rows) if rows else ""


def http(results: Results) -> str:
    """Return how fast messages were taken by HTTP, and how long each waited for its answer."""
    rows = [
        [
            f"{one.connections}",
            f"{one.messages:,}",
            f"{one.per_second:,.0f}",
            *(f"{one.milliseconds[at]:.1f} ms" for at in ("50", "99", "100")),
            f"{one.cpu_microseconds['http']:.0f} µs",
            f"{one.cpu_microseconds['nats']:.0f} µs",
        ]
        for one in results.http
    ]
    head = ["Connections", "requests", "answered/s", "p50", "p99", "max", "worker a request", "NATS a request"]
    return table(head, rows) if rows else ""


def together(all_results: Sequence[Results], section: Callable[[Results], str]) -> str:
    """Return a section for each of several results, which are of different databases; of one, just that."""
    shown = [(results.database, text) for results in all_results if (text := section(results))]
    if len(all_results) == 1 or section is machine:
        return shown[0][1] if shown else ""
    return "\n\n".join(f"On {database}:\n\n{text}" for database, text in shown)


SECTIONS: Final = MappingProxyType(
    {
        "machine": machine,
        "targets": targets,
        "end-to-end": end_to_end,
        "hops": hops,
        "latency": latency,
        "backlog": backlog,
        "devices": devices,
        "rows": rows,
        "malformed": malformed,
        "replay": replay,
        "telegraf": telegraf,
        "pairs": pairs,
        "reads": reads,
        "http": http,
        "formats": formats,
        "fairness": fairness,
    }
)
"""What there is to show, by the name of its section on the page."""


def report(results: Results) -> str:
    """Return everything that was measured."""
    shown = [f"{name}\n\n{text}" for name, section in SECTIONS.items() if (text := section(results))]
    shown += [f"{name} gave no figures: {reason}" for name, reason in results.failures.items()]
    return "\n\n".join(shown)
