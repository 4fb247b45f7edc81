"""Nested values become one flat mapping, without loss and within bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import fields
from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import (
    MAX_ELEMENTS,
    MAX_METRICS,
    MAX_NESTING,
    are_usual_numbers,
    checked_value,
    flatten,
    usual_numbers,
)


def refusal(members: dict[str, object], **how: str) -> RejectedMessageError:
    with pytest.raises(RejectedMessageError) as caught:
        flatten(members, **how)  # type: ignore[arg-type]
    return caught.value


def nested(levels: int, innermost: object) -> dict[str, object]:
    members: dict[str, object] = {"a": innermost}
    for _ in range(levels - 1):
        members = {"a": members}
    return members


class TestFlatten:
    def test_joins_the_names_of_members_and_elements(self) -> None:
        found = flatten({"a": {"b": 1, "c": [2, None, True]}, "d": "x", "e": None, "f": [{"g": 0.5}, [3]]})
        assert found == {"a.b": 1, "a.c.0": 2, "a.c.2": True, "d": "x", "f.0.g": 0.5, "f.1.0": 3}
        assert type(found["a.c.2"]) is bool

    def test_refuses_nested_elements_where_they_are_to_be_plain(self) -> None:
        error = refusal({"f": [1, {"g": 0.5}]}, elements="plain")
        assert error.reason == Reason.UNSUPPORTED_VALUE
        assert "'f' is an array whose element 1 is an object" in error.detail

    def test_refuses_two_values_of_one_name(self) -> None:
        error = refusal({"a.b": 1, "a": {"b": 2}})
        assert error.reason == Reason.MALFORMED_PAYLOAD
        assert "'a.b'" in error.detail

    def test_bounds_the_depth(self) -> None:
        assert flatten(nested(MAX_NESTING, [1])) == {".".join(["a"] * MAX_NESTING + ["0"]): 1}
        for innermost in ({"b": 1}, [{"b": 1}], [[1]]):
            assert refusal(nested(MAX_NESTING, innermost)).reason == Reason.TOO_LARGE
        arrays: object = 1
        for _ in range(5000):
            arrays = [arrays]
        assert refusal({"a": arrays}).reason == Reason.TOO_LARGE

    def test_bounds_elements_and_metrics(self) -> None:
        assert refusal({"a": [1] * (MAX_ELEMENTS + 1)}).reason == Reason.TOO_LARGE
        assert refusal({str(number): 1 for number in range(MAX_METRICS + 1)}).reason == Reason.TOO_LARGE

    @pytest.mark.parametrize("name", ["", "a" * 201, "a\nb"])
    def test_refuses_names_that_a_metric_cannot_have(self, name: str) -> None:
        assert refusal({name: 1}).reason == Reason.INVALID_METRIC


class TestValue:
    @pytest.mark.parametrize(
        "value",
        [
            math.nan,
            math.inf,
            -math.inf,
            2**53 + 1,
            10**400,
            pytest.param(10**5000, id="5,001 digits"),
            b"x",
            "a\0",
            {1},
        ],
    )
    def test_refuses_what_cannot_be_stored_as_it_is(self, value: object) -> None:
        with pytest.raises(RejectedMessageError) as caught:
            checked_value("m", value)
        assert caught.value.reason == Reason.UNSUPPORTED_VALUE
        assert "'m'" in caught.value.detail

    @given(st.integers(-(2**1000), 2**1000) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
    def test_changes_no_number(self, value: float) -> None:
        try:
            stored = checked_value("m", value)
        except RejectedMessageError:
            assert float(value) != value
        else:
            assert stored == value
            assert (type(stored) is bool) == (type(value) is bool)
            assert type(stored) is not int or abs(stored) < 2**53


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab.\x00é", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.\x00é", max_size=2), inner, max_size=3),
    max_leaves=12,
)


class TestBothWays:
    @given(st.dictionaries(st.text("ab.", max_size=2), JSON, max_size=4))
    def test_the_fast_way_says_what_the_other_says(self, members: dict[str, object]) -> None:
        fast: dict[str, object] = {}
        is_usual = fields._add_usual(fast, members, "", 1)  # type: ignore[arg-type]
        slow: dict[str, object] = {}
        try:
            fields._add(slow, members, "", 1, "any")  # type: ignore[arg-type]
        except RejectedMessageError:
            assert not is_usual
        else:
            assert not is_usual or list(fast.items()) == list(slow.items())


class TestUsualNumbers:
    @given(
        st.lists(
            st.dictionaries(
                st.text(max_size=2) | st.sampled_from(["a", "b", "n" * 200, "n" * 201]),
                st.integers(-(2**54), 2**54)
                | st.floats()
                | st.booleans()
                | st.sampled_from([2**53, -(2**53), 2**52 - 1, 10**400, None, "1", [1], {"a": 1}]),
                max_size=3,
            ),
            max_size=3,
        )
    )
    def test_of_several_objects_are_so_of_each(self, objects: list[dict[str, object]]) -> None:
        if usual_numbers(objects):
            assert all(map(are_usual_numbers, objects))

    def test_are_those_that_devices_send(self) -> None:
        assert usual_numbers([{"temperature": 21.5, "on": True}, {"count": 1_000_000, "z": -0.0}])
        assert usual_numbers([])

    @pytest.mark.parametrize(
        "other", [{}, {"a": "x"}, {"a": 2**53}, {"a\n": 1}, {"": 1}, {str(at): 1 for at in range(65)}, {"a": math.nan}]
    )
    def test_are_no_others(self, other: dict[str, object]) -> None:
        assert not usual_numbers([{"a": 1.5}, other])
