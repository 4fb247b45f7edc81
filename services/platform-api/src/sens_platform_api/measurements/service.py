"""Measurements: what is asked for, read series by series and merged by time."""

import heapq
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple, Protocol

from sens_platform_api.database import Connection, NumberTooLargeError, Pool, QueryKind, tenant_transaction
from sens_platform_api.devices.repository import Series, find_device, list_series
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.measurements import repository
from sens_platform_api.measurements.repository import BUCKET_ORIGIN, Aggregate, Order, Page, Row, Span
from sens_platform_api.parameters import canonical_device

MAX_SERIES: Final = 100
"""Series that one answer may be merged of."""
MAX_NAMES_TOLD: Final = 20
"""Metrics that an error names."""
PAGE_ROWS: Final = 2000
"""Rows that an answer reads at once, of all its series together, about."""
MIN_PAGE_ROWS: Final = 20
TEXTS_COST: Final = 10
"""A page has so many times fewer texts than numbers; a text may have 4,096 characters."""
VALUES_PER_PAGE: Final = 100_000
"""Stored values that a page of aggregates is made of, about: some 50 ms of the database."""

_FIRST_WINDOW = timedelta(days=1)
_GROWTH = 8

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

    Rows are read in pages, and between two pages nothing is held: whoever reads slowly takes no connection from others. Each page is a
    snapshot of its own, so values that are stored meanwhile may or may not be in the answer.

    Raises:
        NotFoundError: The tenant has no such device, or the device no such metric.
        InvalidRequestError: The aggregates do not fit the metrics, or there are too many series.
        TenantBusyError: The tenant's other requests use all of its connections.
    """
    name = canonical_device(device)
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        found = await find_device(connection, name)
        if found is None:
            raise NotFoundError(f"there is no device {name}")
        series = chosen(name, await list_series(connection, found.id), query)
    sources = [Source(found.id, one, query, len(series)) for one in series]
    await _fill(pool, owner, sources, query, patient=False)
    yield name
    count = 0
    previous: Row | None = None
    async for row in merged(sources, partial(_fill, pool, owner, query=query), descending=query.order == "desc"):
        if count == query.limit and previous is not None:
            yield Position(previous.time, (previous.series.name, previous.series.kind), query.span)
            return
        yield row
        previous = row
        count += 1


def chosen(device: str, series: list[Series], query: Query) -> list[Series]:
    """Return the series that are asked for.

    Raises:
        NotFoundError: The device has no such metric.
        InvalidRequestError: There are too many series, or a text should be averaged.
    """
    names = {one.name for one in series}
    unknown = [metric for metric in query.metrics if metric not in names]
    if unknown:
        known = ", ".join(sorted(names)[:MAX_NAMES_TOLD]) + (", …" if len(names) > MAX_NAMES_TOLD else "")
        raise NotFoundError(
            f"the device {device} has no metric {', '.join(unknown[:MAX_NAMES_TOLD])}; it has {known or 'none'}"
        )
    wanted = [one for one in series if not query.metrics or one.name in query.metrics]
    if query.aggregates and "count" not in query.aggregates:
        # Texts can only be counted. A metric that also has numbers is averaged without its texts.
        calculable = {one.name for one in wanted if one.kind != "text"}
        texts = [metric for metric in query.metrics if metric not in calculable]
        if texts:
            raise InvalidRequestError.in_query(
                "aggregate", f"{texts[0]} has texts, which can only be counted: aggregate=count"
            )
        wanted = [one for one in wanted if one.kind != "text"]
    if len(wanted) > MAX_SERIES:
        raise InvalidRequestError.in_query(
            "metric", f"the device has more than {MAX_SERIES} metrics; name those that you want"
        )
    return wanted


class Source:
    """What is read of one series: the rows that wait to be merged, and where the next page begins.

    Attributes:
        rows: Those that wait.
        exact: Whether averages are computed in a way that no value is too large for.
    """

    def __init__(self, device_id: int, series: Series, query: Query, share: int) -> None:
        self.rows: deque[Row] = deque()
        self._device_id = device_id
        self._series = series
        self._query = query
        self._rest = _unless_empty(remaining(query, (series.name, series.kind)))
        # Texts may be long; the rows of all series together stay below the same bound.
        most = PAGE_ROWS // (TEXTS_COST if series.kind == "text" else 1)
        self._page = min(max(MIN_PAGE_ROWS, most // share), query.limit + 1)  # one more tells whether there are more
        self._buckets = 1
        if query.bucket is not None:
            self._buckets = min(self._page, max(1, _FIRST_WINDOW // query.bucket))
        self.exact = False

    @property
    def complete(self) -> bool:
        """Whether there are no more than those that wait."""
        return self._rest is None

    @property
    def runs_low(self) -> bool:
        """Whether another page should be read when one is read anyway."""
        return not self.complete and len(self.rows) * 2 < self._page

    async def fill(self, connection: Connection) -> None:
        """Read pages until there is a row or no more of them."""
        while self._rest is not None:
            page = await self._read(connection, self._rest)
            self._rest = _unless_empty(page.rest)
            self.rows.extend(page.rows)
            if page.rows:
                return

    async def _read(self, connection: Connection, span: Span) -> Page:
        query = self._query
        if query.bucket is None:
            return await repository.read_raw(
                connection, self._device_id, self._series, span, order=query.order, limit=self._page
            )
        page = await repository.read_buckets(
            connection,
            self._device_id,
            self._series,
            span,
            bucket=query.bucket,
            aggregates=query.aggregates,
            order=query.order,
            buckets=self._buckets,
            exact=self.exact,
        )
        # As many buckets next as about so many values are in: a page then costs about the same, whatever the buckets' width.
        wanted = self._buckets * VALUES_PER_PAGE // max(1, page.seen)
        self._buckets = max(1, min(self._page, wanted, self._buckets * _GROWTH))
        return page


async def _fill(pool: Pool, owner: KeyOwner, sources: Sequence[Source], query: Query, *, patient: bool = True) -> None:
    """Read a page of each source that runs low, in one transaction."""
    kind = QueryKind.MEASUREMENTS if query.bucket is None else QueryKind.AGGREGATES
    low = [source for source in sources if source.runs_low]
    while low:
        try:
            async with tenant_transaction(pool, owner.tenant_id, kind, patient=patient) as connection:
                while low:
                    await low[-1].fill(connection)
                    low.pop()
        except NumberTooLargeError:
            if low[-1].exact:
                raise
            low[-1].exact = True


def _unless_empty(span: Span | None) -> Span | None:
    return span if span is not None and span.start < span.end else None


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


class Sorted(Protocol):
    """Rows that are sorted by time: those that wait to be merged, and whether more can be read."""

    rows: deque[Row]

    @property
    def complete(self) -> bool:
        """Whether there are no more than those that wait."""


async def merged[S: Sorted](
    sources: Sequence[S], fill: Callable[[Sequence[S]], Awaitable[None]], *, descending: bool
) -> AsyncGenerator[Row]:
    """Yield the rows of sources that are sorted by time, sorted by time; of equal times, the earlier source's first.

    Args:
        sources: Filled.
        fill: Fills those that run low.
        descending: Whether the newest come first.
    """
    heads: list[tuple[int, int, Row]] = []

    def push(index: int) -> None:
        if sources[index].rows:
            row = sources[index].rows.popleft()
            microseconds = (row.time - BUCKET_ORIGIN) // _RESOLUTION
            heapq.heappush(heads, (-microseconds if descending else microseconds, index, row))

    for index in range(len(sources)):
        push(index)
    while heads:
        _, index, row = heapq.heappop(heads)
        yield row
        if not sources[index].rows and not sources[index].complete:
            await fill(sources)
        push(index)
