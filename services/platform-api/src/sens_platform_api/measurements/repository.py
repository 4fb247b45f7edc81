"""A tenant's measurements in the database, a page at a time.

A page of a series follows the primary key (device_id, ts) from where the page before ended (key-set pagination), so that a page costs
as much as its rows, and nothing is kept open between two pages. The functions are in the schema's migrations 0012, 0014, 0018 and 0019.
"""

import contextlib
from array import array
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

from asyncpg import Record

from sens_platform_api.devices.repository import Value, find_device, list_series
from sens_platform_api.measurements.buckets import Buckets, bucket_edges
from sens_platform_api.measurements.columns import Column, Columns, Texts, floats, integers, small_integers
from sens_platform_api.measurements.query import RESOLUTION, Aggregate, QueriedSeries, Source
from sens_platform_api.measurements.spans import Order, Span
from sens_platform_api.postgresql import Connection, QueryKind, TenantDatabase

type PageKind = Literal["raw", "aggregates"]

_FIRST_NUMBER: Final = "SELECT sens.first_bucket($1, $2, $3, $4, $6, timestamptz 'epoch', $5)"
_FIRST_TEXT: Final = "SELECT date_bin($6, ts, timestamptz 'epoch') FROM sens.text_page($1, $2, $3, $4, $5, 1)"


class Row(NamedTuple):
    """One line of an answer: a stored value, or the aggregates of a bucket."""

    time: datetime
    series: QueriedSeries
    values: tuple[Value | None, ...]


class QueriedDevice(NamedTuple):
    """A device of an answer."""

    id: int
    name: str


class ReadingPage(NamedTuple):
    """Some readings of a query.

    Attributes:
        parts: By time.
        complete: Whether the range has no more of them.
    """

    parts: list[Columns]
    complete: bool


class Page(NamedTuple):
    """Some rows of a series.

    Attributes:
        rows: By time.
        rest: The time range of the pages after it, None when there are none.
        value_count: Stored values and rollups that the rows were made of.
        sources: What aggregates were made of.
    """

    rows: list[Row]
    rest: Span | None
    value_count: int
    sources: frozenset[Source] = frozenset()


class TenantMeasurements:
    """The measurements of one tenant."""

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database

    def with_calibration(self, setting: str) -> "TenantMeasurements":
        """Return them by other calibrations than those that hold: ``none``, or those that were known at a time."""
        return TenantMeasurements(self._database.with_calibration(setting))

    async def series(self, devices: Sequence[str]) -> dict[str, list[QueriedSeries]]:
        """Return the series of devices, by name and kind; devices that the tenant does not have are left out."""
        found: dict[str, list[QueriedSeries]] = {}
        async with self._database.transaction() as connection:
            for name in devices:
                if (device := await find_device(connection, name)) is not None:
                    found[name] = [
                        QueriedSeries(device.id, name, *series) for series in await list_series(connection, device.id)
                    ]
        return found

    @contextlib.asynccontextmanager
    async def pages(self, kind: PageKind, *, patient: bool) -> AsyncIterator["TransactionPages"]:
        """Give what reads pages within one transaction.

        Args:
            kind: Pages of stored values, or of aggregates, which have a time limit of their own.
            patient: Whether to wait for the tenant's turn for as long as it takes: an answer that has begun can't be refused any more.
        """
        query_kind = QueryKind.MEASUREMENTS if kind == "raw" else QueryKind.AGGREGATES
        async with self._database.transaction(query_kind, patient=patient) as connection:
            yield TransactionPages(connection)


class TransactionPages:
    """Reads pages of series within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def raw(self, series: QueriedSeries, span: Span, *, order: Order, limit: int) -> Page:
        """Return the first stored values of a series, so many at most."""
        records = await self._connection.fetch(
            f"SELECT ts, value FROM sens.{_kind(series)}_page($1, $2, $3, $4, $5, $6)",  # noqa: S608 - a word of this module
            series.device_id,
            series.id,
            span.start,
            span.end,
            order == "desc",
            limit,
        )
        boolean = series.kind == "boolean"
        rows = [Row(time, series, (bool(value) if boolean else value,)) for time, value in records]
        rest = None
        if len(rows) == limit:
            last = rows[-1].time
            rest = Span(last + RESOLUTION, span.end) if order == "asc" else Span(span.start, last)
        return Page(rows, rest, len(rows))

    async def buckets(
        self,
        series: QueriedSeries,
        span: Span,
        *,
        buckets: Buckets,
        aggregates: Sequence[Aggregate],
        order: Order,
        count: int,
        exact: bool = False,
    ) -> Page:
        """Return the aggregates of a series' first buckets that have values; those of a text are its counts.

        Those of numbers are made of rollups where these answer exactly.

        Args:
            series: The series.
            span: Time range.
            buckets: What to aggregate in.
            aggregates: Of each bucket.
            order: By time.
            count: Buckets to read, from the first one that has values.
            exact: Whether to compute aggregates of values whose sum a float8 can't hold; a sum is None then.

        Raises:
            NumberTooLargeError: `exact` is needed.
        """
        first = await self._connection.fetchval(
            _FIRST_TEXT if series.kind == "text" else _FIRST_NUMBER,
            series.device_id,
            series.id,
            span.start,
            span.end,
            order == "desc",
            buckets.grid(*span),
        )
        if first is None:
            return Page([], None, 0)
        edges = bucket_edges(buckets, buckets.beginning(first), span, count, order)
        if order == "asc":
            window = Span(span.start, min(span.end, edges[-1]))
            rest = Span(edges[-1], span.end) if edges[-1] < span.end else None
        else:
            window = Span(max(span.start, edges[0]), span.end)
            rest = Span(span.start, edges[0]) if span.start < edges[0] else None
        if series.kind == "text":
            records = await self._connection.fetch(
                "SELECT *, count AS rows_read, 'raw' AS source FROM sens.edge_counts($1, $2, $3, $4, $5)",
                series.device_id,
                series.id,
                *window,
                edges,
            )
        else:
            records = await self._connection.fetch(
                "SELECT * FROM sens.edge_aggregates($1, $2, $3, $4, $5, $6, $7)",
                series.device_id,
                series.id,
                *window,
                edges,
                aggregates,
                exact,
            )
        rows = [Row(record["bucket"], series, tuple(record.get(name) for name in aggregates)) for record in records]
        rows.sort(key=lambda row: row.time, reverse=order == "desc")
        value_count = sum(record["rows_read"] for record in records)
        return Page(rows, rest, value_count, frozenset(record["source"] for record in records))

    async def extremes(self, series: QueriedSeries, span: Span, edges: Sequence[datetime]) -> tuple[list[Row], int]:
        """Return a lowest and a highest stored value of each bucket of a series by time, and how many values there are.

        Args:
            series: Of numbers or booleans.
            span: Time range.
            edges: Bucket i is from edge i on and before edge i + 1, as far as it is in the range.
        """
        records = await self._connection.fetch(
            "SELECT * FROM sens.edge_extremes($1, $2, $3, $4, $5)", series.device_id, series.id, *span, edges
        )
        points = {(record[f"{end}_at"], record[end]) for record in records for end in ("lowest", "highest")}
        boolean = series.kind == "boolean"
        rows = [Row(time, series, (bool(value) if boolean else value,)) for time, value in sorted(points)]
        return rows, sum(record["count"] for record in records)

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
        """Return the first readings of devices that have any of the metrics, by time and then by device.

        Args:
            devices: At least one.
            columns: The metrics, at least one.
            spans: The time range of each device.
            order: By time.
            limit: How many at most.
            text_bytes: Bytes of texts at most, and those of one reading more.
        """
        texts = [column.id for column in columns if column.kind == "text"]
        # In the order of metric sets, so that the database can often take the array of a row as it is.
        numbers = sorted(column.id for column in columns if column.kind != "text")
        starts, ends = zip(*spans, strict=True)
        records = await self._connection.fetch(
            "SELECT * FROM sens.reading_columns($1, $2, $3, $4, $5, $6, $7, $8)",
            [device.id for device in devices],
            numbers,
            texts,
            starts,
            ends,
            order == "desc",
            limit,
            text_bytes,
        )
        parts = [_columns(record, texts, numbers, columns) for record in records]
        cut = any(record["cut"] for record in records)
        return ReadingPage(parts, not cut and sum(map(len, parts)) < limit)


def _columns(record: Record, texts: Sequence[int], numbers: Sequence[int], columns: Sequence[Column]) -> Columns:
    times = integers(record["times"])
    if (indexes := record["device_indexes"]) is None:
        of_devices = array("i", bytes(4 * len(times)))
    else:
        [of_devices] = small_integers(indexes)
    of_numbers = dict(zip(numbers, floats(record["numbers"], len(numbers)) if numbers else (), strict=True))
    sizes = small_integers(record["text_bytes"], len(texts), dimensions=2) if texts else ()
    return Columns(
        times,
        of_devices,
        [of_numbers[column.id] for column in columns if column.kind != "text"],
        [Texts(*each) for each in zip(sizes, record["texts"] or (), strict=True)],
    )


def _kind(series: QueriedSeries) -> Literal["text", "number"]:
    return "text" if series.kind == "text" else "number"
