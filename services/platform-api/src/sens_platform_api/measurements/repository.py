"""Measurements in the database, a page at a time; every query runs in a transaction that sees one tenant.

A page of a series follows the primary key (device_id, metric_id, ts) from where the page before ended (key-set pagination), so that a
page costs what it holds, and nothing is kept open between two pages. The functions are in the schema's migration 0009.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from sens_platform_api.database import Connection
from sens_platform_api.devices.repository import Series, Value

type Order = Literal["asc", "desc"]
type Aggregate = Literal["avg", "min", "max", "count"]

BUCKET_ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)
"""Buckets begin at this time plus or minus whole buckets. It is a Monday, so that weeks begin with one."""

_RESOLUTION = timedelta(microseconds=1)


class Span(NamedTuple):
    """A time range; the end does not belong to it."""

    start: datetime
    end: datetime


class Row(NamedTuple):
    """One line of an answer: a stored value, or the aggregates of a bucket."""

    time: datetime
    series: Series
    values: tuple[Value | None, ...]


class Page(NamedTuple):
    """Some rows of a series.

    Attributes:
        rows: By time.
        rest: Where the next page begins and ends, None when there is none.
        seen: How many stored values the rows were made of.
    """

    rows: list[Row]
    rest: Span | None
    seen: int


async def read_raw(
    connection: Connection, device_id: int, series: Series, span: Span, *, order: Order, limit: int
) -> Page:
    """Return the first stored values of a series, so many at most."""
    records = await connection.fetch(
        f"SELECT ts, value FROM sens.{_kind(series)}_page($1, $2, $3, $4, $5, $6)",  # noqa: S608 - a word of this module
        device_id,
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
        rest = Span(last + _RESOLUTION, span.end) if order == "asc" else Span(span.start, last)
    return Page(rows, rest, len(rows))


async def read_buckets(
    connection: Connection,
    device_id: int,
    series: Series,
    span: Span,
    *,
    bucket: timedelta,
    aggregates: Sequence[Aggregate],
    order: Order,
    buckets: int,
    exact: bool = False,
) -> Page:
    """Return the aggregates of a series' first buckets that have values; those of a text are its counts.

    Args:
        connection: Sees the tenant.
        device_id: Whose.
        series: Which.
        span: Time range.
        bucket: Width.
        aggregates: Of each bucket.
        order: By time.
        buckets: How many buckets' time to look at, from the first one that has values.
        exact: Whether to compute averages of values whose sum a float8 can't hold.
    """
    first = await connection.fetchval(
        f"SELECT date_bin($6, ts, $7) FROM sens.{_kind(series)}_page($1, $2, $3, $4, $5, 1)",  # noqa: S608 - a word of this module
        device_id,
        series.id,
        span.start,
        span.end,
        order == "desc",
        bucket,
        BUCKET_ORIGIN,
    )
    if first is None:
        return Page([], None, 0)
    if order == "asc":
        edge = first + buckets * bucket
        window = Span(span.start, min(span.end, edge))
        rest = Span(edge, span.end) if edge < span.end else None
    else:
        edge = first - (buckets - 1) * bucket
        window = Span(max(span.start, edge), span.end)
        rest = Span(span.start, edge) if span.start < edge else None
    arguments = (device_id, series.id, window.start, window.end, bucket, BUCKET_ORIGIN)
    if series.kind == "text":
        records = await connection.fetch("SELECT * FROM sens.text_buckets($1, $2, $3, $4, $5, $6)", *arguments)
    else:
        records = await connection.fetch(
            "SELECT * FROM sens.number_buckets($1, $2, $3, $4, $5, $6, $7)", *arguments, exact
        )
    rows = [Row(record["bucket"], series, tuple(record.get(name) for name in aggregates)) for record in records]
    rows.sort(key=lambda row: row.time, reverse=order == "desc")
    return Page(rows, rest, sum(record["count"] for record in records))


def _kind(series: Series) -> Literal["text", "number"]:
    return "text" if series.kind == "text" else "number"
