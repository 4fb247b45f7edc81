"""The figures beside what was set out to be reached."""

# ruff: noqa: RUF001 - the multiplication sign is meant

import statistics
from collections.abc import Iterator
from typing import Final

from tools.bench import format_tables
from tools.bench.compared import TELEGRAF, ratios
from tools.bench.figures import CHART, LATEST_OF_DECADES, LATEST_OF_FLEET, LATEST_OF_MONTH, Results
from tools.bench.markdown import NAMES, PAYLOADS, table
from tools.bench.medians import cost, cpu, rate

_NUMBERS: Final = "numbers"
_MIN_RATE: Final = 40_000
_TELEGRAF_RATIOS: Final = {"numbers": (2.1, 2.5), "numbers-and-text": (2.0, 2.4)}
_TELEGRAF_COST: Final = (0.55, 0.45)
_FORMER_RATIOS: Final = {
    "CPU a message: telemetry": (0.7, 0.5),
    "CPU a message: PostgreSQL": (0.3, 0.25),
    "WAL a message": (0.4, 0.33),
    "disk a message": (0.4, 0.33),
}
_TWENTY_RATIO: Final = (2.0, 3.0)
_DECADES_RATIO: Final = (1.5, 1.1)
_READ_MILLISECONDS: Final = {CHART: (100, 30), LATEST_OF_FLEET: (1000, 500)}
ARROW: Final = "application/vnd.apache.arrow.stream"
_STREAM_ROWS: Final = {"text/csv": 100_000, ARROW: 1_000_000}
"""Rows a second, which are values in CSV and readings in Arrow."""
_STREAM_MEGABYTES: Final = 150
_CPU_TARGETS: Final = (("ingestion", 9, 7), ("telemetry", 5, 4), ("postgres", 10, 8), ("nats", 2, 1))
_TARGET_LATENCY_RATE: Final = 2000
_LATENCY_TARGETS: Final = (100, 30)
_WORKER_MEGABYTES: Final = 200
_DEVICES_TARGETS: Final = (2, 1.3)


def targets(results: Results) -> str:
    """Compare with what was set out to be reached."""
    rows = [*_target_rows(results), *_comparisons(results), *_read_rows(results), *_format_rows(results)]
    return table(["Figure", "At least", "Aim", "Measured", "Reached"], rows) if rows else ""


def _format_rows(results: Results) -> Iterator[tuple[str, str, str, str, str]]:
    for name, most, measured, unit in format_tables.target_rows(results):
        shown = f"{measured:.2f} {unit}" if unit == "×" else f"{measured:.1f} {unit}"
        yield (name, f"{most:g} {unit}", "", shown, _verdict(measured, most))


def _verdict(value: float, least: float, aim: float | None = None) -> str:
    if aim is not None and value <= aim:
        return "aim"
    return "yes" if value <= least else "**no**"


def _ratio_row(
    name: str, ratio: float, targets: tuple[float, float], *, more: bool = False
) -> tuple[str, str, str, str, str]:
    """Return the row of a ratio, which shall be low, or high."""
    least, aim = targets
    sign = -1 if more else 1
    return (name, f"{least} ×", f"{aim} ×", f"{ratio:.2f} ×", _verdict(sign * ratio, sign * least, sign * aim))


def _comparisons(results: Results) -> Iterator[tuple[str, str, str, str, str]]:
    """Give the rows of ratios: of pairs, where there are some, else of the runs beside each other."""
    against_telegraf = {of.payload: of for of in results.pairs.values() if of.other == TELEGRAF}
    for payload, targets in _TELEGRAF_RATIOS.items():
        telegraf = results.telegraf.get(payload)
        ours = telegraf.beside or results.end_to_end.get(payload) if telegraf else None
        name = f"messages a second against Telegraf, {PAYLOADS[payload]}"
        if (of := against_telegraf.get(payload)) is not None:
            yield _ratio_row(name, statistics.median(ratios(of, "messages a second")), targets, more=True)
            if payload == _NUMBERS:
                costs = ratios(of, "CPU a message: workers, NATS, database")
                name = "CPU of workers, NATS and database against Telegraf's and its database's"
                yield _ratio_row(name, statistics.median(costs), _TELEGRAF_COST)
        elif telegraf and ours:
            yield _ratio_row(name, rate(ours) / rate(telegraf.rounds), targets, more=True)
    for of in results.pairs.values():
        if of.payload == _NUMBERS and not of.other.startswith(TELEGRAF):
            for figure, targets in _FORMER_RATIOS.items():
                if found := ratios(of, figure):
                    yield _ratio_row(f"{figure}, against {of.other}", statistics.median(found), targets)
    five, twenty = (results.end_to_end.get(name) for name in (_NUMBERS, "twenty-numbers"))
    if five and twenty:
        fast, many = (statistics.median(one.values_per_second for one in rounds) for rounds in (five, twenty))
        yield _ratio_row("values a second, 20 numbers a message against 5", many / fast, _TWENTY_RATIO, more=True)


def _read_rows(results: Results) -> Iterator[tuple[str, str, str, str, str]]:
    of = results.reads
    if of is None:
        return
    medians = {one.name: one.milliseconds["50"] for one in of.reads}
    ratio = medians[LATEST_OF_DECADES] / medians[LATEST_OF_MONTH]
    yield _ratio_row(f"{LATEST_OF_DECADES}, against a month", ratio, _DECADES_RATIO)
    for name, (least, aim) in _READ_MILLISECONDS.items():
        shown = f"{name}, {of.devices:,}" if name == LATEST_OF_FLEET else name
        yield (shown, f"{least} ms", f"{aim} ms", f"{medians[name]:,.0f} ms", _verdict(medians[name], least, aim))
    for stream in of.streams:
        name = f"{stream.rows:,} values as {stream.form}"
        if (least_rows := _STREAM_ROWS.get(stream.form)) is not None:
            rows = stream.readings_per_second if stream.form == ARROW else stream.rows_per_second
            what = f"{name}, in readings" if stream.form == ARROW else name
            yield (what, f"{least_rows:,} a second", "", f"{rows:,.0f}", _verdict(-rows, -least_rows))
        used, limit = stream.megabytes, _STREAM_MEGABYTES
        yield (f"{name}: the API's memory", f"{limit} MB", "", f"{used:.0f} MB", _verdict(used, limit))


def _target_rows(results: Results) -> Iterator[tuple[str, str, str, str, str]]:
    rounds = results.end_to_end.get(_NUMBERS)
    if rounds:
        reached = rate(rounds)
        name = "end to end, 5 numbers a message"
        yield (name, f"{_MIN_RATE:,} msg/s", "", f"{reached:,.0f} msg/s", _verdict(-reached, -_MIN_RATE))
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
