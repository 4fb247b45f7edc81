"""Times as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from sens_common.times import parse_time, parse_width

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "hours"),
        [
            ("now", 0),
            ("today", -12),
            ("-1h", -1),
            ("-90m", -1.5),
            ("-2d", -48),
            ("-1w", -168),
            ("2026-11-29", -12),
            ("2026-11-29T13:00:00+01:00", 0),
            ("2026-11-29T13:00:00 01:00", 0),
            ("2026-11-29 11:00", -1),
            ("1795953600", 0),
            ("1795953600000", 0),
        ],
    )
    def test_may_be_relative_days_or_times(self, text: str, hours: float) -> None:
        assert parse_time(text, NOON) == NOON + timedelta(hours=hours)

    def test_begin_days_in_the_zone(self) -> None:
        vienna = timezone(timedelta(hours=1))
        assert parse_time("today", NOON, vienna) == NOON - timedelta(hours=13)
        assert parse_time("2026-11-29", NOON, vienna) == NOON - timedelta(hours=13)

    @pytest.mark.parametrize(
        "text",
        ["", "yesterday", "1h", "-1y", "+1h", "2026-13-01", "24.12.2026", "1e5", "nan", "-", "x" * 100, "9" * 19],
    )
    def test_that_are_none_are_refused_in_words_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"2026-11-29|between 1900 and 2200") as caught:
            parse_time(text, NOON)
        assert "\\d" not in str(caught.value)

    def test_outside_of_two_centuries_are_refused(self) -> None:
        with pytest.raises(ValueError, match="between 1900 and 2200"):
            parse_time("-99999w", NOON)


class TestWidths:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("1s", 1), ("5m", 300), ("1h", 3600), ("1d", 86_400), ("2w", 1_209_600)]
    )
    def test_are_a_number_and_a_unit(self, text: str, seconds: int) -> None:
        assert parse_width(text) == timedelta(seconds=seconds)

    @pytest.mark.parametrize("text", ["7x", "5", "0m", "-5m", "", "5 m", "1.5h"])
    def test_that_are_none_are_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match="for example 5m"):
            parse_width(text)
