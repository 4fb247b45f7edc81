import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import dead_letters
from sens_common.dead_letters import DeadLetter, Reason
from sens_common.errors import InvalidTopicError

MICROSECONDS = st.integers(min_value=0, max_value=2**53)
DEAD_LETTERS = st.builds(
    DeadLetter,
    tenant=st.none() | st.text(max_size=63),
    device=st.none() | st.text(max_size=63),
    topic=st.text(max_size=100),
    payload=st.binary(max_size=200),
    received_at=MICROSECONDS,
    reason=st.sampled_from(list(Reason)).map(str),
    detail=st.text(max_size=100),
    dead_lettered_at=MICROSECONDS,
    replays=st.integers(min_value=0, max_value=100),
)


class TestRoundTrip:
    @given(DEAD_LETTERS)
    def test_returns_what_was_encoded(self, letter: DeadLetter) -> None:
        assert dead_letters.decode(dead_letters.encode(letter)) == letter


class TestDecode:
    def test_keeps_a_reason_that_only_a_newer_writer_knows(self) -> None:
        letter = DeadLetter(
            tenant="demo",
            device="d1",
            topic="t",
            payload=b"",
            received_at=1,
            reason="new",
            detail="",
            dead_lettered_at=2,
        )

        assert dead_letters.decode(dead_letters.encode(letter)).reason == "new"

    @given(st.binary(max_size=300))
    def test_answers_any_bytes_with_a_dead_letter_or_value_error(self, body: bytes) -> None:
        try:
            letter = dead_letters.decode(body)
        except ValueError:
            return
        assert isinstance(letter, DeadLetter)

    @pytest.mark.parametrize(
        "body",
        [b"", b"null", msgspec.msgpack.encode({"tenant": "demo"}), b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0"],
        ids=["empty", "JSON", "fields missing", "deeply nested"],
    )
    def test_refuses_foreign_bytes(self, body: bytes) -> None:
        with pytest.raises(ValueError, match=r"not a dead letter"):
            dead_letters.decode(body)


class TestSubject:
    def test_has_one_subject_for_each_origin(self) -> None:
        assert dead_letters.subject("demo", "5f0-17-3") == "sens.dead_letters.demo.5f0-17-3"

    def test_puts_letters_without_a_tenant_where_no_tenant_can_be(self) -> None:
        assert dead_letters.subject(None, "5f0-17-3") == "sens.dead_letters.~.5f0-17-3"
        assert dead_letters.tenant_subject(None) != dead_letters.tenant_subject("~")

    def test_keeps_a_tenant_with_a_dot_in_one_token(self) -> None:
        assert dead_letters.tenant_subject("acme.eu") == "sens.dead_letters.acme%2Eeu"


class TestReason:
    def test_of_an_invalid_topic_is_what_its_error_carries(self) -> None:
        assert InvalidTopicError("").reason == Reason.INVALID_TOPIC
