"""The native payload: laws that hold for every payload."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import Measurement, Value
from sens_telemetry_worker.decoders import native

RECEIVED_AT = 1_769_860_800_250_000  # 2026-01-31T12:00:00.25Z
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The same examples in every run: a failure is a change's fault.
stable = settings(derandomize=True, max_examples=150, deadline=None, database=None)

type Scalar = bool | int | float | str
type Tree = Mapping[str, Tree | Scalar]

names = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="."), min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
exact_integers = st.integers(-(2**53), 2**53) | st.integers(-1000, 1000).map(lambda n: n << 80)
scalars: st.SearchStrategy[Scalar] = (
    st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | exact_integers | texts
)
instants = st.integers(946_684_800_000_000, RECEIVED_AT + 86_400_000_000)

keys = names.filter(lambda name: name not in {"ts", "time", "timestamp"})
members: st.SearchStrategy[dict[str, Scalar]] = st.dictionaries(keys, scalars, min_size=1, max_size=6)
trees: st.SearchStrategy[Tree] = st.one_of(
    members, st.dictionaries(keys, st.one_of(scalars, members), min_size=1, max_size=6)
)
json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "ts", "time", "a.b", ""]) | st.text(), children)
    ),
    max_leaves=20,
)


def stored(value: Scalar) -> Value:
    return float(value) if type(value) is int else value


def flatten(tree: Tree, prefix: str = "") -> dict[str, Value]:
    flat: dict[str, Value] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = stored(value)
    return flat


def attempt(payload: bytes) -> list[Measurement] | RejectedMessageError:
    """Return what the decoder returns or raises; every other error is a failure."""
    try:
        return native.decode(payload, RECEIVED_AT)
    except RejectedMessageError as error:
        return error


def assert_decoded_or_rejected(payload: bytes) -> None:
    outcome = attempt(payload)
    if isinstance(outcome, RejectedMessageError):
        assert outcome.reason in set(Reason)
        assert 0 < len(outcome.detail) < 500
        return
    assert outcome
    for reading in outcome:
        assert type(reading) is Measurement
        assert type(reading.value) in {bool, float, str}
        assert 1 <= len(reading.metric) <= 200


class TestAnyPayload:
    @stable
    @given(st.binary(max_size=200))
    def test_of_random_bytes_is_decoded_or_rejected(self, payload: bytes) -> None:
        assert_decoded_or_rejected(payload)

    @stable
    @given(json_values, st.booleans())
    def test_of_random_structure_is_decoded_or_rejected(self, value: object, ascii_only: bool) -> None:
        assert_decoded_or_rejected(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))

    @stable
    @given(trees, st.data())
    def test_with_one_byte_changed_is_decoded_or_rejected(self, tree: Tree, data: st.DataObject) -> None:
        payload = bytearray(json.dumps(tree).encode())
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        assert_decoded_or_rejected(bytes(payload))


class TestValidObject:
    @stable
    @given(trees, st.booleans())
    def test_comes_back_with_its_values_and_types(self, tree: Tree, ascii_only: bool) -> None:
        payload = json.dumps(tree, ensure_ascii=ascii_only).encode()
        expected = [Measurement(name, RECEIVED_AT, value) for name, value in flatten(tree).items()]
        assert repr(native.decode(payload, RECEIVED_AT)) == repr(expected)

    @stable
    @given(trees, instants, st.data())
    def test_with_a_key_repeated_is_refused(self, tree: Tree, instant: int, data: st.DataObject) -> None:
        pairs = [*tree.items(), ("ts", instant)]
        repeated = data.draw(st.sampled_from(pairs))
        pairs.insert(data.draw(st.integers(0, len(pairs))), repeated)
        ascii_only = data.draw(st.booleans())
        payload = ",".join(f"{json.dumps(k, ensure_ascii=ascii_only)}:{json.dumps(v)}" for k, v in pairs)
        outcome = attempt(f"{{{payload}}}".encode())
        assert isinstance(outcome, RejectedMessageError)
        assert outcome.reason == Reason.MALFORMED_PAYLOAD

    @stable
    @given(st.lists(st.tuples(members, instants), min_size=2, max_size=5))
    def test_in_a_backlog_keeps_its_time(self, entries: list[tuple[dict[str, Scalar], int]]) -> None:
        payload = json.dumps([{**values, "ts": instant} for values, instant in entries]).encode()
        expected = [
            Measurement(name, instant, stored(value)) for values, instant in entries for name, value in values.items()
        ]
        assert repr(native.decode(payload, RECEIVED_AT)) == repr(expected)


class TestIntegers:
    @stable
    @given(st.integers() | st.integers(-(2**70), 2**70) | st.integers(2**53, 2**66) | st.integers(2**1020, 2**1030))
    def test_are_kept_exactly_or_refused(self, integer: int) -> None:
        outcome = attempt(f'{{"a":{integer}}}'.encode())
        if isinstance(outcome, RejectedMessageError):
            assert outcome.reason == Reason.UNSUPPORTED_VALUE
            assert integer.bit_length() > 53
        else:
            assert outcome == [Measurement("a", RECEIVED_AT, integer)]
            assert type(outcome[0].value) is float


class TestTime:
    @stable
    @given(instants, st.integers(-23 * 60 - 59, 23 * 60 + 59))
    def test_of_one_instant_is_the_same_in_every_unit(self, instant: int, offset_minutes: int) -> None:
        zone = timezone(timedelta(minutes=offset_minutes))
        moment = (EPOCH + timedelta(microseconds=instant)).astimezone(zone)
        seconds, fraction = divmod(instant, 1_000_000)
        milliseconds, rest = divmod(instant, 1_000)
        notations = [
            f"{seconds}.{fraction:06}",
            f"{milliseconds}.{rest:03}",
            f"{instant}",
            f"{instant * 1000}",
            f"{instant * 1000 + 999}",
            f'"{moment.isoformat()}"',
            f'"{moment.isoformat(sep=" ", timespec="microseconds")}"',
        ]
        for notation in notations:
            (reading,) = native.decode(f'{{"a":1,"ts":{notation}}}'.encode(), RECEIVED_AT)
            assert reading.measured_at == instant, notation

    @stable
    @given(st.integers(946_684_800, 1_769_860_800))
    def test_of_a_whole_second_is_the_same_in_every_integer_unit(self, second: int) -> None:
        for factor in (1, 1_000, 1_000_000, 1_000_000_000):
            (reading,) = native.decode(f'{{"a":1,"ts":{second * factor}}}'.encode(), RECEIVED_AT)
            assert reading.measured_at == second * 1_000_000
