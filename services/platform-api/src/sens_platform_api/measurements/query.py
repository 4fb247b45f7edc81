"""Queries for measurements: time ranges, aggregates, and the position after which a query goes on."""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

type Order = Literal["asc", "desc"]
type Aggregate = Literal["avg", "min", "max", "count"]

type Source = Literal["1d", "1h", "raw"]
"""What aggregates are made of: rollups of days or of hours, or the stored values."""

RESOLUTION = timedelta(microseconds=1)


class Span(NamedTuple):
    """A time range; the end does not belong to it."""

    start: datetime
    end: datetime

    @property
    def is_empty(self) -> bool:
        """Whether no time is in it."""
        return self.start >= self.end


class Position(NamedTuple):
    """The last row of an answer.

    Attributes:
        time: Its time; of a bucket, its beginning.
        series: Name and kind of its series.
        span: The time range of the query, so that "now" stays what it was.
    """

    time: datetime
    series: tuple[str, str]
    span: Span


class Query(NamedTuple):
    """A query for measurements of a device.

    Attributes:
        metrics: Names; none means all.
        span: Time range.
        bucket: Width of the buckets, None for stored values.
        aggregates: Of each bucket.
        order: By time; equal times are by name and kind of the series.
        limit: Rows.
        after: Go on after this one.
    """

    metrics: list[str]
    span: Span
    bucket: timedelta | None
    aggregates: list[Aggregate]
    order: Order
    limit: int
    after: Position | None


def remaining(query: Query, series: tuple[str, str]) -> Span:
    """Return the part of the time range in which a series still has rows to give.

    Series that come before the last row's, or are it, have given their row of that time; the others have not.
    """
    if query.after is None:
        return query.span
    width = RESOLUTION if query.bucket is None else query.bucket
    start, end = query.span
    given = series <= query.after.series
    if query.order == "asc":
        return Span(max(start, query.after.time + (width if given else timedelta(0))), end)
    return Span(start, min(end, query.after.time + (timedelta(0) if given else width)))
