"""InfluxDB's line protocol."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.formats.line_protocol import Settings, unwrap
from sens_payloads.formats.line_protocol_text import lines
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "line_protocol.json").read_text())[
    "cases"
]
NOON = 1_788_523_200_000_000  # 2026-09-04T12:00:00Z


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
class TestVectors:
    def test_lines(self, case: dict[str, Any]) -> None:
        if "error" in case:
            with pytest.raises(RejectedMessageError) as caught:
                unwrap(Received(case["body"].encode(), NOON), Settings(device="d1"))
            assert caught.value.reason == case["error"]
            return
        found = [
            {"measurement": line.measurement, "tags": dict(line.tags), "time_ns": line.time, "values": line.fields}
            for line in lines(case["body"].encode())
        ]
        assert found == case["readings"]

    def test_uplinks(self, case: dict[str, Any]) -> None:
        if "error" in case:
            return
        # All instants of the vectors are cut to one microsecond, so that each line needs a device of its own.
        for line, reading in zip(lines(case["body"].encode()), case["readings"], strict=True):
            body = (
                case["body"].encode() if len(case["readings"]) == 1 else f"m f={line.fields['f']} {line.time}".encode()
            )
            time = reading["time_ns"]
            assert unwrap(Received(body, NOON), Settings(device="d1", metric="{field}")) == [
                Uplink("d1", None if time is None else time // 1000, reading["values"])
            ]


def read(body: str, **settings: Any) -> Unwrapped:
    return unwrap(Received(body.encode(), NOON), Settings(**{"device": "{host}"} | settings))


def refusal(body: str, **settings: Any) -> RejectedMessageError:
    with pytest.raises(RejectedMessageError) as caught:
        read(body, **settings)
    return caught.value


class TestDevices:
    def test_are_named_by_tags(self) -> None:
        body = "cpu,host=h1,site=x usage=1\ncpu,host=h2,site=x usage=2"
        assert read(body, device="{site}-{host}") == [
            Uplink("x-h1", None, {"cpu.usage": 1}),
            Uplink("x-h2", None, {"cpu.usage": 2}),
        ]

    def test_need_their_tag(self) -> None:
        error = refusal("cpu,host=h1 a=1\ncpu a=1")
        assert error.reason == Reason.MALFORMED_PAYLOAD
        assert error.detail == "line 2: it has no tag host, which is in the device's name"

    def test_need_a_name_that_is_allowed(self) -> None:
        assert "line 1: 'a b' can't be the name" in refusal(r"cpu,host=a\ b a=1").detail
        assert read(r"cpu,host=a\ b a=1", other_characters="replace") == [Uplink("a_b", None, {"cpu.a": 1})]


class TestMetrics:
    def test_are_named_as_the_source_says(self) -> None:
        body = "cpu,host=h,cpu=cpu0 usage=1\nmem,host=h used=2i"
        assert read(body, metric="{measurement}[.{cpu}].{field}") == [
            Uplink("h", None, {"cpu.cpu0.usage": 1, "mem.used": 2})
        ]

    def test_of_equal_time_must_not_differ(self) -> None:
        error = refusal(
            "cpu,host=h,cpu=cpu0 usage=1 1788523200000000000\ncpu,host=h,cpu=cpu1 usage=2 1788523200000000999"
        )
        assert error.reason == Reason.CONFLICTING_VALUE
        assert error.detail.startswith("line 2: 'cpu.usage' of 'h' has another value")
        assert error.detail.endswith("(host, cpu)")
        assert refusal("m,host=h a=1\nm,host=h a=t").reason == Reason.CONFLICTING_VALUE

    def test_may_be_repeated(self) -> None:
        assert read("m,host=h a=1\nm,host=h a=1,b=2") == [Uplink("h", None, {"m.a": 1, "m.b": 2})]


class TestTimes:
    @pytest.mark.parametrize(
        ("precision", "time"),
        [("ns", 1_788_523_200_000_000_999), ("us", NOON), ("ms", 1_788_523_200_000), ("s", 1_788_523_200)],
    )
    def test_have_a_precision(self, precision: str, time: int) -> None:
        assert read(f"m,host=h a=1 {time}", precision=precision) == [Uplink("h", NOON, {"m.a": 1})]

    def test_are_plausible(self) -> None:
        error = refusal("m,host=h a=1 1788523200000")
        assert error.reason == Reason.IMPLAUSIBLE_TIME
        assert error.detail.startswith("line 1: the time 1788523200000 ns is 1970-01-01T00:29:48.523200Z, before 2000")
        assert refusal(f"m,host=h a=1 {'9' * 20}").reason == Reason.IMPLAUSIBLE_TIME


class TestSentences:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("m,host=h a=1\n\nm,host= b=2", "line 3 column 2: here a measurement or a tag is expected"),
            ("m,host=h", "line 1 column 9: the line has no field"),
            ("m,host=h a=1,", "line 1 column 14: here a field is expected"),
            ('m,host=h a="x', "line 1 column 10: here a field is expected"),
            ("m,host=h a=yes", "line 1 column 12: 'yes' is not a value"),
            ("m,host=h a=-1u", "line 1 column 12: '-1u' is not a value"),
            ("m,host=h a=1 now", "line 1 column 14: here a time"),
            ("m,host=h a=1 1 2", "line 1 column 15: here a time"),
            ("m,host=h a=1,a=2", "line 1 column 14: the field 'a' is there twice"),
            ("\nm,host=h,host=i a=1", "line 2 column 1: the tag 'host' is there twice"),
            ("# nothing\n", "the message has no line"),
        ],
    )
    def test_say_where_and_what_to_do(self, body: str, said: str) -> None:
        error = refusal(body)
        assert error.reason == Reason.MALFORMED_PAYLOAD
        assert error.detail.startswith(said)

    def test_name_a_byte(self) -> None:
        with pytest.raises(RejectedMessageError, match="byte 3 is 0xff"):
            unwrap(Received(b"m \xff=1", NOON), Settings(device="d"))


class TestBounds:
    def test_of_readings_and_values(self) -> None:
        assert refusal("\n".join(f"m,host=h{number} a=1" for number in range(1001))).reason == Reason.TOO_LARGE
        assert refusal("m,host=h " + ",".join(f"a{number}=1" for number in range(1001))).reason == Reason.TOO_LARGE
        assert refusal("#" * 262_145).reason == Reason.TOO_LARGE
        assert refusal(f"m,host=h {'a' * 201}=1").reason == Reason.INVALID_METRIC
        assert refusal(f'm,host=h a="{"x" * 4097}"').reason == Reason.TOO_LARGE
        assert refusal("m,host=h a=" + "9" * 5000).reason == Reason.MALFORMED_PAYLOAD

    def test_settings(self) -> None:
        for wrong in ({}, {"device": ""}, {"device": "{a"}, {"device": "d", "precision": "h"}, {"device": "d", "x": 1}):
            with pytest.raises(ValidationError):
                Settings.model_validate(wrong)

    def test_an_empty_message_removes_a_retained_one(self) -> None:
        assert unwrap(Received(b"", NOON, "t"), Settings(device="d")) == WithoutMeasurements("event")


TOKENS = [
    "m",
    ",",
    "=",
    " ",
    "\n",
    "\r\n",
    "\\",
    '"',
    "1",
    "1i",
    "-",
    "1u",
    "t",
    "#",
    "é",
    "\0",
    "1788523200000000000",
    "e9",
]


class TestAnyBytes:
    @given(st.lists(st.sampled_from(TOKENS), max_size=20).map("".join) | st.text(max_size=30))
    def test_give_uplinks_or_a_rejection(self, body: str) -> None:
        try:
            found = unwrap(Received(body.encode(), NOON), Settings(device="{m}", other_characters="replace"))
        except RejectedMessageError:
            return
        assert isinstance(found, list)
        assert all(uplink.fields for uplink in found)

    @given(st.sampled_from(CASES), st.integers(0, 80), st.integers(0, 3), st.sampled_from(TOKENS))
    def test_mutated_vectors_do(self, case: dict[str, Any], at: int, length: int, token: str) -> None:
        body = case["body"][:at] + token + case["body"][at + length :]
        try:
            unwrap(Received(body.encode(), NOON), Settings(device="d"))
        except RejectedMessageError:
            return

    @given(st.binary(max_size=40))
    def test_binary_data_does(self, body: bytes) -> None:
        try:
            unwrap(Received(body, NOON), Settings(device="d"))
        except RejectedMessageError:
            return

    @given(
        st.dictionaries(
            st.text('a,= \\"é', min_size=1, max_size=4).filter(
                lambda text: not text.endswith("\\") and "\\" not in text
            ),
            st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text('a,= \\"é\n#', max_size=6),
            min_size=1,
            max_size=4,
        )
    )
    def test_what_is_written_is_read(self, fields: dict[str, float | bool | str]) -> None:
        def written(value: float | bool | str) -> str:
            if isinstance(value, str):
                return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            return str(value).lower() if isinstance(value, bool) else repr(value)

        def escaped(name: str) -> str:
            return name.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")

        body = "m " + ",".join(f"{escaped(name)}={written(value)}" for name, value in fields.items())
        assert [line.fields for line in lines(body.encode())] == [fields]
