"""Buckets for charts."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_platform_api.measurements.points import MOST_POINTS, buckets_for
from sens_platform_api.measurements.spans import Span

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class TestBuckets:
    @given(start=st.integers(0, 10**8), seconds=st.integers(1, 3660 * 86_400), points=st.integers(2, MOST_POINTS))
    def test_are_as_many_as_the_points_at_most(self, start: int, seconds: int, points: int) -> None:
        span = Span(START + timedelta(seconds=start), START + timedelta(seconds=start + seconds))
        buckets = buckets_for(span, points)
        last = buckets.beginning(span.end - timedelta.resolution)
        assert (last - buckets.beginning(span.start)) / buckets.typical + 1 <= points

    @pytest.mark.parametrize(
        ("wide", "points", "width"),
        [
            (timedelta(seconds=10), 1000, timedelta(milliseconds=10)),
            (timedelta(days=1), 1440, timedelta(minutes=1)),
            (timedelta(days=1), 1000, timedelta(minutes=2)),
            (timedelta(days=365), 1000, 9 * HOUR),
            (timedelta(days=365), 100, timedelta(days=4)),
            (timedelta(days=3660), 2, timedelta(days=2132)),
        ],
    )
    def test_are_of_a_round_width(self, wide: timedelta, points: int, width: timedelta) -> None:
        assert buckets_for(Span(START, START + wide), points).typical == width
