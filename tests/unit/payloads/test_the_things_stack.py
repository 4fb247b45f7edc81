"""The Things Stack v3: its messages, and what is said of others."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import the_things_stack
from sens_payloads.uplinks import Received, Unwrapped, Uplink
from support import uplink_vectors
from support.uplink_vectors import Case

RECEIVED_AT = uplink_vectors.instant("2026-09-04T08:00:09Z")
DEVICE = {"device_id": "dev1", "dev_eui": "0004A30B001C0530"}
LORA = {"data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}}}
MESSAGE = {
    "received_at": "2026-02-12T15:15:45.789585559Z",
    "f_port": 1,
    "frm_payload": "A2cBEA==",
    "rx_metadata": [{"rssi": -35, "snr": 5}],
    "settings": LORA,
}


def unwrap(received: Received) -> Unwrapped:
    return the_things_stack.unwrap(received, the_things_stack.Settings())


def sent(message: Any, **members: Any) -> Received:
    document = {"end_device_ids": DEVICE, "uplink_message": message} | members
    return Received(json.dumps(document).encode(), RECEIVED_AT)


def uplink(received: Received, settings: the_things_stack.Settings | None = None) -> Uplink:
    answer = the_things_stack.unwrap(received, settings or the_things_stack.Settings())
    assert isinstance(answer, list)
    (only,) = answer
    return only


class TestVectors:
    @uplink_vectors.parametrized("the_things_stack")
    def test_a_case_is_unwrapped_as_it_says(self, case: Case) -> None:
        uplink_vectors.check(unwrap, case)


class TestSettings:
    def test_the_profile_decodes_where_that_is_set(self) -> None:
        decoded = sent(MESSAGE | {"decoded_payload": {"temperature": 21.5}})
        assert uplink(decoded).fields == {"temperature": 21.5}
        assert uplink(decoded, the_things_stack.Settings(decoded_by="profile")).fields is None


class TestRadio:
    def test_snr_of_zero_is_left_out_by_the_network(self) -> None:
        assert uplink(sent(MESSAGE | {"rx_metadata": [{"rssi": -35}]})).radio["snr"] == 0

    def test_a_gateway_that_tells_nothing(self) -> None:
        assert uplink(sent(MESSAGE | {"rx_metadata": [{}, {}]})).radio == {"f_cnt": 0, "spreading_factor": 7}

    def test_fsk_has_no_spreading_factor(self) -> None:
        fsk = {"data_rate": {"fsk": {"bit_rate": 50000}}}
        assert uplink(sent(MESSAGE | {"settings": fsk})).radio == {"f_cnt": 0, "rssi": -35, "snr": 5}


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("message", "members", "sentence"),
        [
            (MESSAGE, {"end_device_ids": None}, "the member end_device_ids: expected an object, got null"),
            (MESSAGE, {"end_device_ids": {}}, "the message names no device: it has no end_device_ids.device_id"),
            (MESSAGE, {"end_device_ids": {"dev_eui": ""}}, "it has no end_device_ids.dev_eui"),
            (MESSAGE | {"received_at": None}, {}, "the message has no time: uplink_message.received_at is missing"),
            (MESSAGE | {"frm_payload": "%%%"}, {}, "the member uplink_message.frm_payload: invalid base64"),
            (MESSAGE | {"app_s_key": {"key": "AA=="}}, {}, "turn off skip payload crypto"),
            (MESSAGE | {"decoded_payload": {"a": {"b": "\0"}}}, {}, "'a.b': the text has a NUL character"),
            (None, {}, "the message has neither uplink_message nor another event of The Things Stack"),
            (None, {"location_solved": {}}, "the member location_solved.location is missing"),
        ],
    )
    def test_the_member_and_what_to_do(self, message: Any, members: Any, sentence: str) -> None:
        with pytest.raises(RejectedMessageError) as rejection:
            unwrap(sent(message, **members))
        assert sentence in rejection.value.detail


class TestAnyBytes:
    @given(st.binary(max_size=200))
    def test_give_uplinks_none_or_a_rejection(self, body: bytes) -> None:
        uplink_vectors.check_law(unwrap, Received(body, RECEIVED_AT))

    @given(uplink_vectors.mutated("the_things_stack"))
    def test_nearly_right_messages_too(self, message: Received) -> None:
        uplink_vectors.check_law(unwrap, message)
