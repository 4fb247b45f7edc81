"""A child may be in the hands of a codec: what it writes is looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_payloads.codecs.calls import Decoded
from sens_payloads.codecs.sandbox import results
from sens_payloads.codecs.sandbox.process import words_of_status

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def outcome(result: str) -> Decoded | RejectedMessageError:
    (only,) = results.parse(f"[{result}]".encode(), 1, 3)
    return only


class TestWhatAChildWrites:
    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"{}",
            b"1",
            b"[]",
            b"[{}]",
            b"[1]",
            b"[null]",
            b'["x"]',
            b"[{",
            b'[{"a":null}]',
            b'[{"a":{"b":1}}]',
            b'[{"a":[1]}]',
            b'[{"a":NaN}]',
            rb'[{"a":"\ud800","b":1e999}]',
            rb'[{"a":"\ud800","b":' + b"9" * 400 + b"}]",
            b'[{"a":1},{"a":1},{"a":1}]',
            b'[["w",{"a":1}]]',
            b'[["w",{"a":1},[1]]]',
            b'[["w",{},[]]]',
            b'[["e","x"]]',
            b'[["e",1,""]]',
            b'[["z","x",""]]',
            b"[" * 100_000,
            b"[" + b"9" * 10_000 + b"]",
            b'[{"a":"\xff"}]',
            b"[{" + b",".join(b'"%d":1' % n for n in range(1001)) + b"}]",
        ],
    )
    def test_is_refused_where_it_is_no_answer(self, frame: bytes) -> None:
        with pytest.raises(results.NonsenseError):
            results.parse(frame, 2, 3)

    @given(st.binary(max_size=200) | JSON.map(lambda document: repr(document).encode("utf-8", "replace")))
    def test_raises_nothing_else(self, frame: bytes) -> None:
        try:
            outcomes = results.parse(frame, 2, 3)
        except results.NonsenseError:
            return
        assert all(isinstance(each, (Decoded, RejectedMessageError)) for each in outcomes)

    def test_keeps_the_kinds_of_values(self) -> None:
        assert outcome('{"a":1,"b":1.5,"c":true,"d":"x"}') == Decoded({"a": 1, "b": 1.5, "c": True, "d": "x"})

    def test_turns_integers_that_no_float_tells_apart_into_floats(self) -> None:
        decoded = outcome('{"a":9007199254740993,"b":9007199254740991}')

        assert isinstance(decoded, Decoded)
        assert [(type(value), value) for value in decoded.fields.values()] == [(float, 2.0**53), (int, 2**53 - 1)]

    def test_of_a_text_that_is_none_is_that_message_s_fault(self) -> None:
        frame = rb'[{"a":99999999999999999999},{"a":"\ud800"},{"\udc00":1},{"a":1.5,"b":"\ud83d\ude00"}]'
        first, text, name, last = results.parse(frame, 4, 3)

        assert (first, last) == (Decoded({"a": 1e20}), Decoded({"a": 1.5, "b": "😀"}))
        assert isinstance(text, RejectedMessageError)
        assert isinstance(name, RejectedMessageError)
        assert (text.reason, name.reason) == ("unsupported_value", "invalid_metric")


class TestANameThatIsNotPrintable:
    """A no-break space is no control character, and may be in a name; what else the result has is looked at all the same."""

    NAME = "a\u00a0b"

    def test_is_kept_with_warnings_and_values(self) -> None:
        found = outcome(f'["w",{{"{self.NAME}":{2**60 + 1}}},["low"]]')

        assert found == Decoded({self.NAME: float(2**60)}, ("low",))
        assert isinstance(found, Decoded)
        assert type(found.fields[self.NAME]) is float

    @pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "x" * 5000])
    def test_lets_no_text_pass_that_can_t_be_stored(self, text: str) -> None:
        assert isinstance(outcome(f'{{"{self.NAME}":1,"text":"{text}"}}'), RejectedMessageError)


class TestLines:
    @pytest.mark.parametrize(
        ("stack", "detail"),
        [
            ("    at f (<input>:2:5)\n    at <eval> (<input>:300120:1)", "line 2: no"),
            ("    at readInt8 (<input>:300090:5)\n    at decodeUplink (<input>:3:1)", "line 3: no"),
            ("    at <input>:4:1\n", "line 3: no"),
            ("    at forEach (native)\n    at <eval> (<input>:300120:1)", "no"),
            ("", "no"),
        ],
    )
    def test_are_those_of_the_codec(self, stack: str, detail: str) -> None:
        assert results.failure("e", "no", stack, 3).detail == detail


class TestWordsOfStatus:
    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (0, "it ended with status 0"),
            (-9, "it was ended by SIGKILL"),
            (-31, "it was ended by SIGSYS, because it called for something that a codec may not have"),
            (-99, "it was ended by signal 99"),
            (None, "it ended"),
        ],
    )
    def test_name_the_signal(self, status: int | None, words: str) -> None:
        assert words_of_status(status) == words
