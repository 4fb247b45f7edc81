"""The figures of SENS beside those of Telegraf and of other versions, as tables."""

# ruff: noqa: RUF001 - the multiplication sign is meant

import statistics
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from tools.bench.figures import AfterFault, Pairs, Rate, Results, Telegraf
from tools.bench.markdown import NAMES, PAYLOADS, table
from tools.bench.medians import LEAST_FOR_INTERVAL, cpu, median_interval, platform_cost, rate

TELEGRAF: Final = "Telegraf"
"""What the other one is called in `Pairs`; a note may follow."""


def telegraf(results: Results) -> str:
    """Return the comparison with Telegraf."""
    if not results.telegraf:
        return ""
    lines = []
    for payload, one in results.telegraf.items():
        ours = one.beside or results.end_to_end.get(payload)
        lines.append(
            [
                PAYLOADS[payload],
                f"{rate(one.rounds):,.0f}",
                f"{cpu(one.rounds)['telegraf']:.1f} µs",
                f"{rate(ours):,.0f}" if ours else "",
                f"{sum(cpu(ours)[name] for name in ('ingestion', 'nats', 'telemetry')):.1f} µs" if ours else "",
                f"{rate(ours) / rate(one.rounds):.2f} ×" if ours else "",
                f"{rate(one.keyed):,.0f}" if one.keyed else "",
                f"{rate(ours) / rate(one.keyed):.2f} ×" if ours and one.keyed else "",
            ]
        )
    head = [
        "Payload",
        "Telegraf: msg/s",
        "Telegraf: CPU",
        "SENS: msg/s",
        "SENS: CPU (workers, NATS)",
        "SENS / Telegraf",
        "Telegraf with a unique key: msg/s",
        "SENS / this",
    ]
    text = [table(head, lines)]
    settings = list(dict.fromkeys(name for one in results.telegraf.values() for name in one.tried))
    tried = [[name, *(_tried(one, name) for one in results.telegraf.values())] for name in settings]
    text.append("The fastest of these settings were taken, one run each:")
    text.append(table(["Settings", *(f"{PAYLOADS[payload]}: msg/s" for payload in results.telegraf)], tried))
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


def _of_process(name: str) -> Callable[[Rate], float]:
    return lambda one: one.cpu_microseconds.get(name, 0.0)


_RATIOS: Final[MappingProxyType[str, tuple[str, Callable[[Rate], float]]]] = MappingProxyType(
    {
        "messages a second": ("{:,.0f}", lambda one: one.per_second),
        "CPU a message: workers, NATS, database": ("{:.1f} µs", platform_cost),
        **{
            f"CPU a message: {NAMES[name]}": ("{:.1f} µs", _of_process(name))
            for name in ("ingestion", "nats", "telemetry", "postgres")
        },
        "WAL a message": ("{:,.0f} B", lambda one: one.wal_bytes),
        "disk a message": ("{:,.0f} B", lambda one: one.disk_bytes),
    }
)
"""What is compared of two runs: how it is shown, and the figure."""


def ratios(of: Pairs, name: str) -> list[float]:
    """Return SENS' figure divided by the other's, for each pair that has both."""
    _, figure = _RATIOS[name]
    both = ((figure(one), figure(other)) for one, other in zip(of.runs, of.others, strict=True))
    return [one / other for one, other in both if one > 0 and other > 0]


def pairs(results: Results) -> str:
    """Return medians of what was measured in turn, and of the ratios within each pair, with the interval of these."""
    return "\n\n".join(map(_pairs, results.pairs.values()))


def _pairs(of: Pairs) -> str:
    rows = []
    for name, (shown, figure) in _RATIOS.items():
        found = ratios(of, name)
        if not found:
            continue
        low, high = median_interval(found)
        medians = (statistics.median(map(figure, runs)) for runs in (of.runs, of.others))
        rows.append([name, *map(shown.format, medians), f"{statistics.median(found):.2f}", f"{low:.2f} to {high:.2f}"])
    spread = "95 % interval" if len(of.runs) >= LEAST_FOR_INTERVAL else "lowest and highest"
    head = ["", f"SENS {of.ours}", of.other, "ratio, median", spread]
    title = f"{PAYLOADS[of.payload]}, {len(of.runs)} pairs of {of.runs[0].messages:,} messages:"
    return f"{title}\n\n{table(head, rows)}"
