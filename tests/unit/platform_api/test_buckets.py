"""Buckets of equal width, and by the calendars of time zones."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_platform_api.measurements.buckets import bucket_edges, parse_buckets, parse_zone
from sens_platform_api.measurements.spans import Span

ZONES = [
    "Europe/Vienna",
    "Australia/Lord_Howe",
    "America/Havana",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Asia/Kathmandu",
]
"""With a night that loses or repeats an hour, half an hour, midnight itself, or a whole day."""
WIDTHS = ["15m", "1h", "6h", "1d", "3d", "1w", "1mo", "5mo"]


class TestBuckets:
    @given(
        zone=st.sampled_from([None, *ZONES]),
        width=st.sampled_from(WIDTHS),
        seconds=st.integers(315_532_800, 1_893_456_000),
    )
    def test_leave_no_gap(self, zone: str | None, width: str, seconds: int) -> None:
        time = datetime.fromtimestamp(seconds, UTC)
        buckets = parse_buckets(width, ZoneInfo(zone) if zone else None)
        begin = buckets.beginning(time)
        after = buckets.after(begin)
        assert begin <= time < after
        assert buckets.beginning(begin) == begin
        assert buckets.beginning(after - timedelta.resolution) == begin
        assert buckets.beginning(after) == after

    @pytest.mark.parametrize("zone", ZONES)
    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_of_days_begin_when_the_clock_first_shows_midnight_or_skips_it(self, zone: str, order: str) -> None:
        here = ZoneInfo(zone)
        span = Span(datetime(2011, 1, 1, tzinfo=UTC), datetime(2012, 1, 10, tzinfo=UTC))
        buckets = parse_buckets("1d", here)
        first = buckets.beginning(span.start if order == "asc" else span.end - timedelta.resolution)
        edges = bucket_edges(buckets, first, span, 1000, "asc" if order == "asc" else "desc")
        days = [edge.astimezone(here).date() for edge in edges]
        assert all(earlier < later for earlier, later in pairwise(days))
        assert len(days) == (days[-1] - days[0]).days + (0 if zone == "Pacific/Apia" else 1)
        for earlier, later in pairwise(edges):
            assert timedelta(hours=23) <= later - earlier <= timedelta(hours=25)

    def test_of_parts_of_a_day_go_by_the_wall_clock_and_those_of_an_hour_as_time_passes(self) -> None:
        vienna = ZoneInfo("Europe/Vienna")
        night = Span(datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC))
        parts = bucket_edges(parse_buckets("6h", vienna), night.start, night, 1000, "asc")
        assert [(later - earlier) // timedelta(hours=1) for earlier, later in pairwise(parts)] == [7, 6, 6, 6]
        hours = bucket_edges(parse_buckets("1h", vienna), night.start, night, 1000, "asc")
        assert {later - earlier for earlier, later in pairwise(hours)} == {timedelta(hours=1)}
        assert len(hours) == 26

    def test_of_months_begin_with_the_first(self) -> None:
        buckets = parse_buckets("1mo", ZoneInfo("Europe/Vienna"))
        assert buckets.beginning(datetime(2026, 3, 31, 21, 59, tzinfo=UTC)) == datetime(2026, 2, 28, 23, tzinfo=UTC)
        assert buckets.after(datetime(2026, 2, 28, 23, tzinfo=UTC)) == datetime(2026, 3, 31, 22, tzinfo=UTC)

    def test_are_on_a_grid_where_all_begin_with_a_whole_hour_or_day(self) -> None:
        year = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
        hour, day, none = timedelta(hours=1), timedelta(days=1), timedelta.resolution
        assert [parse_buckets(width, None).grid(*year) for width in ("1d", "36h", "90m")] == [day, hour, none]
        grids = [parse_buckets(width, ZoneInfo("Europe/Vienna")).grid(*year) for width in ("1d", "1mo", "6h", "5m")]
        assert grids == [hour, hour, hour, none]
        assert parse_buckets("1d", ZoneInfo("Asia/Kolkata")).grid(*year) == none

    @pytest.mark.parametrize("width", ["0d", "1y", "mo", "13mo", "367d", "-1h", "1.5h"])
    def test_of_other_widths_are_refused(self, width: str) -> None:
        with pytest.raises(ValueError, match=r"width of a bucket|wide at most"):
            parse_buckets(width, None)

    @pytest.mark.parametrize("width", ["7m", "5h", "36h"])
    def test_of_a_zone_are_parts_of_a_day_or_whole_days(self, width: str) -> None:
        with pytest.raises(ValueError, match="part of a day without remainder"):
            parse_buckets(width, ZoneInfo("Europe/Vienna"))


class TestZones:
    def test_are_those_of_the_database(self) -> None:
        assert parse_zone("Europe/Vienna") == ZoneInfo("Europe/Vienna")
        assert parse_zone("UTC") is None

    @pytest.mark.parametrize("name", ["europe/vienna", "Vienna", "Europe/Viena", "Europe/ Vienna"])
    def test_that_are_not_known_are_refused_with_similar_ones(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"no such time zone; .*Europe/Vienna\b.*do you mean .*Europe/Vienna"):
            parse_zone(name)

    @pytest.mark.parametrize("name", ["", "../etc/passwd", "/etc/localtime", "Nowhere/At_All_There"])
    def test_never_name_a_file(self, name: str) -> None:
        with pytest.raises(ValueError, match="no such time zone"):
            parse_zone(name)
