"""Measurements: what is asked for, read series by series and merged by time."""

import heapq
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sens_platform_api.database import Connection, Pool, tenant_transaction
from sens_platform_api.devices.repository import Series, find_device, list_series
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.measurements import repository
from sens_platform_api.measurements.repository import BUCKET_ORIGIN, Aggregate, Order, Row, Span
from sens_platform_api.parameters import canonical_device

MAX_SERIES: Final = 100
"""Series that one answer may be merged of."""

_RESOLUTION = timedelta(microseconds=1)


class Position(NamedTuple):
    """The last row of an answer.

    Attributes:
        time: Its time; of a bucket, its beginning.
        series: Name and kind of its series.
        span: What was asked for, so that "now" stays what it was.
    """

    time: datetime
    series: tuple[str, str]
    span: Span


class Query(NamedTuple):
    """What is asked for.

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


async def read(pool: Pool, owner: KeyOwner, device: str, query: Query) -> AsyncGenerator[Row | str | Position]:
    """Yield the device's canonical name, then its rows, and at last, where the limit ended them, the position to go on from.

    The transaction is open until the generator is closed.

    Raises:
        NotFoundError: The tenant has no such device.
        InvalidRequestError: The aggregates do not fit the metrics, or there are too many series.
    """
    name = canonical_device(device)
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        found = await find_device(connection, name)
        if found is None:
            raise NotFoundError(f"there is no device {name}")
        series = [
            one for one in await list_series(connection, found.id) if not query.metrics or one.name in query.metrics
        ]
        _check(series, query)
        yield name
        sources = [_rows(connection, found.id, one, query) for one in series]
        count = 0
        previous: Row | None = None
        async for row in _merged(sources, descending=query.order == "desc"):
            if count == query.limit and previous is not None:
                yield Position(previous.time, (previous.series.name, previous.series.kind), query.span)
                return
            yield row
            previous = row
            count += 1


def _check(series: list[Series], query: Query) -> None:
    if len(series) > MAX_SERIES:
        raise InvalidRequestError.in_query(
            "metric", f"the device has more than {MAX_SERIES} metrics; name those that you want"
        )
    texts = [one.name for one in series if one.kind == "text"]
    if query.metrics and texts and any(aggregate != "count" for aggregate in query.aggregates):
        raise InvalidRequestError.in_query("aggregate", f"{texts[0]} has texts, which can only be counted")


def _rows(connection: Connection, device_id: int, series: Series, query: Query) -> AsyncIterator[Row]:
    span = remaining(query, (series.name, series.kind))
    limit = query.limit + 1  # one more tells whether there are more
    if query.bucket is None:
        return repository.read_raw(connection, device_id, series, span, order=query.order, limit=limit)
    return repository.read_buckets(
        connection,
        device_id,
        series,
        span,
        bucket=query.bucket,
        aggregates=query.aggregates,
        order=query.order,
        limit=limit,
    )


def remaining(query: Query, series: tuple[str, str]) -> Span:
    """Return the part of the time range in which a series still has rows to give.

    Series that come before the last row's, or are it, have given their row of that time; the others have not.
    """
    if query.after is None:
        return query.span
    width = _RESOLUTION if query.bucket is None else query.bucket
    start, end = query.span
    given = series <= query.after.series
    if query.order == "asc":
        return Span(max(start, query.after.time + (width if given else timedelta(0))), end)
    return Span(start, min(end, query.after.time + (timedelta(0) if given else width)))


async def _merged(sources: list[AsyncIterator[Row]], *, descending: bool) -> AsyncGenerator[Row]:
    """Yield the rows of sources that are sorted by time, sorted by time; of equal times, the earlier source's first."""
    heads: list[tuple[int, int, Row]] = []

    async def advance(index: int) -> None:
        row = await anext(sources[index], None)
        if row is not None:
            microseconds = (row.time - BUCKET_ORIGIN) // _RESOLUTION
            heapq.heappush(heads, (-microseconds if descending else microseconds, index, row))

    for index in range(len(sources)):
        await advance(index)
    while heads:
        _, index, row = heapq.heappop(heads)
        yield row
        await advance(index)
