"""Queries for measurements: time ranges, aggregates, and the position after which a query goes on."""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sens_platform_api.devices.repository import Kind
from sens_platform_api.measurements.buckets import Buckets
from sens_platform_api.measurements.spans import Order, Span

type Aggregate = Literal[
    "avg", "sum", "min", "max", "first", "last", "count", "difference", "p50", "p95", "p99", "time_weighted_avg"
]

type Fill = Literal["null", "previous", "linear"]
"""What buckets without values have: nothing, what the one before has, or what is on the line between their neighbours."""

type Source = Literal["1d", "1h", "raw"]
"""What aggregates are made of: rollups of days or of hours, or the stored values."""

RESOLUTION = timedelta(microseconds=1)


class QueriedSeries(NamedTuple):
    """A series of an answer, with the device that it is of.

    Attributes:
        unit: UCUM code, None where none is known.
    """

    device_id: int
    device: str
    id: int
    name: str
    kind: Kind
    unit: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """By which rows of equal time are sorted."""
        return self.device, self.name, self.kind


class Position(NamedTuple):
    """The last row of an answer.

    Attributes:
        time: Its time; of a bucket, its beginning.
        series: Device, name and kind of its series.
        span: The time range of the query, so that "now" stays what it was.
    """

    time: datetime
    series: tuple[str, str, str]
    span: Span


class Query(NamedTuple):
    """A query for measurements of devices.

    Attributes:
        metrics: Names; none means all.
        span: Time range.
        buckets: None for stored values.
        aggregates: Of each bucket.
        fill: Of buckets without values; None leaves them out.
        order: By time; equal times are by device, name and kind of the series.
        limit: Rows.
        after: Go on after this one.
        shape_points: How many stored values of each series to choose, so that they keep the line's shape; None for all.
    """

    metrics: list[str]
    span: Span
    buckets: Buckets | None
    aggregates: list[Aggregate]
    fill: Fill | None
    order: Order
    limit: int
    after: Position | None
    shape_points: int | None = None


def remaining(query: Query, series: QueriedSeries) -> Span:
    """Return the part of the time range in which a series still has rows to give.

    Series that come before the last row's, or are it, have given their row of that time; the others have not.
    """
    if query.after is None:
        return query.span
    start, end = query.span
    time = query.after.time
    following = time + RESOLUTION if query.buckets is None else query.buckets.after(time)
    given = series.key <= query.after.series
    if query.order == "asc":
        return Span(max(start, following if given else time), end)
    return Span(start, min(end, time if given else following))
