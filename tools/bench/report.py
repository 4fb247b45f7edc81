"""The figures as tables, for the terminal and for the page; both are Markdown, with columns that line up."""

# ruff: noqa: RUF001 - the multiplication sign is meant

import statistics
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tools.bench.figures import GENERATOR, AfterFault, Rate, Results, Telegraf, cpu, rate

END_TO_END: Final = "end to end"
_NUMBERS: Final = "numbers"
_PAYLOADS: Final = MappingProxyType({_NUMBERS: "5 numbers", "numbers-and-text": "5 numbers and a text"})
NAMES: Final = MappingProxyType(
    {
        "broker": "broker",
        "ingestion": "ingestion",
        "nats": "NATS",
        "telemetry": "telemetry",
        "postgres": "PostgreSQL",
        "telegraf": "Telegraf",
        "subscriber": "subscriber",
        GENERATOR: "generator",
    }
)
"""Processes in the order of the path, as they are shown."""

_LEAST_SHOWN: Final = 0.05
_MIN_RATE: Final = 40_000
_TELEGRAF_RATIO: Final = 1.5
_CPU_TARGETS: Final = (("ingestion", 9, 7), ("telemetry", 5, 4), ("postgres", 10, 8), ("nats", 2, 1))
_TARGET_LATENCY_RATE: Final = 2000
_LATENCY_TARGETS: Final = (100, 30)
_WORKER_MEGABYTES: Final = 200
_DEVICES_TARGETS: Final = (2, 1.3)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are figures."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = (
        "| "
        + " | ".join("-" * (width - bool(column)) + ":" * bool(column) for column, width in enumerate(widths))
        + " |"
    )
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def cost(one: Rate) -> float:
    """Return the CPU time of a message in all processes but the load's own."""
    return sum(used for name, used in one.cpu_microseconds.items() if name != GENERATOR)


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


def targets(results: Results) -> str:
    """Compare with what was set out to be reached."""
    rows = list(_target_rows(results))
    return table(["Figure", "At least", "Aim", "Measured", "Reached"], rows) if rows else ""


def _verdict(value: float, least: float, aim: float | None = None) -> str:
    if aim is not None and value <= aim:
        return "aim"
    return "yes" if value <= least else "**no**"


def _target_rows(results: Results) -> Iterator[tuple[str, str, str, str, str]]:
    rounds = results.end_to_end.get(_NUMBERS)
    telegraf = results.telegraf.get(_NUMBERS)
    if rounds:
        reached = rate(rounds)
        ratio = rate(telegraf.beside or rounds) / rate(telegraf.rounds) if telegraf else None
        yield (
            "end to end, 5 numbers a message",
            f"{_MIN_RATE:,} msg/s",
            f"{_TELEGRAF_RATIO} × Telegraf",
            f"{reached:,.0f} msg/s" + (f", {ratio:.2f} × Telegraf" if ratio else ""),
            _verdict(-reached, -_MIN_RATE, -reached if ratio and ratio >= _TELEGRAF_RATIO else None),
        )
        costs = cpu(rounds)
        for name, least, aim in _CPU_TARGETS:
            used = costs.get(name, 0.0)
            yield (
                f"CPU a message: {NAMES[name]}",
                f"{least} µs",
                f"{aim} µs",
                f"{used:.1f} µs",
                _verdict(used, least, aim),
            )
    for one in results.latency:
        if one.rate == _TARGET_LATENCY_RATE:
            least, aim = _LATENCY_TARGETS
            p99 = one.milliseconds["99"]
            name = f"publish to visible at {one.rate:,.0f} msg/s, p99"
            yield (name, f"{least} ms", f"{aim} ms", f"{p99:.0f} ms", _verdict(p99, least, aim))
    for backlog in results.backlog:
        name = f"backlog of {backlog.waited:,} messages, {NAMES[backlog.away]} away"
        if rounds:
            full = f"{rate(rounds):,.0f} msg/s"
            reached = backlog.per_second
            yield (f"{name}: drained", full, "", f"{reached:,.0f} msg/s", _verdict(-reached, -rate(rounds)))
        most = max(backlog.peak_megabytes.get(worker, 0.0) for worker in ("ingestion", "telemetry"))
        limit = f"{_WORKER_MEGABYTES} MB"
        yield (f"{name}: largest worker", limit, "flat", f"{most:.0f} MB", _verdict(most, _WORKER_MEGABYTES))
    if len(results.devices) > 1:
        few, many = results.devices[0], results.devices[-1]
        ratio = cost(many.again) / cost(few.again)
        name = f"cost a message, {few.devices:,} to {many.devices:,} devices"
        least, wish = _DEVICES_TARGETS
        yield (name, f"{least} ×", f"{wish} ×", f"{ratio:.2f} ×", _verdict(ratio, least, wish))


def hops(results: Results) -> str:
    """Return a table for each payload: rate and CPU time of each hop."""
    return "\n\n".join(
        f"{_PAYLOADS[payload]}:\n\n{_rates(rows)}" for payload in _PAYLOADS if (rows := _hops(results, payload))
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
            _PAYLOADS[payload],
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
    return table(head, rows) if rows else ""


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
    """Return rates and costs by rows that the table holds already."""
    lines = [
        [
            f"{one.rows:,}",
            f"{one.load.per_second:,.0f}",
            f"{cost(one.load):.1f} µs",
            f"{one.load.cpu_microseconds['postgres']:.1f} µs",
        ]
        for one in results.rows
    ]
    return table(["Rows before", "msg/s", "CPU a message", "PostgreSQL's"], lines) if lines else ""


def telegraf(results: Results) -> str:
    """Return the comparison with Telegraf."""
    if not results.telegraf:
        return ""
    lines = []
    for payload, one in results.telegraf.items():
        ours = one.beside or results.end_to_end.get(payload)
        lines.append(
            [
                _PAYLOADS[payload],
                f"{rate(one.rounds):,.0f}",
                f"{cpu(one.rounds)['telegraf']:.1f} µs",
                f"{rate(ours):,.0f}" if ours else "",
                f"{sum(cpu(ours)[name] for name in ('ingestion', 'nats', 'telemetry')):.1f} µs" if ours else "",
                f"{rate(ours) / rate(one.rounds):.2f} ×" if ours else "",
            ]
        )
    head = [
        "Payload",
        "Telegraf: msg/s",
        "Telegraf: CPU",
        "SENS: msg/s",
        "SENS: CPU (workers, NATS)",
        "SENS / Telegraf",
    ]
    text = [table(head, lines)]
    settings = list(dict.fromkeys(name for one in results.telegraf.values() for name in one.tried))
    tried = [[name, *(_tried(one, name) for one in results.telegraf.values())] for name in settings]
    text.append("The fastest of these settings were taken, one run each:")
    text.append(table(["Settings", *(f"{_PAYLOADS[payload]}: msg/s" for payload in results.telegraf)], tried))
    last = results.telegraf[min(results.telegraf)]
    text.append(
        table(
            ["Fault", "published", "rows", "messages in them", "lost", "stored twice"],
            [
                _after_fault("one message in ten malformed", last.malformed),
                _after_fault(f"killed under load and started again, {last.kills} times", last.killed),
            ],
        )
    )
    return "\n\n".join(text)


def _tried(one: Telegraf, settings: str) -> str:
    shown = f"{one.tried.get(settings, 0.0):,.0f}"
    return f"**{shown}**" if settings == one.settings else shown


def _after_fault(name: str, of: AfterFault) -> list[str]:
    figures = (of.published, of.rows, of.distinct, of.published - of.distinct, of.rows - of.distinct)
    return [name, *(f"{figure:,}" for figure in figures)]


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
    }
)
"""What there is to show, by the name of its section on the page."""


def report(results: Results) -> str:
    """Return everything that was measured."""
    shown = [f"{name}\n\n{text}" for name, section in SECTIONS.items() if (text := section(results))]
    shown += [f"{name} gave no figures: {reason}" for name, reason in results.failures.items()]
    return "\n\n".join(shown)
