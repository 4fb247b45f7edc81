"""Cayenne LPP: its types, and frames that are not it."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_common.formats import Value
from sens_payloads.codecs.cayenne_lpp import decode
from support import uplink_vectors
from support.uplink_vectors import Case

NAMES = json.loads((uplink_vectors.FOLDER / "cayenne_lpp.json").read_text())["names"]


def named(case: Case) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for value in case["values"]:
        name = f"{NAMES[str(value['type'])]}_{value['channel']}"
        if isinstance(value["value"], dict):
            values |= {f"{name}.{part}": number for part, number in value["value"].items()}
        else:
            values[name] = value["value"]
    return values


class TestVectors:
    @uplink_vectors.parametrized("cayenne_lpp")
    def test_a_case_is_decoded_as_it_says(self, case: Case) -> None:
        frame = bytes.fromhex(case["hex"])
        if "error" in case:
            with pytest.raises(RejectedMessageError) as rejection:
                decode(frame, 1)
            assert rejection.value.reason == case["error"]
        else:
            values = decode(frame, 1)
            assert list(values.items()) == list(named(case).items())
            assert {type(value) for value in values.values()} == {float}


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("frame", "sentence"),
        [
            ("036701", "byte 2 of the frame: temperature of channel 3 has 1 of its 2 bytes; was the frame cut off?"),
            (
                "03670110 05",
                "byte 4 of the frame: a channel (5) without type and value; does the device send Cayenne LPP?",
            ),
            (
                "03670110 05ff01",
                "byte 5 of the frame: the type 255 is not one of Cayenne LPP, and nothing behind it can be read",
            ),
            (
                "03670110 036700ff",
                "byte 4 of the frame: temperature of channel 3 is there twice; give each sensor a channel of its own",
            ),
            ("0188 0676", "byte 2 of the frame: gps of channel 1 has 2 of its 9 bytes; was the frame cut off?"),
        ],
    )
    def test_the_byte_and_what_to_do(self, frame: str, sentence: str) -> None:
        with pytest.raises(RejectedMessageError) as rejection:
            decode(bytes.fromhex(frame), 1)
        assert rejection.value.detail.startswith(sentence)


class TestAnyBytes:
    @given(
        st.binary(max_size=64) | st.lists(st.sampled_from([0, 1, 3, 103, 104, 136, 113, 255]), max_size=40).map(bytes)
    )
    def test_give_values_or_a_rejection(self, frame: bytes) -> None:
        with suppress(RejectedMessageError):
            values = decode(frame, 1)
            assert values
            assert all(isinstance(value, float) and abs(value) < 2**32 for value in values.values())
