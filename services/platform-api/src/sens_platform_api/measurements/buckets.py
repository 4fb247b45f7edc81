"""Where buckets begin: every so many seconds, or by a time zone's days, weeks and months."""

import difflib
import re
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from itertools import count
from typing import Final, Literal, Protocol
from zoneinfo import ZoneInfo, available_timezones

from sens_common.times import parse_width
from sens_platform_api.measurements.spans import Order, Span

BUCKET_ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)
"""Buckets begin at this time plus or minus whole buckets. It is a Monday, so that weeks begin with one."""
BUCKET_PATTERN: Final = r"^[1-9][0-9]{0,7}(?:[smhdw]|mo)$"
BUCKET_WORDS: Final = "a number and s, m, h, d, w or mo (seconds to months), for example 5m, 1d or 1mo"
WIDEST: Final = timedelta(days=366)

_MOST_MONTHS: Final = 12
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_TYPICAL_MONTH: Final = timedelta(days=30)
_ORIGIN_DAY: Final = BUCKET_ORIGIN.toordinal()


class Buckets(Protocol):
    """Divides time into buckets without a gap.

    Attributes:
        typical: How wide one is, about.
    """

    @property
    def typical(self) -> timedelta: ...

    def beginning(self, time: datetime) -> datetime:
        """Return when the bucket begins that a time is in."""

    def after(self, beginning: datetime) -> datetime:
        """Return when the bucket after the one with this beginning begins."""

    def grid(self, start: datetime, end: datetime) -> timedelta:
        """Return a day or an hour where all buckets of a range begin with one of UTC, else a microsecond."""


class EqualBuckets:
    """Buckets of the same width, which begin at the origin plus or minus whole buckets."""

    def __init__(self, width: timedelta) -> None:
        self.typical = width

    def beginning(self, time: datetime) -> datetime:
        """Return when the bucket begins that a time is in."""
        return time - (time - BUCKET_ORIGIN) % self.typical

    def after(self, beginning: datetime) -> datetime:
        """Return when the bucket after the one with this beginning begins."""
        return beginning + self.typical

    def grid(self, start: datetime, end: datetime) -> timedelta:  # noqa: ARG002 - all begin alike
        """Return a day or an hour where all buckets begin with one, else a microsecond."""
        return next((grid for grid in (_DAY, _HOUR) if not self.typical % grid), timedelta.resolution)


class LocalBuckets:
    """Buckets by a time zone's calendar: parts of a day, days, weeks from Monday, or months.

    Parts of more than an hour go by the wall clock: where it is set forward or back, one of them is shorter or longer. Those of an hour
    and less are counted from midnight, as time passes: such a day has 23 or 25 hours.
    """

    def __init__(
        self, zone: ZoneInfo, unit: Literal["part", "day", "month"], number: int, part: timedelta = _DAY
    ) -> None:
        self._zone = zone
        self._unit = unit
        self._number = number
        self._part = part
        self.typical = {"part": part, "day": number * _DAY, "month": number * _TYPICAL_MONTH}[unit]
        self._edges_of = lru_cache(64)(self._make_edges)
        self._grid_of = lru_cache(4)(self._grid_in)

    def beginning(self, time: datetime) -> datetime:
        """Return when the bucket begins that a time is in."""
        cell = self._cell_of(time)
        edges = self._edges_of(cell)
        return edges[bisect_right(edges, time) - 1]

    def after(self, beginning: datetime) -> datetime:
        """Return when the bucket after the one with this beginning begins."""
        cell = self._cell_of(beginning)
        edges = self._edges_of(cell)
        index = bisect_right(edges, beginning)
        return edges[index] if index < len(edges) else self._first_edge_from(cell + 1)

    def grid(self, start: datetime, end: datetime) -> timedelta:
        """Return an hour where all buckets of a range begin with one of UTC, else a microsecond."""
        return self._grid_of(start.year, end.year)

    def _grid_in(self, first_year: int, last_year: int) -> timedelta:
        first = self._cell_of(datetime(first_year, 1, 1, tzinfo=UTC))
        past = self._cell_of(datetime(last_year + 1, 1, 1, tzinfo=UTC)) + 2
        whole = not self._part % _HOUR and all(not self._start(cell).minute for cell in range(first, past))
        return _HOUR if whole else timedelta.resolution

    def _cell_of(self, time: datetime) -> int:
        """Return the number of the stretch of whole days or months that a time is in."""
        local = time.astimezone(self._zone)
        if self._unit == "month":
            cell = ((local.year - BUCKET_ORIGIN.year) * 12 + local.month - 1) // self._number
        else:
            cell = (local.toordinal() - _ORIGIN_DAY) // self._number
        # A clock that is set back at midnight comes to the day before again, which does not begin again.
        while self._start(cell + 1) <= time:
            cell += 1
        return cell

    def _start(self, cell: int) -> datetime:
        number = cell * self._number
        if self._unit == "month":
            return self._utc(date(BUCKET_ORIGIN.year + number // 12, number % 12 + 1, 1), timedelta(0))
        return self._utc(date.fromordinal(_ORIGIN_DAY + number), timedelta(0))

    def _utc(self, day: date, clock: timedelta) -> datetime:
        """Return when a clock shows a time of a day first; if it never does, when it is set forward past it."""
        local = datetime(day.year, day.month, day.day) + clock  # noqa: DTZ001 - of the zone that is set next
        return local.replace(tzinfo=self._zone).astimezone(UTC)

    def _make_edges(self, cell: int) -> list[datetime]:
        """Return when the buckets of a cell begin; none for a day that a zone left out."""
        start, end = self._start(cell), self._start(cell + 1)
        if start == end:
            return []
        if self._unit != "part":
            return [start]
        if self._part <= _HOUR:
            return [start + index * self._part for index in range(-((start - end) // self._part))]
        day = date.fromordinal(_ORIGIN_DAY + cell)
        edges = {self._utc(day, index * self._part) for index in range(_DAY // self._part)}
        return sorted(edge for edge in edges if start <= edge < end)

    def _first_edge_from(self, cell: int) -> datetime:
        return next(edges[0] for later in count(cell) if (edges := self._edges_of(later)))


def bucket_edges(buckets: Buckets, first: datetime, span: Span, count: int, order: Order) -> list[datetime]:
    """Return the beginnings of so many buckets of a range and the end of the last of them, ascending.

    Args:
        buckets: All of them.
        first: Beginning of the first one, or in descending order of the last.
        span: They end with the one that reaches its end, or begin with the one that its start is in.
        count: How many at most.
        order: Whether to go on from the first, or back.
    """
    edges = [first, buckets.after(first)]
    if order == "asc":
        while len(edges) <= count and edges[-1] < span.end:
            edges.append(buckets.after(edges[-1]))
        return edges
    edges.reverse()
    while len(edges) <= count and edges[-1] > span.start:
        edges.append(buckets.beginning(edges[-1] - timedelta.resolution))
    return edges[::-1]


def parse_buckets(text: str, zone: ZoneInfo | None) -> Buckets:
    """Return the buckets of a width, in UTC or by a zone's calendar.

    Raises:
        ValueError: There are no such buckets; the text says what is accepted.
    """
    if not re.fullmatch(BUCKET_PATTERN, text.strip()):
        raise ValueError(f"it is not the width of a bucket; write {BUCKET_WORDS}")
    if text.strip().endswith("mo"):
        months = int(text.strip().removesuffix("mo"))
        if months > _MOST_MONTHS:
            raise ValueError("a bucket may be 366 days or 12 months wide at most")
        return LocalBuckets(zone or ZoneInfo("UTC"), "month", months)
    width = parse_width(text)
    if width > WIDEST:
        raise ValueError("a bucket may be 366 days or 12 months wide at most")
    if zone is None:
        return EqualBuckets(width)
    if not width % _DAY:
        return LocalBuckets(zone, "day", width // _DAY)
    if _DAY % width:
        raise ValueError(
            "with tz, a bucket is a part of a day without remainder (1m, 15m, 1h, 6h), whole days, weeks or months"
        )
    return LocalBuckets(zone, "part", 1, width)


def parse_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its name in the IANA database; None for UTC, whose days are those without a zone.

    Raises:
        ValueError: There is no such zone; the text says similar ones.
    """
    known = _zone_names()
    if name not in known:
        lower = {each.lower(): each for each in known}
        folded = name.strip().replace(" ", "_").lower()
        by_city = {each.rpartition("/")[2]: each for each in lower}
        hints = difflib.get_close_matches(folded, lower, 3) or difflib.get_close_matches(folded, by_city, 1)
        meant = [lower[by_city.get(hint, hint)] for hint in hints]
        raise ValueError(
            "there is no such time zone; write a name of the IANA database, for example Europe/Vienna"
            + (f" (do you mean {' or '.join(meant)}?)" if meant else "")
        )
    return None if name in {"UTC", "Etc/UTC"} else ZoneInfo(name)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())
