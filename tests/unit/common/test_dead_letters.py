import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import dead_letters
from sens_common.dead_letters import DeadLetter, Placed, Reason
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

NAMES = st.none() | st.tuples(st.from_regex(r"\A[a-z0-9]{1,20}\Z"), st.from_regex(r"\A[a-f0-9]{1,20}\Z"))
LETTER = DeadLetter(
    tenant="demo", device="d1", topic="t", payload=b"", received_at=1, reason="x", detail="", dead_lettered_at=2
)


def published(letter: DeadLetter, names: tuple[str, str] | None) -> DeadLetter:
    """Return the letter as of a tenant's device, or of nobody's."""
    if names is None:
        return msgspec.structs.replace(letter, tenant=None, device=None, topic=f"elsewhere/{letter.topic}")
    tenant, device = names
    return msgspec.structs.replace(letter, tenant=tenant, device=device, topic=f"sens/v1/{tenant}/{device}/telemetry")


class TestRoundTrip:
    @given(DEAD_LETTERS)
    def test_returns_a_single_one(self, letter: DeadLetter) -> None:
        assert dead_letters.decode(dead_letters.encode(letter)) == [Placed(0, letter)]

    @given(st.lists(st.tuples(st.integers(0, 100_000), DEAD_LETTERS, NAMES), min_size=1, max_size=5))
    def test_returns_those_of_an_envelope(self, given_: list[tuple[int, DeadLetter, tuple[str, str] | None]]) -> None:
        letters = [Placed(number, published(letter, names)) for number, letter, names in given_]
        assert dead_letters.decode(dead_letters.encode_together(letters)) == letters


class TestDecode:
    def test_keeps_a_reason_that_only_a_newer_writer_knows(self) -> None:
        letter = msgspec.structs.replace(LETTER, reason="new")

        assert dead_letters.decode(dead_letters.encode(letter))[0].letter.reason == "new"

    @given(st.binary(max_size=300))
    def test_answers_any_bytes_with_dead_letters_or_value_error(self, body: bytes) -> None:
        try:
            letters = dead_letters.decode(body)
        except ValueError:
            return
        assert letters

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            msgspec.msgpack.encode({"tenant": "demo"}),
            b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0",
            msgspec.msgpack.encode([]),
            dead_letters.encode_together([Placed(0, LETTER)] * (dead_letters.MAX_TOGETHER + 1)),
        ],
        ids=["empty", "JSON", "fields missing", "deeply nested", "none", "too many"],
    )
    def test_refuses_foreign_bytes(self, body: bytes) -> None:
        with pytest.raises(ValueError, match=r"not a dead letter"):
            dead_letters.decode(body)


class TestSubject:
    def test_of_an_envelope_is_one_a_tenant(self) -> None:
        assert dead_letters.batch_subject("demo", "5f0-17", 0) == "sens.dead_letters.demo.5f0-17-p0"

    def test_of_a_single_one_names_its_origin(self) -> None:
        assert dead_letters.single_subject("demo", ("5f0-17", 3)) == "sens.dead_letters.demo.5f0-17-3"
        assert dead_letters.single_subject("demo", ("r5f0-17-3", None)) == "sens.dead_letters.demo.r5f0-17-3"

    def test_puts_letters_without_a_tenant_where_no_tenant_can_be(self) -> None:
        assert dead_letters.single_subject(None, ("5f0-17", 3)) == "sens.dead_letters.~.5f0-17-3"
        assert dead_letters.tenant_subject(None) != dead_letters.tenant_subject("~")

    def test_keeps_a_tenant_with_a_dot_in_one_token(self) -> None:
        assert dead_letters.tenant_subject("acme.eu") == "sens.dead_letters.acme%2Eeu"


class TestReason:
    def test_of_an_invalid_topic_is_what_its_error_carries(self) -> None:
        assert InvalidTopicError("").reason == Reason.INVALID_TOPIC
