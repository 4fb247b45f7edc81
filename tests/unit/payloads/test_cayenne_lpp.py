"""Cayenne LPP: its types, and frames that are not it."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_common.formats import Value
from sens_payloads.codecs.cayenne_lpp import decode, decode_alike
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


class TestALayoutThatIsRemembered:
    def test_gives_the_same_values_in_the_same_order(self) -> None:
        frame = bytes.fromhex("0367fff0 0568c8 010001")
        first = decode(frame, 1)

        assert list(decode(frame, 1).items()) == list(first.items())
        assert list(first.items()) == [("temperature_3", -1.6), ("relative_humidity_5", 100.0), ("digital_in_1", 1.0)]
        assert decode(bytes.fromhex("03670010 0568ff 010002"), 1) == {
            "temperature_3": 1.6,
            "relative_humidity_5": 127.5,
            "digital_in_1": 2.0,
        }

    def test_is_not_taken_for_a_frame_of_equal_length_and_beginning(self) -> None:
        decode(bytes.fromhex("07670001 010001"), 1)

        assert decode(bytes.fromhex("07670001 020001"), 1) == {"temperature_7": 0.1, "digital_in_2": 1.0}
        with pytest.raises(RejectedMessageError, match="the type 255 is not one"):
            decode(bytes.fromhex("07670001 01ff01"), 1)


class TestAnyBytes:
    @given(
        st.binary(max_size=64) | st.lists(st.sampled_from([0, 1, 3, 103, 104, 136, 113, 255]), max_size=40).map(bytes)
    )
    def test_give_values_or_a_rejection(self, frame: bytes) -> None:
        with suppress(RejectedMessageError):
            values = decode(frame, 1)
            assert values
            assert all(isinstance(value, float) and abs(value) < 2**32 for value in values.values())


class TestFramesTogether:
    @given(
        st.lists(
            st.tuples(st.integers(-32_768, 32_767), st.integers(0, 255)).map(
                lambda values: b"\x01\x67" + values[0].to_bytes(2, signed=True) + b"\x02\x68" + bytes([values[1]])
            ),
            min_size=1,
            max_size=5,
        ),
        st.sampled_from(
            [b"", b"\x01\x67\x00\x01\x03\x68\x01", b"\x01\x67\x00\x01\x02\x68", b"\x01\x67\x00\x01\x02\x00\x01"]
        ),
    )
    def test_have_the_values_that_each_has_by_itself(self, frames: list[bytes], other: bytes) -> None:
        decoded = [decode(frame, 1) for frame in frames]
        assert repr(decode_alike(frames)) == repr(decoded)
        if other:
            assert decode_alike([*frames, other]) is None
            assert decode_alike([frames[0], other, frames[0]]) is None

    def test_that_no_frame_before_was_like_are_left_to_be_decoded_one_by_one(self) -> None:
        assert decode_alike([b"\xf3\x67\x00\x01"]) is None
        assert decode_alike([b""]) is None
