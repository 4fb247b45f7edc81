"""Measurements in the database; every query runs in a transaction that sees one tenant.

Each series is read by a cursor of its own in the order of the primary key (device_id, metric_id, ts), a few hundred rows at a time,
and the cursors are merged by time: neither the server nor this process ever holds or sorts the whole answer.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from sens_platform_api.database import Connection
from sens_platform_api.devices.repository import Series, Value

type Order = Literal["asc", "desc"]
type Aggregate = Literal["avg", "min", "max", "count"]

CHUNK_ROWS: Final = 500

BUCKET_ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)
"""Buckets begin at this time plus or minus whole buckets. It is a Monday, so that weeks begin with one."""


class Span(NamedTuple):
    """A time range; the end does not belong to it."""

    start: datetime
    end: datetime


class Row(NamedTuple):
    """One line of an answer: a stored value, or the aggregates of a bucket."""

    time: datetime
    series: Series
    values: tuple[Value | None, ...]


async def read_raw(
    connection: Connection, device_id: int, series: Series, span: Span, *, order: Order, limit: int
) -> AsyncIterator[Row]:
    """Yield the stored values of a series."""
    cursor = await connection.cursor(
        f"""
        SELECT ts, value FROM sens.{_table(series)}
        WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4
        ORDER BY ts {order} LIMIT $5
        """,  # noqa: S608 - the table and the order are words of this module
        device_id,
        series.id,
        span.start,
        span.end,
        limit,
    )
    boolean = series.kind == "boolean"
    while rows := await cursor.fetch(CHUNK_ROWS):
        for time, value in rows:
            yield Row(time, series, (bool(value) if boolean else value,))


_EXPRESSIONS: Final[dict[Aggregate, str]] = {
    "avg": "avg(value)",
    "min": "min(value)",
    "max": "max(value)",
    "count": "count(*)",
}


async def read_buckets(
    connection: Connection,
    device_id: int,
    series: Series,
    span: Span,
    *,
    bucket: timedelta,
    aggregates: Sequence[Aggregate],
    order: Order,
    limit: int,
) -> AsyncIterator[Row]:
    """Yield the aggregates of a series' buckets that have values; those of a text are its counts."""
    columns = ", ".join(
        _EXPRESSIONS[aggregate] if series.kind != "text" or aggregate == "count" else "NULL" for aggregate in aggregates
    )
    cursor = await connection.cursor(
        f"""
        SELECT date_bin($5, ts, $6) AS bucket, {columns} FROM sens.{_table(series)}
        WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4
        GROUP BY bucket ORDER BY bucket {order} LIMIT $7
        """,  # noqa: S608 - columns, table and order are words of this module
        device_id,
        series.id,
        span.start,
        span.end,
        bucket,
        BUCKET_ORIGIN,
        limit,
    )
    while rows := await cursor.fetch(CHUNK_ROWS):
        for time, *values in rows:
            yield Row(time, series, tuple(values))


def _table(series: Series) -> str:
    return "tenant_text_measurements" if series.kind == "text" else "tenant_measurements"
