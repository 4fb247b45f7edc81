"""Reading one series of an answer, page by page."""

from collections import deque
from datetime import datetime, timedelta
from typing import Final, Protocol

from sens_platform_api.measurements.buckets import Buckets
from sens_platform_api.measurements.filling import Filling
from sens_platform_api.measurements.query import Aggregate, QueriedSeries, Query, Source, remaining
from sens_platform_api.measurements.repository import Page, Row
from sens_platform_api.measurements.spans import Order, Span

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
_IN_ROLLUPS: Final[frozenset[Aggregate]] = frozenset({"avg", "sum", "min", "max", "first", "last", "count"})


class Pages(Protocol):
    """Reads pages of series."""

    async def raw(self, series: QueriedSeries, span: Span, *, order: Order, limit: int) -> Page:
        """Return the first stored values of a series, so many at most."""

    async def buckets(
        self,
        series: QueriedSeries,
        span: Span,
        *,
        buckets: Buckets,
        aggregates: list[Aggregate],
        order: Order,
        count: int,
        exact: bool,
    ) -> Page:
        """Return the aggregates of a series' first buckets that have values."""

    async def extremes(self, series: QueriedSeries, span: Span, edges: list[datetime]) -> tuple[list[Row], int]:
        """Return a lowest and a highest stored value of each bucket of a series by time, and how many values there are."""


class SeriesReader:
    """Reads the rows of one series; those that were read wait to be merged with those of other series.

    Attributes:
        rows: Those that wait.
        exact: Whether sums are computed in a way that no value is too large for.
        sources: What the aggregates that were read so far are made of.
        too_large: Whether an aggregate that was read so far is None because a number can't be as large.
    """

    def __init__(self, series: QueriedSeries, query: Query, series_count: int) -> None:
        self.rows: deque[Row] = deque()
        self._series = series
        self._query = query
        self._rest = _unless_empty(remaining(query, series))
        # Texts may be long; the rows of all series together stay below the same bound.
        most = PAGE_ROWS // (TEXT_COST if series.kind == "text" else 1)
        # One row more than the limit tells whether there are more.
        self._page = min(max(MIN_PAGE_ROWS, most // series_count), query.limit + 1)
        self._buckets = 1
        if query.buckets is not None:
            has_rollups = (
                series.kind != "text" and not query.buckets.typical % _HOUR and _IN_ROLLUPS.issuperset(query.aggregates)
            )
            window = _FIRST_WINDOW_OF_ROLLUPS if has_rollups else _FIRST_WINDOW
            self._buckets = min(self._page, max(1, window // query.buckets.typical))
        self._filling: Filling | None = None
        if query.buckets is not None and query.fill is not None and self._rest is not None:
            self._filling = Filling(
                series, query.buckets, query.aggregates, fill=query.fill, span=self._rest, order=query.order
            )
        self._looks_back = self._filling is not None and query.after is not None
        self.exact = False
        self.sources: set[Source] = set()
        self.too_large = False

    @property
    def complete(self) -> bool:
        """Whether there are no more rows than those that wait."""
        return self._rest is None and (self._filling is None or self._filling.complete)

    @property
    def runs_low(self) -> bool:
        """Whether another page should be read when one is read anyway."""
        return not self.complete and len(self.rows) * 2 < self._page

    async def fill(self, pages: Pages) -> None:
        """Read pages until there is a row or no more of them."""
        while not self.complete:
            if self._filling is not None and (rows := self._filling.take(self._page)):
                self.rows.extend(rows)
                return
            if self._rest is None:
                return
            await self._look_back(pages)
            page = await self._read(pages, self._rest)
            self._rest = _unless_empty(page.rest)
            self.sources |= page.sources
            self.too_large |= self._series.kind != "text" and any(None in row.values for row in page.rows)
            if self._filling is not None:
                self._filling.add(page.rows, last=self._rest is None)
            elif page.rows:
                self.rows.extend(page.rows)
                return

    async def _look_back(self, pages: Pages) -> None:
        """Read the row before the first one, of which the page of the answer before does not tell."""
        query, rest = self._query, self._rest
        if not self._looks_back or self._filling is None or query.buckets is None or rest is None:
            return
        ascending = query.order == "asc"
        page = await pages.buckets(
            self._series,
            Span(query.span.start, rest.start) if ascending else Span(rest.end, query.span.end),
            buckets=query.buckets,
            aggregates=query.aggregates,
            order="desc" if ascending else "asc",
            count=1,
            exact=self.exact,
        )
        self._filling.before = page.rows[0] if page.rows else None
        self._looks_back = False

    async def _read(self, pages: Pages, span: Span) -> Page:
        query = self._query
        if query.buckets is None:
            return await pages.raw(self._series, span, order=query.order, limit=self._page)
        page = await pages.buckets(
            self._series,
            span,
            buckets=query.buckets,
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
