"""The figures of formats, and of tenants beside each other, as tables and beside what was set out to be reached."""

# ruff: noqa: RUF001 - the multiplication sign is meant

import statistics
from collections.abc import Iterator
from typing import Final

from tools.bench.figures import Pairs, Results
from tools.bench.formats import FORMATS, NATIVE
from tools.bench.markdown import table
from tools.bench.medians import LEAST_FOR_INTERVAL, median_interval

_TELEMETRY: Final = "telemetry"
_WITH_SOURCES_RATIO: Final = 1.05
_ENDLESS_RATIO: Final = 1.5


def formats(results: Results) -> str:
    """Return what messages of formats cost: decoding and rows alone, then the telemetry worker on the path."""
    return "\n\n".join(text for text in (_decoding(results), _paths(results)) if text)


def _decoding(results: Results) -> str:
    rows = [
        [
            FORMATS[name].title,
            f"{len(rounds)} × {rounds[0].messages:,}",
            f"{statistics.median(one.microseconds for one in rounds):.1f} µs",
            f"{statistics.median(one.native_microseconds for one in rounds):.1f} µs",
            f"{statistics.median(one.microseconds / one.native_microseconds for one in rounds):.2f} ×",
        ]
        for name, rounds in results.decoding.items()
    ]
    head = ["Decode and rows", "rounds × messages", "CPU a message", "SENS' own beside it", "ratio"]
    return table(head, rows) if rows else ""


def telemetry_ratios(of: Pairs) -> list[float]:
    """Return the telemetry worker's CPU time a message divided by the other's, for each pair."""
    both = zip(of.runs, of.others, strict=True)
    return [one.cpu_microseconds[_TELEMETRY] / other.cpu_microseconds[_TELEMETRY] for one, other in both]


def _paths(results: Results) -> str:
    rows = []
    for name, of in results.formats.items():
        ratios = telemetry_ratios(of)
        low, high = median_interval(ratios)
        costs = (statistics.median(one.cpu_microseconds[_TELEMETRY] for one in runs) for runs in (of.runs, of.others))
        what = "SENS' own, sources in place" if name.startswith(NATIVE) else of.ours
        rows.append(
            [
                what,
                of.other,
                f"{len(ratios)} × {of.runs[0].messages:,}",
                *(f"{cost:.1f} µs" for cost in costs),
                f"{statistics.median(ratios):.2f} ×",
                f"{low:.2f} to {high:.2f}",
            ]
        )
    if not rows:
        return ""
    enough = all(len(of.runs) >= LEAST_FOR_INTERVAL for of in results.formats.values())
    spread = "95 % interval" if enough else "lowest and highest"
    head = [
        "Telemetry worker on the path",
        "against",
        "pairs × messages",
        "CPU a message",
        "the other's",
        "ratio",
        spread,
    ]
    return table(head, rows)


def fairness(results: Results) -> str:
    """Return how long one tenant's messages took beside the other one's codecs."""
    of = results.fairness
    if of is None:
        return ""
    rows = [
        [
            codec,
            *(f"{statistics.median(each[at] for each in milliseconds):.1f} ms" for at in ("50", "95", "99", "100")),
        ]
        for codec, milliseconds in (
            ("ends", [one.milliseconds for one in of.runs]),
            ("never ends", [one.endless_milliseconds for one in of.runs]),
        )
    ]
    title = (
        f"Medians of {len(of.runs)} runs of {of.seconds:.0f} s each: {of.rate:,.0f} messages a second of the one, {of.other_rate:,.0f} of the"
        " other tenant."
    )
    return f"{title}\n\n{table(['The other tenant’s codec', 'p50', 'p95', 'p99', 'max'], rows)}"


def target_rows(results: Results) -> Iterator[tuple[str, float, float, str]]:
    """Give each figure with a target: what it is, what it may be at most, what it is, and its unit."""
    for name, rounds in results.decoding.items():
        measured = statistics.median(one.microseconds for one in rounds)
        yield f"decode and rows: {FORMATS[name].title}", FORMATS[name].most_microseconds, measured, "µs"
    for name, of in results.formats.items():
        if name.startswith(NATIVE):
            ratio = statistics.median(telemetry_ratios(of))
            yield f"telemetry, SENS' own with sources in place, against {of.other}", _WITH_SOURCES_RATIO, ratio, "×"
    if (fair := results.fairness) is not None:
        slowed = statistics.median(one.endless_milliseconds["99"] / one.milliseconds["99"] for one in fair.runs)
        yield "p99 beside another tenant's endless codec", _ENDLESS_RATIO, slowed, "×"
