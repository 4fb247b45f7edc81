"""Actility ThingPark: its reports, and what is said of other messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import actility
from sens_payloads.uplinks import Received, Unwrapped, Uplink
from support import uplink_vectors
from support.uplink_vectors import Case

RECEIVED_AT = uplink_vectors.instant("2026-09-04T08:00:09Z")
REPORT = {
    "Time": "2026-04-07T08:49:45.235+00:00",
    "DevEUI": "20635F0108000496",
    "FPort": 17,
    "FCntUp": 18,
    "payload_hex": "03670110",
    "CustomerID": "100002167",
}


def unwrap(received: Received) -> Unwrapped:
    return actility.unwrap(received, actility.Settings())


def sent(document: Any) -> Received:
    return Received(json.dumps(document).encode(), RECEIVED_AT)


def uplink(document: Any, settings: actility.Settings | None = None) -> Uplink:
    answer = actility.unwrap(sent(document), settings or actility.Settings())
    assert isinstance(answer, list)
    (only,) = answer
    return only


class TestVectors:
    @uplink_vectors.parametrized("actility")
    def test_a_case_is_unwrapped_as_it_says(self, case: Case) -> None:
        uplink_vectors.check(unwrap, case)


class TestUplinks:
    def test_the_profile_decodes_where_that_is_set(self) -> None:
        decoded = {"DevEUI_uplink": REPORT | {"payload": {"temperature": 21.5}}}
        assert uplink(decoded).fields == {"temperature": 21.5}
        assert uplink(decoded, actility.Settings(decoded_by="profile")).fields is None

    def test_a_location_has_the_time_at_which_the_device_was_there(self) -> None:
        located = {"DevLAT": "47.4", "DevLON": 18.9, "DevAlt": "50", "DevLocTime": "2026-04-07T08:49:40Z"}
        answer = uplink({"DevEUI_location": REPORT | located})
        assert answer.radio == {"latitude": 47.4, "longitude": 18.9, "altitude": 50}
        assert answer.measured_at == uplink_vectors.instant("2026-04-07T08:49:40Z")


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("document", "sentence"),
        [
            ({}, "the message has neither DevEUI_uplink nor another report of ThingPark; let ThingPark send"),
            ({"DevEUI_uplink": {}}, "the message names no device: it has no DevEUI_uplink.DevEUI"),
            ({"DevEUI_uplink": REPORT | {"Time": None}}, "the message has no time: DevEUI_uplink.Time is missing"),
            ({"DevEUI_uplink": REPORT | {"payload_hex": "036"}}, "DevEUI_uplink.payload_hex '036' has 3 digits"),
            ({"DevEUI_uplink": REPORT | {"LrrSNR": "NaN"}}, "the member DevEUI_uplink.LrrSNR: expected a number"),
            ({"DevEUI_location": REPORT}, "the member DevEUI_location.DevLAT is missing"),
        ],
    )
    def test_the_member_and_what_to_do(self, document: Any, sentence: str) -> None:
        with pytest.raises(RejectedMessageError) as rejection:
            unwrap(sent(document))
        assert sentence in rejection.value.detail

    def test_xml(self) -> None:
        with pytest.raises(RejectedMessageError, match=r"is XML or HTML, not JSON; let ThingPark .* content type JSON"):
            unwrap(Received(b'<?xml version="1.0"?><DevEUI_uplink/>', RECEIVED_AT))


class TestAnyBytes:
    @given(st.binary(max_size=200))
    def test_give_uplinks_none_or_a_rejection(self, body: bytes) -> None:
        uplink_vectors.check_law(unwrap, Received(body, RECEIVED_AT))

    @given(uplink_vectors.mutated("actility"))
    def test_nearly_right_reports_too(self, message: Received) -> None:
        uplink_vectors.check_law(unwrap, message)
