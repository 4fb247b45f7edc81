import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import live
from sens_common.live import LiveReading

READINGS = st.lists(
    st.builds(
        LiveReading,
        device=st.text(min_size=1, max_size=63),
        metric=st.text(min_size=1, max_size=100),
        measured_at=st.integers(min_value=-(2**53), max_value=2**53),
        value=st.one_of(st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=100)),
    ),
    max_size=20,
)


class TestRoundTrip:
    @given(READINGS)
    def test_returns_what_was_encoded(self, readings: list[LiveReading]) -> None:
        assert live.decode(live.encode(readings)) == readings

    @given(READINGS)
    def test_keeps_each_value_in_its_kind(self, readings: list[LiveReading]) -> None:
        kinds = [type(reading.value) for reading in live.decode(live.encode(readings))]

        assert kinds == [type(reading.value) for reading in readings]

    def test_keeps_the_sign_of_zero(self) -> None:
        [reading] = live.decode(live.encode([LiveReading("d", "m", 0, -0.0)]))

        assert isinstance(reading.value, float)
        assert math.copysign(1, reading.value) == -1


class TestDecode:
    @given(st.binary(max_size=300))
    def test_answers_any_bytes_with_readings_or_value_error(self, body: bytes) -> None:
        try:
            readings = live.decode(body)
        except ValueError:
            return
        assert all(isinstance(reading, LiveReading) for reading in readings)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            msgspec.msgpack.encode([["device", "metric", 1, None]]),
            b"\x91\x95\xa1d\xa1m\x01\xc3" + b"\x91" * 100_000 + b"\xc0",
        ],
        ids=["empty", "a null value", "deeply nested"],
    )
    def test_refuses_foreign_bytes(self, body: bytes) -> None:
        with pytest.raises(ValueError, match=r"not a live message"):
            live.decode(body)


class TestParts:
    @given(READINGS, st.integers(min_value=100, max_value=1000))
    def test_hold_what_fits_in_its_order(self, readings: list[LiveReading], max_bytes: int) -> None:
        parts = list(live.encode_parts(readings, max_bytes))

        assert all(len(body) <= max_bytes and len(live.decode(body)) == count for body, count in parts)
        fitting = [reading for reading in readings if len(live.encode([reading])) <= max_bytes]
        assert [reading for body, _ in parts for reading in live.decode(body)] == fitting


class TestDropped:
    @pytest.mark.parametrize(
        ("headers", "count"),
        [
            (None, 0),
            ({}, 0),
            ({"Sens-Dropped": "12"}, 12),
            ({"Sens-Dropped": "-1"}, 0),
            ({"Sens-Dropped": "²"}, 0),
            ({"Sens-Dropped": "9" * 5000}, 0),
        ],
    )
    def test_is_what_the_header_says(self, headers: dict[str, str] | None, count: int) -> None:
        assert live.dropped(headers) == count


class TestSubject:
    def test_is_the_tenants_own(self) -> None:
        assert live.subject("demo") == "sens.live.demo"
        assert live.subject("acme.eu") == "sens.live.acme%2Eeu"
