"""ChirpStack v4: its events, and what is said of other messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import chirpstack
from sens_payloads.uplinks import Received, Unwrapped, Uplink
from support import uplink_vectors
from support.uplink_vectors import Case

RECEIVED_AT = uplink_vectors.instant("2026-09-04T08:00:09Z")
TOPIC = "application/17c82e96/device/0101010101010101/event/"
TIME = "2026-07-18T09:34:15.775023242+00:00"
EVENT = {"time": TIME, "deviceInfo": {"devEui": "0101010101010101"}}
LORA = {"frequency": 867100000, "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 11}}}
UPLINK = EVENT | {"fPort": 1, "data": "A2cBEA==", "rxInfo": [{"rssi": -96, "snr": 1.5}], "txInfo": LORA}


def unwrap(received: Received) -> Unwrapped:
    return chirpstack.unwrap(received, chirpstack.Settings())


def uplink(kind: str, document: Any, settings: chirpstack.Settings | None = None) -> Uplink:
    received = Received(json.dumps(document).encode(), RECEIVED_AT, TOPIC + kind)
    answer = chirpstack.unwrap(received, settings or chirpstack.Settings())
    assert isinstance(answer, list)
    (only,) = answer
    return only


def refused(kind: str, document: Any) -> str:
    with pytest.raises(RejectedMessageError) as rejection:
        unwrap(Received(json.dumps(document).encode(), RECEIVED_AT, TOPIC + kind))
    return str(rejection.value)


class TestVectors:
    @uplink_vectors.parametrized("chirpstack")
    def test_a_case_is_unwrapped_as_it_says(self, case: Case) -> None:
        uplink_vectors.check(unwrap, case)


class TestSettings:
    def test_the_profile_decodes_where_that_is_set(self) -> None:
        decoded = UPLINK | {"object": {"temperature": 21.5}}
        assert uplink("up", decoded).fields == {"temperature": 21.5}
        by_profile = uplink("up", decoded, chirpstack.Settings(decoded_by="profile"))
        assert (by_profile.fields, by_profile.frame) == (None, b"\x03\x67\x01\x10")

    def test_an_empty_object_is_none(self) -> None:
        assert uplink("up", UPLINK | {"object": {}}).fields is None

    def test_others_are_refused(self) -> None:
        with pytest.raises(ValidationError):
            chirpstack.Settings.model_validate({"decoded_by": "network", "other": 1})


class TestZerosThatAreLeftOut:
    def test_snr(self) -> None:
        assert uplink("up", UPLINK | {"rxInfo": [{"rssi": -96}]}).radio["snr"] == 0
        fsk = {"modulation": {"fsk": {"datarate": 50000}}}
        assert "snr" not in uplink("up", UPLINK | {"rxInfo": [{"rssi": -96}], "txInfo": fsk}).radio

    def test_an_empty_battery_and_no_margin(self) -> None:
        assert uplink("status", EVENT).radio == {"margin": 0, "battery": 0}
        assert uplink("status", EVENT | {"batteryLevelUnavailable": True}).radio == {"margin": 0}

    def test_a_location_on_the_equator(self) -> None:
        located = uplink("location", EVENT | {"location": {"longitude": 9.5}})
        assert located.radio == {"latitude": 0, "longitude": 9.5, "altitude": 0}

    def test_no_gateway_at_all(self) -> None:
        assert uplink("up", EVENT).radio == {"f_cnt": 0}


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("kind", "document", "sentence"),
        [
            ("up", {"time": TIME}, "the member deviceInfo is missing; let ChirpStack v4 send its events itself"),
            ("up", EVENT | {"deviceInfo": {}}, "the member deviceInfo.devEui is missing"),
            ("up", EVENT | {"deviceInfo": {"devEui": "ä"}}, "deviceInfo.devEui 'ä' is no device's name"),
            ("up", EVENT | {"deviceInfo": {"devEui": ""}}, "the message names no device"),
            ("up", UPLINK | {"data": "***"}, "the member data: invalid base64 encoded string"),
            ("up", UPLINK | {"fPort": 256}, "the member fPort: expected a whole number <= 255"),
            ("up", UPLINK | {"rxInfo": [{"rssi": "x"}]}, "the member rxInfo[0].rssi: expected a number, got a text"),
            ("up", UPLINK | {"object": {"a": 2**53 + 1}}, "'a': a 64-bit float can't hold the integer"),
            ("up", UPLINK | {"joinServerContext": {"sessionKeyId": "x"}}, "the frame is encrypted with a key"),
            ("location", EVENT, "the member location is missing"),
            ("status", EVENT | {"batteryLevel": 255}, "the member batteryLevel: expected a number <= 100.0"),
            ("stats", EVENT, "the topic's last level 'stats' is no event of ChirpStack v4, such as up or status"),
            ("up", {"applicationID": "1", "devEUI": "AQIDBAUGB6s="}, "the event is one of ChirpStack v3"),
        ],
    )
    def test_the_member_and_what_to_do(self, kind: str, document: Any, sentence: str) -> None:
        assert sentence in refused(kind, document)

    def test_an_address_without_the_event(self) -> None:
        with pytest.raises(RejectedMessageError, match="the address's parameter event '' is no event"):
            unwrap(Received(json.dumps(UPLINK).encode(), RECEIVED_AT))

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (b"", "the message is empty; let ChirpStack"),
            (b"\n\x24deduplicationId", "the message is not JSON (invalid character (byte 1))"),
            (b"<xml/>", "the message is XML or HTML, not JSON"),
            (b'{"time":"\xff"', "the message"),
        ],
    )
    def test_a_body_that_is_not_json(self, body: bytes, sentence: str) -> None:
        with pytest.raises(RejectedMessageError) as rejection:
            unwrap(Received(body, RECEIVED_AT, TOPIC + "up"))
        assert rejection.value.detail.startswith(sentence)


class TestAnyBytes:
    @given(st.binary(max_size=200), st.sampled_from(["up", "status", "location", "join", "", "x"]))
    def test_give_uplinks_none_or_a_rejection(self, body: bytes, kind: str) -> None:
        uplink_vectors.check_law(unwrap, Received(body, RECEIVED_AT, TOPIC + kind))

    @given(uplink_vectors.mutated("chirpstack"))
    def test_nearly_right_events_too(self, message: Received) -> None:
        uplink_vectors.check_law(unwrap, message)
