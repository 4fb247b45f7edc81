"""A payload that is not JSON: the dead letter says what it is and what to do."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_telemetry_worker.decoders import native

JSON = b'{"temperature": 21.5, "door_open": false}'
# Timestamp, one metric (name "t", datatype double, value), sequence number: Eclipse Sparkplug 3.0.0, section 6.4.6.
SPARKPLUG = bytes.fromhex("08 80 c0 e4 a8 d1 33 12 0e 0a 01 74 20 0a 69 00 00 00 00 00 80 35 40 18 00")


def sentence(payload: bytes) -> str:
    """Return the sentence of the refusal, which is the same on both ways through the decoder."""
    sentences = []
    for way in (native.decode, native.decode_if_flat):
        with pytest.raises(RejectedMessageError) as refusal:
            way(payload, 1_769_860_800_000_000)
        assert refusal.value.reason == Reason.MALFORMED_PAYLOAD
        sentences.append(refusal.value.detail)
    assert sentences[0] == sentences[1]
    return sentences[0]


class TestSentence:
    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            (b"nan", ["the payload is nan, which is not a number", "null"]),
            (b"-inf", ["the payload is -inf, which is not a number"]),
            (b'{"temperature": nan}', ["nan (line 1 column 17) is not a number in JSON", "null"]),
            (b'{"a": 1,\n "temperature": NaN}', ["NaN (line 2 column 17)"]),
            (b'{"a": -Infinity}', ["Infinity (line 1 column 8)"]),
            (b'{"a": None}', ["None (line 1 column 7) is not JSON; write null"]),
            (b'{"a": True}', ["write true"]),
            (b"{'a': 1}", ["double quotes"]),
            (b"{a: 1}", ["the name a", "has no quotes"]),
            (b"ON", ["the payload is the text 'ON', not JSON", '{"state": "ON"}']),
            (b"online\n", ["'online'"]),
            (b"21,5", ["'21,5'", "decimal point"]),
            ("21.5 °C".encode(), ["no unit"]),
            (b"temperature=21.5 humidity=40", ["pairs with ="]),
            (b"<a>1</a>", ["XML"]),
            (JSON.decode().encode("utf-16"), ["UTF-16", "UTF-8"]),
            (JSON.decode().encode("utf-16-le"), ["UTF-16"]),
            (JSON.decode().encode("utf-16-be"), ["UTF-16"]),
            (JSON.decode().encode("utf-32"), ["UTF-32"]),
            (b"\xef\xbb\xbf" + JSON, ["byte order mark"]),
            (b'{"a": "\xe9t\xe9"}', ["not UTF-8: byte 8 is 0xe9"]),
            (gzip.compress(JSON, mtime=0), ["compressed with gzip", "uncompressed"]),
            (zlib.compress(JSON), ["compressed with zlib"]),
            (bytes.fromhex("28b52ffd2000010000"), ["compressed with Zstandard"]),
            (SPARKPLUG, ["Sparkplug B"]),
            (b"\x82\xa1a\x01", ["binary data"]),
            (JSON + b"\0", ["ends with a NUL character"]),
            (JSON + b"\0\0\0", ["ends with a NUL character"]),
            (JSON + JSON, ["several JSON documents"]),
            (JSON + b"\n" + JSON + b"\n", ["several JSON documents"]),
            (JSON + b",\n" + JSON, ["several JSON documents"]),
            (JSON[:20], ["ends in the middle", "20 bytes"]),
            (b"", ["the payload is empty"]),
            (b"  \n", ["the payload is empty"]),
            (b"\0\0", ["the payload is empty"]),
            (b'{"a": 01}', ["line 1 column"]),
            (b'{"a": 1,}', ["line 1 column"]),
        ],
    )
    def test_says_what_the_payload_is(self, payload: bytes, said: list[str]) -> None:
        detail = sentence(payload)
        assert all(part in detail for part in said), detail

    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            (
                "21.5",
                'the payload is a number, not an object or an array of objects; give the value a name, for example {"value": 21.5}',
            ),
            ('"ON"', '{"value": "ON"}'),
            ("true", '{"value": true}'),
            ("null", "the payload is null"),
            (f'"{"x" * 1000}"', '{"value": 21.5}'),
        ],
    )
    def test_of_a_bare_value_says_how_to_wrap_it(self, payload: str, said: str) -> None:
        with pytest.raises(RejectedMessageError) as refusal:
            native.decode(payload.encode(), 0)
        assert said in refusal.value.detail

    @settings(max_examples=300, deadline=None)
    @given(
        st.binary(max_size=60)
        | st.binary(max_size=30).map(lambda rest: b"\x08" + rest)
        | st.binary(max_size=20).map(lambda rest: JSON + rest)
        | st.text("{}[]'\"=,:.0123456789nafiNTrueo \0", max_size=30).map(str.encode)
    )
    def test_is_short_and_one_line_whatever_comes(self, payload: bytes) -> None:
        sentences = []
        try:
            native.decode(payload, 1_769_860_800_000_000)
        except RejectedMessageError as refusal:
            sentences.append(refusal.detail)
        assert all(0 < len(each) < 500 and "\n" not in each for each in sentences)
