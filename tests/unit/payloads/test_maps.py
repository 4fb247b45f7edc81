"""Maps in MessagePack and CBOR, read as JSON is."""

import struct
from collections.abc import Callable
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.formats import cbor, cbor_values, messagepack, messagepack_values
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

NOON = 1_788_523_200_000_000  # 2026-09-04T12:00:00Z
RULES = {"rules": [{"topic": "t/{device}", "time": "at"}, {"topic": "u/{device}/{metric}"}]}
FORMATS: dict[str, Any] = {"messagepack": messagepack, "cbor": cbor}
ENCODE: dict[str, Callable[[object], bytes]] = {"messagepack": msgspec.msgpack.encode, "cbor": cbor2.dumps}


def read(name: str, body: bytes, topic: str = "t/d1") -> Unwrapped:
    module = FORMATS[name]
    found: Unwrapped = module.unwrap(Received(body, NOON, topic), module.Settings.model_validate(RULES))
    return found


def refusal(name: str, body: bytes) -> RejectedMessageError:
    with pytest.raises(RejectedMessageError) as caught:
        read(name, body)
    return caught.value


@pytest.mark.parametrize("name", FORMATS)
class TestBoth:
    def test_read_what_json_reads(self, name: str) -> None:
        document = {"at": 1788523200, "a": 21.5, "b": {"c": [1, True, None, "x"]}, "d": -(2**40), 7: 1}
        assert read(name, ENCODE[name](document)) == [
            Uplink("d1", NOON, {"a": 21.5, "b.c.0": 1, "b.c.1": True, "b.c.3": "x", "d": -(2**40), "7": 1})
        ]

    def test_read_single_values(self, name: str) -> None:
        assert read(name, ENCODE[name](21.5), "u/d1/t") == [Uplink("d1", None, {"t": 21.5})]

    def test_an_empty_message_removes_a_retained_one(self, name: str) -> None:
        assert read(name, b"") == WithoutMeasurements("event")

    @pytest.mark.parametrize(
        ("document", "reason"),
        [
            ({"a": b"x"}, Reason.UNSUPPORTED_VALUE),
            ({"a": float("nan")}, Reason.UNSUPPORTED_VALUE),
            ({"a": float("inf")}, Reason.UNSUPPORTED_VALUE),
            ({"a": 2**63 + 1}, Reason.UNSUPPORTED_VALUE),
            ({"1": 1, 1: 2}, Reason.MALFORMED_PAYLOAD),
            ({1.5: 1}, Reason.MALFORMED_PAYLOAD),
            ({"at": float("nan"), "a": 1}, Reason.INVALID_TIME),
            ({"at": float("inf"), "a": 1}, Reason.INVALID_TIME),
        ],
        ids=str,
    )
    def test_refuse_what_cannot_be_stored(self, name: str, document: object, reason: Reason) -> None:
        assert refusal(name, ENCODE[name](document)).reason == reason

    def test_refuse_bytes_behind_the_end(self, name: str) -> None:
        error = refusal(name, ENCODE[name]({"a": 1}) * 2)
        assert error.reason == Reason.MALFORMED_PAYLOAD
        assert "send each document as a message of its own" in error.detail

    def test_refuse_what_was_cut_off(self, name: str) -> None:
        body = ENCODE[name]({"abc": [1, 2.5, "text"]})
        for end in range(1, len(body)):
            assert refusal(name, body[:end]).reason == Reason.MALFORMED_PAYLOAD
        assert "was it cut off?" in refusal(name, body[:-2]).detail

    def test_refuse_what_is_nested_too_deep(self, name: str) -> None:
        array, map_ = (b"\x91", b"\x81\xa1a") if name == "messagepack" else (b"\x81", b"\xa1\x61a")
        for start in (array, map_):
            for depth in (20, 100_000 // len(start)):
                assert refusal(name, map_ + start * depth + b"\x01").reason == Reason.TOO_LARGE

    def test_refuse_what_is_too_large(self, name: str) -> None:
        assert refusal(name, b"\xc0" * 262_145).reason == Reason.TOO_LARGE

    @given(data=st.data())
    def test_any_bytes_give_uplinks_or_a_rejection(self, name: str, data: st.DataObject) -> None:
        body = data.draw(st.binary(max_size=60))
        for each in (body, (b"\x81\xa1a" if name == "messagepack" else b"\xa1\x61a") + body):
            try:
                read(name, each)
            except RejectedMessageError:
                continue

    @given(
        document=st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats()
            | st.text(max_size=3)
            | st.binary(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
        at=st.integers(0, 40),
        inserted=st.binary(max_size=2),
    )
    def test_mutated_documents_do(self, name: str, document: object, at: int, inserted: bytes) -> None:
        body = ENCODE[name](document)
        for each in (body, body[:at] + inserted + body[at + 1 :]):
            try:
                read(name, each)
            except RejectedMessageError:
                continue


class TestMessagePack:
    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats(allow_nan=False)
            | st.text()
            | st.binary(),
            lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
        )
    )
    def test_reads_what_msgspec_writes(self, document: object) -> None:
        assert messagepack_values.decode(msgspec.msgpack.encode(document)) == document

    def test_refuses_equal_keys(self) -> None:
        error = refusal("messagepack", b"\x82\xa1a\x01\xa1a\x02")
        assert error.detail == "the key 'a' is there twice in one map"

    @pytest.mark.parametrize(
        "data",
        [
            b"\xd6\xff" + struct.pack(">I", 1_788_523_200),
            b"\xd7\xff" + struct.pack(">Q", 500 << 34 | 1_788_523_200),
            b"\xc7\x0c\xff" + struct.pack(">Iq", 500, 1_788_523_200),
        ],
    )
    def test_reads_timestamps(self, data: bytes) -> None:
        assert read("messagepack", b"\x82\xa2at" + data + b"\xa1a\x01") == [Uplink("d1", NOON, {"a": 1})]

    @pytest.mark.parametrize("data", [b"\xd4\x01\x00", b"\xc7\x03\xff\x00\x00\x00", b"\xd7\xff" + b"\xff" * 8])
    def test_refuses_other_extensions(self, data: bytes) -> None:
        assert refusal("messagepack", b"\x81\xa1a" + data).reason == Reason.UNSUPPORTED_VALUE

    def test_a_length_beyond_the_end_costs_nothing(self) -> None:
        for body in (
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
        ):
            assert refusal("messagepack", body).reason == Reason.MALFORMED_PAYLOAD
        assert refusal("messagepack", b"\xc1").detail == "the message is not MessagePack: byte 1 is 0xc1"


class TestCbor:
    def test_refuses_equal_keys(self) -> None:
        error = refusal("cbor", bytes.fromhex("a2616101616102"))
        assert error.reason == Reason.MALFORMED_PAYLOAD
        assert "'a'" in error.detail

    @pytest.mark.parametrize("time", ["c11a6a9ab3c0", "c0" + cbor2.dumps("2026-09-04T12:00:00Z").hex()])
    def test_reads_times(self, time: str) -> None:
        time = time if time.startswith("c0") else "c1" + cbor2.dumps(1_788_523_200).hex()
        assert read("cbor", bytes.fromhex("a2626174" + time + "616101")) == [Uplink("d1", NOON, {"a": 1})]

    def test_reads_half_floats_and_decimal_fractions(self) -> None:
        body = bytes.fromhex("a3" + "6161f94d60" + "6162c48221196ab3" + "6163f7")
        assert read("cbor", body) == [Uplink("d1", None, {"a": 21.5, "b": 273.15})]

    @pytest.mark.parametrize(
        "value",
        ["c24101", "c34101", "c5821a3b9aca0001", "d8236428612b29", "d81c80", "d81d00", "d81900", "c4821a3b9aca0001"],
    )
    def test_refuses_other_tags(self, value: str) -> None:
        error = refusal("cbor", bytes.fromhex("a16161" + value))
        assert error.reason == Reason.UNSUPPORTED_VALUE
        assert (
            f"the CBOR tag {int(value[2:4], 16) if value.startswith('d8') else int(value[1])} is not read"
            in error.detail
        )

    def test_refuses_unknown_tags_and_simple_values(self) -> None:
        for value in ("d9ffff01", "e5"):
            assert refusal("cbor", bytes.fromhex("a16161" + value)).reason == Reason.UNSUPPORTED_VALUE

    def test_a_length_beyond_the_end_costs_nothing(self) -> None:
        for body in (
            "9bffffffffffffffff",
            "9a0fffffff",
            "bb7fffffffffffffff",
            "7b7fffffffffffffff",
            "5b7fffffffffffffff",
        ):
            assert refusal("cbor", bytes.fromhex(body)).reason == Reason.MALFORMED_PAYLOAD

    def test_knows_all_tags_of_the_library(self) -> None:
        # A tag that the library makes something of, and that is not refused, would be a way around the checks.
        for tag in range(300):
            for inner in (b"\x01", b"\x61a", b"\x41a", b"\x82\x01\x01", b"\x80"):
                head = (
                    bytes([0xC0 | tag]) if tag < 24 else bytes([0xD8, tag]) if tag < 256 else b"\xd9" + tag.to_bytes(2)
                )
                try:
                    found = cbor_values.decode(head + inner)
                except RejectedMessageError:
                    continue
                assert type(found) in {cbor2.CBORTag, int, float, str, bytes, list}, tag
