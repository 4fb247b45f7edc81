"""Reading one series of an answer, page by page."""

from collections import deque
from datetime import timedelta
from typing import Final, Protocol

from sens_platform_api.devices.repository import Series
from sens_platform_api.measurements.query import Aggregate, Order, Query, Source, Span, remaining
from sens_platform_api.measurements.repository import Page, Row

PAGE_ROWS: Final = 2000
"""Rows that an answer reads at once, of all its series together, about."""
MIN_PAGE_ROWS: Final = 20
TEXT_COST: Final = 10
"""A page has so many times fewer texts than numbers; a text may have 4,096 characters."""
VALUES_PER_PAGE: Final = 100_000
"""Stored values, or rollups, that a page of aggregates is made of, about: some 50 ms of the database."""

_FIRST_WINDOW = timedelta(days=1)
_FIRST_WINDOW_OF_ROLLUPS = timedelta(days=16)
_HOUR = timedelta(hours=1)
_GROWTH = 8


class Pages(Protocol):
    """Reads pages of series."""

    async def raw(self, device_id: int, series: Series, span: Span, *, order: Order, limit: int) -> Page:
        """Return the first stored values of a series, so many at most."""

    async def buckets(
        self,
        device_id: int,
        series: Series,
        span: Span,
        *,
        bucket: timedelta,
        aggregates: list[Aggregate],
        order: Order,
        count: int,
        exact: bool,
    ) -> Page:
        """Return the aggregates of a series' first buckets that have values."""


class SeriesReader:
    """Reads the rows of one series; those that were read wait to be merged with those of other series.

    Attributes:
        rows: Those that wait.
        exact: Whether averages are computed in a way that no value is too large for.
        sources: What the aggregates that were read so far are made of.
    """

    def __init__(self, device_id: int, series: Series, query: Query, series_count: int) -> None:
        self.rows: deque[Row] = deque()
        self._device_id = device_id
        self._series = series
        self._query = query
        self._rest = _unless_empty(remaining(query, (series.name, series.kind)))
        # Texts may be long; the rows of all series together stay below the same bound.
        most = PAGE_ROWS // (TEXT_COST if series.kind == "text" else 1)
        # One row more than the limit tells whether there are more.
        self._page = min(max(MIN_PAGE_ROWS, most // series_count), query.limit + 1)
        self._buckets = 1
        if query.bucket is not None:
            has_rollups = series.kind != "text" and not query.bucket % _HOUR
            window = _FIRST_WINDOW_OF_ROLLUPS if has_rollups else _FIRST_WINDOW
            self._buckets = min(self._page, max(1, window // query.bucket))
        self.exact = False
        self.sources: set[Source] = set()

    @property
    def complete(self) -> bool:
        """Whether there are no more rows than those that wait."""
        return self._rest is None

    @property
    def runs_low(self) -> bool:
        """Whether another page should be read when one is read anyway."""
        return not self.complete and len(self.rows) * 2 < self._page

    async def fill(self, pages: Pages) -> None:
        """Read pages until there is a row or no more of them."""
        while self._rest is not None:
            page = await self._read(pages, self._rest)
            self._rest = _unless_empty(page.rest)
            self.sources |= page.sources
            self.rows.extend(page.rows)
            if page.rows:
                return

    async def _read(self, pages: Pages, span: Span) -> Page:
        query = self._query
        if query.bucket is None:
            return await pages.raw(self._device_id, self._series, span, order=query.order, limit=self._page)
        page = await pages.buckets(
            self._device_id,
            self._series,
            span,
            bucket=query.bucket,
            aggregates=query.aggregates,
            order=query.order,
            count=self._buckets,
            exact=self.exact,
        )
        # The next page has so many buckets that it is made of about so many values: it then costs the same, whatever the buckets' width.
        wanted = self._buckets * VALUES_PER_PAGE // max(1, page.value_count)
        self._buckets = max(1, min(self._page, wanted, self._buckets * _GROWTH))
        return page


def _unless_empty(span: Span | None) -> Span | None:
    return None if span is None or span.is_empty else span
