import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import envelope
from sens_common.envelope import Message

MICROSECONDS = st.integers(min_value=0, max_value=2**53)
MESSAGES = st.lists(
    st.builds(
        Message,
        topic=st.text(max_size=100),
        payload=st.binary(max_size=200),
        received_at=MICROSECONDS,
        packet_id=st.integers(min_value=0, max_value=65_535),
    ),
    max_size=20,
)
DEEP = b"\x91" * 100_000 + b"\xc0"


class TestRoundTrip:
    @given(MESSAGES)
    def test_returns_what_was_encoded(self, messages: list[Message]) -> None:
        assert envelope.decode(envelope.encode(messages)) == messages

    def test_of_an_example_is_the_documented_arrays(self) -> None:
        body = envelope.encode([Message("sens/v1/demo/d1/telemetry", b'{"t":1}', 1_700_000_000_000_000, 7)])

        assert msgspec.msgpack.decode(body) == [["sens/v1/demo/d1/telemetry", b'{"t":1}', 1_700_000_000_000_000, 7]]


class TestMark:
    @given(MESSAGES, MESSAGES)
    def test_is_left_out_by_who_stores(self, messages: list[Message], discarded: list[Message]) -> None:
        marks = [envelope.mark(message) for message in discarded if message.packet_id]
        body = envelope.encode([*marks, *messages, *marks])
        assert envelope.decode(body) == messages
        assert envelope.decode_with_marks(body) == [*marks, *messages, *marks]

    def test_has_few_bytes(self) -> None:
        assert len(envelope.encode([envelope.mark(Message("t" * 100, bytes(1000), 2**53, 65_535))])) <= 24

    def test_tells_topic_and_payload_apart(self) -> None:
        assert envelope.digest(Message("a", b"bc", 1)) != envelope.digest(Message("ab", b"c", 1))
        assert envelope.digest(Message("a", b"bc", 1)) == envelope.digest(Message("a", b"bc", 2, 3))


class TestDecode:
    def test_accepts_messages_of_a_newer_writer_with_more_elements(self) -> None:
        body = msgspec.msgpack.encode([["topic", b"payload", 1, 2, "something new", {"a": 1}]])

        assert envelope.decode(body) == [Message("topic", b"payload", 1, 2)]

    def test_accepts_messages_of_an_older_writer_without_packet_id(self) -> None:
        assert envelope.decode(msgspec.msgpack.encode([["topic", b"payload", 1]])) == [
            Message("topic", b"payload", 1, 0)
        ]

    @given(st.binary(max_size=300))
    def test_answers_any_bytes_with_messages_or_value_error(self, body: bytes) -> None:
        try:
            messages = envelope.decode(body)
        except ValueError:
            return
        assert all(isinstance(message, Message) for message in messages)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            msgspec.msgpack.encode({"topic": "t"}),
            msgspec.msgpack.encode([["topic", "text, not binary", "1"]]),
            msgspec.msgpack.encode([["topic", b"payload"]]),
            msgspec.msgpack.encode([["topic", b"payload", 1]]) + b"\x00",
            b"\x91\x93\xa2\xff\xfe\xc4\x01p\x01",
            b"\xdd\xff\xff\xff\xff",
            b"\x91\x95\xa1t\xc4\x01p\x01\x00" + DEEP,
        ],
        ids=[
            "empty", "JSON", "a map", "wrong types", "no time", "trailing bytes", "invalid UTF-8", "truncated", "deeply nested",
        ],
    )  # fmt: skip
    def test_refuses_foreign_bytes(self, body: bytes) -> None:
        with pytest.raises(ValueError, match=r"not an envelope"):
            envelope.decode(body)


class TestCounts:
    def test_come_back_as_they_were(self) -> None:
        counts = {"demo": 3, "~": 1}
        assert envelope.decode_counts(envelope.encode_counts(counts)) == counts

    @pytest.mark.parametrize("header", ["", "[]", '{"demo": -1}', '{"demo": "3"}', "{" * 5000])
    def test_that_are_none_are_refused(self, header: str) -> None:
        with pytest.raises(ValueError, match="not counts by tenant"):
            envelope.decode_counts(header)
