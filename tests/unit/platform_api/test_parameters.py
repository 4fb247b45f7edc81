"""Parameters: times, cursors, media types."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_platform_api.codec_runs.schemas import NewRun
from sens_platform_api.errors import InvalidRequestError, NotAcceptableError, NotFoundError
from sens_platform_api.parameters import (
    DEVICE_PATTERN,
    canonical_device,
    decode_cursor,
    encode_cursor,
    parse_time,
    preferred_type,
    time_text,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class TestTimes:
    @pytest.mark.parametrize(
        "text",
        [
            "2026-11-24T12:00:00Z",
            "2026-11-24t12:00:00z",
            "2026-11-24T13:00:00+01:00",
            "2026-11-24 12:00Z",
            "1795521600",
            "1795521600000",
            "1795521600000000",
            "1795521600000000000",
        ],
    )
    def test_are_rfc_3339_or_an_epoch_in_any_unit(self, text: str) -> None:
        assert parse_time("from", text) == NOON

    def test_without_a_time_of_day_are_midnight_in_utc(self) -> None:
        assert parse_time("from", "2026-11-24") == NOON - timedelta(hours=12)

    @pytest.mark.parametrize("text", ["2026-13-01", "yesterday", "", "1e400", "2300-01-01", "1899-12-31", "9" * 30])
    def test_that_are_none_are_refused_by_name(self, text: str) -> None:
        with pytest.raises(InvalidRequestError, match="from"):
            parse_time("from", text)

    def test_are_written_in_utc_with_as_many_digits_as_needed(self) -> None:
        assert time_text(NOON) == "2026-11-24T12:00:00Z"
        assert time_text(NOON.replace(microsecond=120_000)) == "2026-11-24T12:00:00.120000Z"
        assert time_text(NOON.astimezone(timezone(timedelta(hours=1)))) == "2026-11-24T12:00:00Z"


class TestCursors:
    @given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
    def test_give_back_what_was_put_in(self, parts: list[str]) -> None:
        assert decode_cursor(encode_cursor(*parts), len(parts)) == parts

    @given(st.text(st.sampled_from("AZaz09-_"), max_size=40))
    def test_from_elsewhere_are_refused_or_have_the_right_number_of_parts(self, text: str) -> None:
        with contextlib.suppress(InvalidRequestError):
            assert len(decode_cursor(text, 3)) == 3


class TestDeviceNames:
    def test_are_canonical(self) -> None:
        assert canonical_device("AA-BB-CC-DD-EE-FF") == "aabbccddeeff"
        assert canonical_device("sensor-1") == "sensor-1"

    @given(st.from_regex(DEVICE_PATTERN.replace("$", r"\Z"), fullmatch=True).filter(lambda text: len(text) <= 63))
    def test_of_the_documented_pattern_are_all_possible(self, text: str) -> None:
        assert canonical_device(text)

    def test_that_no_device_can_have_are_not_found(self) -> None:
        with pytest.raises(NotFoundError):
            canonical_device("AA-BB:CC-DD-EE-FF")


class TestMediaTypes:
    OFFERED = ("application/json", "text/csv")

    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("*/*", "application/json"),
            ("text/csv", "text/csv"),
            ("Text/CSV;q=0.9, application/json;q=0.1", "text/csv"),
            ("text/*", "text/csv"),
            ("text/html, */*;q=0.1", "application/json"),
            ("application/json;q=0, */*", "text/csv"),
        ],
    )
    def test_are_chosen_by_preference(self, accept: str, expected: str) -> None:
        assert preferred_type(accept, self.OFFERED) == expected

    @pytest.mark.parametrize("accept", ["image/png", "*/*;q=0", ""])
    def test_that_do_not_exist_are_refused(self, accept: str) -> None:
        with pytest.raises(NotAcceptableError, match="text/csv"):
            preferred_type(accept, self.OFFERED)


class TestBody:
    def test_of_a_run_may_say_null_for_what_it_leaves_out(self) -> None:
        document = {"kind": "dry_run", "codec": "own@1", "device": "d", "from": "-7d"}
        said = NewRun.model_validate(document | {"before": None, "source": None, "to": None})
        assert said == NewRun.model_validate(document)
