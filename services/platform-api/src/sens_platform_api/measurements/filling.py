"""Rows for buckets without values, between the rows of those that have some."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sens_platform_api.devices.repository import Value
from sens_platform_api.measurements.buckets import Buckets
from sens_platform_api.measurements.query import Aggregate, Fill, QueriedSeries
from sens_platform_api.measurements.repository import Row
from sens_platform_api.measurements.spans import Order, Span

EMPTY_COUNT: Final = 0


class Filling:
    """Puts rows for empty buckets between the rows of a series, as far as it knows them.

    Attributes:
        before: The row that came before the next one, None when the series begins.
    """

    def __init__(
        self,
        series: QueriedSeries,
        buckets: Buckets,
        aggregates: Sequence[Aggregate],
        *,
        fill: Fill,
        span: Span,
        order: Order,
    ) -> None:
        self.before: Row | None = None
        self._series = series
        self._buckets = buckets
        self._aggregates = aggregates
        self._fill = fill
        self._span = span
        self._order = order
        self._due = buckets.beginning(span.start if order == "asc" else span.end - timedelta.resolution)
        self._rows: deque[Row] = deque()
        self._has_all = False

    @property
    def complete(self) -> bool:
        """Whether no row is to come."""
        return self._has_all and not self._rows and not self._is_due

    def add(self, rows: Sequence[Row], *, last: bool) -> None:
        """Add the next rows that have values, the last ones or not."""
        self._rows.extend(rows)
        self._has_all = last

    def take(self, count: int) -> list[Row]:
        """Return the next rows, so many at most, as far as it is known what they are."""
        taken: list[Row] = []
        while len(taken) < count:
            following = self._rows[0] if self._rows else None
            if following is not None and following.time == self._due:
                taken.append(self._rows.popleft())
                self.before = following
            elif following is not None or (self._has_all and self._is_due):
                taken.append(Row(self._due, self._series, self._values(following)))
            else:
                break
            self._due = self._after(self._due)
        return taken

    @property
    def _is_due(self) -> bool:
        if self._order == "asc":
            return self._due < self._span.end
        return self._buckets.after(self._due) > self._span.start

    def _after(self, beginning: datetime) -> datetime:
        if self._order == "asc":
            return self._buckets.after(beginning)
        return self._buckets.beginning(beginning - timedelta.resolution)

    def _values(self, following: Row | None) -> tuple[Value | None, ...]:
        earlier, later = (self.before, following) if self._order == "asc" else (following, self.before)
        return tuple(
            EMPTY_COUNT if name == "count" else self._value(index, earlier, later)
            for index, name in enumerate(self._aggregates)
        )

    def _value(self, index: int, earlier: Row | None, later: Row | None) -> Value | None:
        if earlier is None or self._fill == "null":
            return None
        before = earlier.values[index]
        if self._fill == "previous" or before is None:
            return before
        after = None if later is None else later.values[index]
        if later is None or after is None:
            return None
        share = (self._due - earlier.time) / (later.time - earlier.time)
        return float(before) * (1 - share) + float(after) * share
