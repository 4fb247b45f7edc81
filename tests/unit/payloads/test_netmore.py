"""Netmore: all shapes of its messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import netmore
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements
from support import uplink_vectors
from support.uplink_vectors import Case

RECEIVED_AT = uplink_vectors.instant("2026-09-04T08:00:09Z")
UPLINK = {"devEui": "70b3d57ed0a1b2c3", "timestamp": "2026-09-04T08:00:08.599602Z", "payload": "0a1b", "fPort": "2"}
DATA_POINT = {"t": 1787333993477, "n": "snr", "u": "db", "v": 7.5}
DEVICE_TOPIC = "client/c123/edge/e123/netmore/dp/evt/lorac/blink/uwpa/0019eeb0000a0b0c/s/snr"


def unwrap(received: Received) -> Unwrapped:
    return netmore.unwrap(received, netmore.Settings())


def unwrapped(document: Any, topic: str = "") -> Unwrapped:
    return unwrap(Received(json.dumps(document).encode(), RECEIVED_AT, topic))


def uplinks(document: Any, topic: str = "") -> list[Uplink]:
    answer = unwrapped(document, topic)
    assert isinstance(answer, list)
    return answer


def refused(document: Any, topic: str = "") -> str:
    with pytest.raises(RejectedMessageError) as rejection:
        unwrapped(document, topic)
    return f"{rejection.value.reason}: {rejection.value.detail}"


class TestVectors:
    @uplink_vectors.parametrized("netmore")
    def test_a_case_is_unwrapped_as_it_says(self, case: Case) -> None:
        uplink_vectors.check(unwrap, case)


class TestDataPoints:
    def test_those_of_one_time_are_one_uplink(self) -> None:
        points = [DATA_POINT, DATA_POINT | {"n": "rssi", "u": "dBm", "v": -80}, DATA_POINT | {"t": 1787333993478}]
        first, second = uplinks({"devEui": "0019eeb0000a0b0c", "data": points})
        assert first.fields == {"snr": 7.5, "rssi": -80}
        assert first.units == {"snr": "db", "rssi": "dBm"}
        assert second.fields == {"snr": 7.5}

    def test_one_name_twice_at_one_time_is_two_uplinks_which_storing_compares(self) -> None:
        first, second = uplinks([DATA_POINT, DATA_POINT | {"v": 8}], DEVICE_TOPIC)
        assert first.measured_at == second.measured_at
        assert (first.fields, second.fields) == ({"snr": 7.5}, {"snr": 8})

    def test_null_is_no_value(self) -> None:
        (uplink,) = uplinks([DATA_POINT, DATA_POINT | {"t": 1787333993478, "v": None}], DEVICE_TOPIC)
        assert uplink.fields == {"snr": 7.5}
        assert refused([DATA_POINT | {"v": None}], DEVICE_TOPIC).startswith(
            "unsupported_value: all data points are null"
        )

    def test_the_time_may_be_a_text(self) -> None:
        for time in ("1787333993477", "2026-08-21T17:39:53.477Z"):
            (uplink,) = uplinks([DATA_POINT | {"t": time}], DEVICE_TOPIC)
            assert uplink.measured_at == 1787333993477_000

    def test_the_device_is_the_last_part_of_the_device_id(self) -> None:
        (uplink,) = uplinks({"deviceId": "lorac@blink@uwpa@0019EEB0000A0B0C", "data": [DATA_POINT]})
        assert uplink.device == "0019eeb0000a0b0c"

    def test_a_topic_without_the_device_is_refused(self) -> None:
        sentence = refused([DATA_POINT], "client/c123/edge/e123/netmore/dp")
        assert "'client/c123/edge/e123/netmore/dp'" in sentence
        assert "use version 2" in sentence

    @pytest.mark.parametrize("missing", ["n", "v"])
    def test_one_without_name_or_value_is_refused(self, missing: str) -> None:
        point = {name: value for name, value in DATA_POINT.items() if name != missing}
        assert "lacks its name n or its value v" in refused({"devEui": "0019eeb0000a0b0c", "data": [point]})

    def test_one_without_a_time_is_refused(self) -> None:
        assert refused([DATA_POINT | {"t": None}], DEVICE_TOPIC).startswith("invalid_time")


class TestUplinks:
    def test_a_message_that_is_no_uplink_is_an_event(self) -> None:
        assert unwrapped([{"devEui": UPLINK["devEui"], "messageType": "join"}]) == WithoutMeasurements("event")

    def test_an_uplink_beside_another_message_counts(self) -> None:
        assert len(uplinks([{"messageType": "join"}, UPLINK])) == 1

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"devEui": None}, "the message names no device: it has no devEui"),
            ({"devEui": "no name!"}, "devEui 'no name!' is no device's name: a name is an EUI, or 1 to 63 letters"),
            ({"devEui": "a" * 5000}, "is no device's name"),
            ({"timestamp": None}, "the message has no time: timestamp is missing"),
            ({"payload": "123"}, "payload '123' has 3 digits, an odd number"),
            ({"payload": "zz"}, "payload 'zz' has something else than hexadecimal digits"),
            ({"payload": None}, "the uplink has no payload"),
            ({"rssi": "nan"}, "the member [0].rssi: expected a number >= -1000.0"),
            ({"fPort": 300}, "the member [0].fPort: expected a whole number <= 255; is this a message of Netmore"),
        ],
    )
    def test_what_is_wrong_is_named(self, change: dict[str, Any], sentence: str) -> None:
        assert sentence in refused([UPLINK | change])

    def test_an_absurd_time_is_refused(self) -> None:
        assert refused([UPLINK | {"timestamp": "1970-01-01T00:00:09Z"}]).startswith("implausible_time")
        assert refused([UPLINK | {"timestamp": "2026-09-06T00:00:09Z"}]).startswith("implausible_time")
        assert refused([UPLINK | {"timestamp": "2026-09-04T08:00:08"}]).startswith("invalid_time")


class TestBounds:
    def test_too_many_elements(self) -> None:
        assert refused([UPLINK] * 1001).startswith("too_large: the message has 1001 elements")

    def test_too_many_bytes(self) -> None:
        assert refused([UPLINK | {"x": "x" * 262_144}]).startswith("too_large")

    def test_too_deep(self) -> None:
        with pytest.raises(RejectedMessageError, match="too_large: the message is nested too deep"):
            unwrap(Received(b'[{"x":' + b"[" * 100_000, RECEIVED_AT))


class TestAnyBytes:
    @given(st.binary(max_size=200))
    def test_give_uplinks_none_or_a_rejection(self, body: bytes) -> None:
        uplink_vectors.check_law(unwrap, Received(body, RECEIVED_AT))

    @given(uplink_vectors.mutated("netmore"))
    def test_nearly_right_messages_too(self, message: Received) -> None:
        uplink_vectors.check_law(unwrap, message)
