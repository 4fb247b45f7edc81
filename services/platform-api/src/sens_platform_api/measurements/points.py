"""Buckets for charts: as many as there are pixels, of a width that people would choose."""

from datetime import timedelta
from itertools import chain, count
from typing import Final

from sens_platform_api.measurements.buckets import EqualBuckets
from sens_platform_api.measurements.query import Aggregate
from sens_platform_api.measurements.spans import Span

MOST_POINTS: Final = 10_000
POINT_AGGREGATES: Final[tuple[Aggregate, ...]] = ("min", "max", "avg")

_ROUND_MILLISECONDS: Final = [
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(seconds * 1000 for seconds in (1, 2, 5, 10, 15, 20, 30)),
    *(minutes * 60_000 for minutes in (1, 2, 5, 10, 15, 20, 30)),
    *(hours * 3_600_000 for hours in range(1, 24)),
]


def buckets_for(span: Span, points: int) -> EqualBuckets:
    """Return the narrowest buckets of a round width of which a time range has so many at most.

    From an hour on they are of whole hours and from a day on of whole days, so that they can be read from rollups.
    """
    widths = chain(
        (timedelta(milliseconds=each) for each in _ROUND_MILLISECONDS), (timedelta(days=each) for each in count(1))
    )
    fitting = (
        buckets
        for buckets in map(EqualBuckets, widths)
        if span.end <= buckets.beginning(span.start) + points * buckets.typical
    )
    return next(fitting)
