"""Reading those stored values of a series that keep the shape of its line."""

from collections import deque
from datetime import timedelta
from itertools import pairwise
from typing import Final

from sens_platform_api.measurements.points import buckets_for
from sens_platform_api.measurements.query import RESOLUTION, QueriedSeries, Query, Source, remaining
from sens_platform_api.measurements.repository import Row
from sens_platform_api.measurements.series import VALUES_PER_PAGE, Pages
from sens_platform_api.measurements.spans import Span
from sens_platform_api.measurements.triangles import largest_triangles
from sens_platform_api.parameters import EPOCH

MOST_SHAPE_POINTS: Final = 5000
MOST_SHAPE_VALUES: Final = 50_000
"""Values of an answer, of all its series together: they are chosen before the first is sent."""
CANDIDATES_PER_POINT: Final = 4
"""Of a longer series, so many values for each point are looked at: the lowest and the highest of twice as many buckets as there are points
(MinMaxLTTB: J. Van Der Donckt et al. 2023, https://arxiv.org/abs/2305.00332)."""

_FIRST_BUCKETS: Final = 16
_GROWTH: Final = 8


class ShapeReader:
    """Chooses values of one series; they wait to be merged with those of other series.

    Attributes:
        rows: Those that wait.
        complete: Whether there are no more than those.
        exact: As of other readers of series; it changes nothing.
        sources: The same; none.
        too_large: The same; never.
    """

    def __init__(self, series: QueriedSeries, query: Query) -> None:
        self.rows: deque[Row] = deque()
        self.complete = False
        self.exact = False
        self.sources: set[Source] = set()
        self.too_large = False
        self._series = series
        self._query = query

    @property
    def runs_low(self) -> bool:
        """Whether the values are still to be chosen."""
        return not self.complete

    async def fill(self, pages: Pages) -> None:
        """Choose all values."""
        count = self._query.shape_points or 0
        found = await self._candidates(pages, count)
        times = [(row.time - EPOCH) / timedelta(seconds=1) for row in found]
        chosen = [
            found[index] for index in largest_triangles(times, [float(row.values[0] or 0) for row in found], count)
        ]
        start, end = remaining(self._query, self._series)
        rows = [row for row in chosen if start <= row.time < end]
        self.rows.extend(rows if self._query.order == "asc" else reversed(rows))
        self.complete = True

    async def _candidates(self, pages: Pages, count: int) -> list[Row]:
        """Return all values by time if they are few, else the first, the last, and the lowest and highest of each bucket."""
        span, most = self._query.span, count * CANDIDATES_PER_POINT
        page = await pages.raw(self._series, span, order="asc", limit=most + 1)
        if page.rest is None:
            return page.rows
        last = await pages.raw(self._series, span, order="desc", limit=1)
        if not last.rows:  # deleted meanwhile
            return page.rows
        found = [page.rows[0]]
        # Where the values are, which may be a small part of the range.
        span = Span(page.rows[0].time, last.rows[0].time + RESOLUTION)
        buckets = buckets_for(span, most // 2)
        edges = [buckets.beginning(span.start)]
        while edges[-1] < span.end:
            edges.append(buckets.after(edges[-1]))
        begin, step = 0, _FIRST_BUCKETS
        while begin < len(edges) - 1:
            rows, value_count = await pages.extremes(self._series, span, edges[begin : begin + step + 1])
            found += rows
            begin += step
            # The next question is made of about as many values as a page of aggregates.
            step = max(1, min(step * _GROWTH, step * VALUES_PER_PAGE // max(1, value_count)))
        found += last.rows
        return [found[0], *(row for before, row in pairwise(found) if row.time > before.time)]
