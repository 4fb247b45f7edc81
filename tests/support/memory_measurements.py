"""Measurements in memory, with aggregates by their definitions, as the API's port expects them."""

import math
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Final

from sens_platform_api.devices.repository import Value
from sens_platform_api.measurements.buckets import Buckets, bucket_edges
from sens_platform_api.measurements.columns import Column, Columns, Texts
from sens_platform_api.measurements.query import RESOLUTION, Aggregate, QueriedSeries
from sens_platform_api.measurements.repository import Page, PageKind, QueriedDevice, ReadingPage, Row
from sens_platform_api.measurements.spans import Order, Span
from sens_platform_api.parameters import EPOCH


class MemoryMeasurements:
    """The measurements of one tenant, as `measurements.service.Measurements`."""

    def __init__(
        self,
        series: Callable[[], Sequence[QueriedSeries]],
        devices: Container[str],
        values: Mapping[tuple[int, int, datetime], Value],
    ) -> None:
        self._series = series
        self._devices = devices
        self._values = values

    def with_calibration(self, setting: str) -> "MemoryMeasurements":  # noqa: ARG002 - nothing is calibrated here
        return self

    async def series(self, devices: Sequence[str]) -> dict[str, list[QueriedSeries]]:
        return {
            name: [series for series in self._series() if series.device == name]
            for name in devices
            if name in self._devices
        }

    @asynccontextmanager
    async def pages(self, kind: PageKind, *, patient: bool) -> AsyncIterator["MemoryPages"]:  # noqa: ARG002 - nobody waits
        yield MemoryPages(self._values)


class MemoryPages:
    """Pages of series, as `measurements.series.Pages`."""

    def __init__(self, values: Mapping[tuple[int, int, datetime], Value]) -> None:
        self._values = values

    def _read(self, series: QueriedSeries, span: Span, order: Order) -> list[tuple[datetime, Value]]:
        found = [
            (key[2], value)
            for key, value in self._values.items()
            if key[:2] == (series.device_id, series.id) and span.start <= key[2] < span.end
        ]
        return sorted(found, reverse=order == "desc")

    async def raw(self, series: QueriedSeries, span: Span, *, order: Order, limit: int) -> Page:
        found = self._read(series, span, order)
        rows = [Row(time, series, (value,)) for time, value in found[:limit]]
        if len(rows) < limit:
            return Page(rows, None, len(rows))
        last = rows[-1].time
        return Page(rows, Span(last + RESOLUTION, span.end) if order == "asc" else Span(span.start, last), len(rows))

    async def extremes(self, series: QueriedSeries, span: Span, edges: Sequence[datetime]) -> tuple[list[Row], int]:
        points: set[tuple[datetime, Value]] = set()
        count = 0
        for start, end in pairwise(edges):
            found = self._read(series, Span(max(start, span.start), min(end, span.end)), "asc")
            count += len(found)
            if found:
                points |= {min(found, key=lambda each: each[1]), max(found, key=lambda each: each[1])}
        return [Row(time, series, (value,)) for time, value in sorted(points)], count

    async def readings(
        self,
        devices: Sequence[QueriedDevice],
        columns: Sequence[Column],
        spans: Sequence[Span],
        *,
        order: Order,
        limit: int,
        text_bytes: int,
    ) -> ReadingPage:
        rows: dict[tuple[datetime, int], dict[int, Value]] = defaultdict(dict)
        for (device_id, metric_id, time), value in self._values.items():
            for index, (device, span) in enumerate(zip(devices, spans, strict=True)):
                if (
                    device.id == device_id
                    and span.start <= time < span.end
                    and metric_id in {one.id for one in columns}
                ):
                    rows[time, index][metric_id] = value
        sign = -1 if order == "desc" else 1
        found = sorted(rows, key=lambda row: (sign * (row[0] - EPOCH), row[1]))
        kept, size = [], 0
        for row in found[:limit]:
            if size >= text_bytes:
                break
            kept.append(row)
            size += sum(len(value.encode()) for value in rows[row].values() if isinstance(value, str))
        parts = [_columns(kept, rows, columns)] if kept else []
        return ReadingPage(parts, len(kept) == len(found) < limit)

    async def buckets(
        self,
        series: QueriedSeries,
        span: Span,
        *,
        buckets: Buckets,
        aggregates: Sequence[Aggregate],
        order: Order,
        count: int,
        exact: bool = False,  # noqa: ARG002 - sums here are always exact
    ) -> Page:
        found = self._read(series, span, order)
        if not found:
            return Page([], None, 0)
        edges = bucket_edges(buckets, buckets.beginning(found[0][0]), span, count, order)
        rows = []
        for start, end in pairwise(edges):
            values = sorted((time, value) for time, value in found if start <= time < end)
            if values:
                all_of_them = aggregates_of(values, min(end, span.end))
                if series.kind == "text":
                    all_of_them = {"count": len(values)}
                rows.append(Row(start, series, tuple(all_of_them.get(name) for name in aggregates)))
        rest = Span(edges[-1], span.end) if order == "asc" else Span(span.start, edges[0])
        if order == "desc":
            rows.reverse()
        return Page(rows, None if rest.is_empty else rest, len(found), frozenset({"raw"}))


def _columns(
    keys: Sequence[tuple[datetime, int]],
    rows: Mapping[tuple[datetime, int], Mapping[int, Value]],
    columns: Sequence[Column],
) -> Columns:
    """Return readings as columns."""
    numbers, texts = [], []
    for column in columns:
        values = [rows[key].get(column.id) for key in keys]
        if column.kind == "text":
            sizes = [-1 if value is None else len(str(value).encode()) for value in values]
            data = "".join(str(value) for value in values if value is not None).encode()
            texts.append(Texts(array("i", sizes), data))
        else:
            numbers.append(array("d", [math.nan if value is None else float(value) for value in values]))
    times = array("q", [(time - EPOCH) // RESOLUTION for time, _ in keys])
    return Columns(times, array("i", [index for _, index in keys]), numbers, texts)


def aggregates_of(values: Sequence[tuple[datetime, Value]], end: datetime) -> dict[Aggregate, float | None]:
    """Return the aggregates of the values of a bucket, which are sorted by time; the bucket, or the range in it, has this end."""
    numbers = [0.0 if isinstance(value, str) else float(value) for _, value in values]
    times = [time for time, _ in values]
    held = [(later - time).total_seconds() for time, later in pairwise([*times, end])]
    steps = [value - before if value >= before else value for before, value in pairwise(numbers)]
    return {
        "count": len(numbers),
        "sum": _sum(numbers),
        "avg": _mean(numbers, [1.0] * len(numbers)),
        "min": min(numbers),
        "max": max(numbers),
        "first": numbers[0],
        "last": numbers[-1],
        "difference": _sum(steps),
        "time_weighted_avg": _mean(numbers, held),
        **{name: _percentile(sorted(numbers), share) for name, share in _PERCENTILES.items()},
    }


_PERCENTILES: Final[dict[Aggregate, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _sum(numbers: Sequence[float]) -> float | None:
    try:
        total = math.fsum(numbers)
    except OverflowError:
        return None
    return total if math.isfinite(total) else None


def _mean(numbers: Sequence[float], weights: Sequence[float]) -> float:
    weight = math.fsum(weights)
    return math.fsum(number * (each / weight) for number, each in zip(numbers, weights, strict=True))


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Interpolate between the two nearest, as percentile_cont of SQL:2003 does."""
    row = share * (len(ordered) - 1)
    low, high = ordered[math.floor(row)], ordered[math.ceil(row)]
    found = low + (row - math.floor(row)) * (high - low)
    return found if math.isfinite(found) else None
