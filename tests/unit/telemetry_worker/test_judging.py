"""What is stored for a device and time when its messages are decoded again."""

from hypothesis import given
from hypothesis import strategies as st

from sens_telemetry_worker.codec_runs.judging import Metric, Statement, Values, differences, judge
from sens_telemetry_worker.tenants import Refusal

T: Metric = ("t", "number")
OLD: Metric = ("old", "number")
OTHER: Metric = ("other", "number")
REFUSED = Refusal("codec_error", "no")
NOBODY = frozenset[Metric]()

_METRICS = st.sampled_from([T, OLD, OTHER])
_VALUES = st.dictionaries(_METRICS, st.sampled_from([1.0, 2.0]))


def said(before: set[Metric], values: Values | Refusal) -> Statement:
    return Statement(frozenset(before), values)


class TestJudge:
    def test_replaces_what_messages_had_led_to_by_what_they_say_now(self) -> None:
        judgement = judge({T: 1, OLD: 2, OTHER: 3}, [said({T, OLD}, {T: 5.0})], NOBODY)

        assert judgement.values == {T: 5, OTHER: 3}
        assert judgement.refusals == [None]

    def test_leaves_what_another_message_has_led_to_as_well(self) -> None:
        judgement = judge({T: 1, OLD: 2}, [said({T, OLD}, {T: 1.0})], frozenset({OLD}))

        assert judgement.values == {T: 1, OLD: 2}

    def test_refuses_what_contradicts_another_message(self) -> None:
        judgement = judge({T: 1, OTHER: 3}, [said({T}, {OTHER: 4.0})], NOBODY)

        assert judgement.values == {T: 1, OTHER: 3}
        assert [refusal and refusal.reason for refusal in judgement.refusals] == ["conflicting_value"]

    def test_counts_the_first_of_two_messages(self) -> None:
        judgement = judge({T: 1}, [said({T}, {T: 5.0}), said({T}, {T: 6.0})], NOBODY)

        assert judgement.values == {T: 5}
        assert [refusal is None for refusal in judgement.refusals] == [True, False]

    def test_leaves_what_a_refused_message_had_led_to_where_no_other_one_says_something_else(self) -> None:
        judgement = judge({T: 1, OLD: 2}, [said({T, OLD}, REFUSED), said({T}, {T: 5.0})], NOBODY)

        assert judgement.values == {T: 5, OLD: 2}

    @given(st.lists(_VALUES, min_size=1, max_size=4), _VALUES)
    def test_again_changes_nothing(self, messages: list[dict[Metric, float]], others: dict[Metric, float]) -> None:
        first = judge(others, [said(set(), values) for values in messages], frozenset(others))
        led = [
            said(set(values), values) if refusal is None else said(set(), REFUSED)
            for values, refusal in zip(messages, first.refusals, strict=True)
        ]

        again = judge(first.values, led, frozenset(others))

        assert again.values == first.values

    @given(st.lists(_VALUES, min_size=1, max_size=4))
    def test_is_what_storing_the_messages_gives(self, messages: list[dict[Metric, float]]) -> None:
        former: Values = {T: 7.0, OLD: 8.0}
        stored: dict[Metric, float | str] = {}
        for values in messages:
            if all(stored.get(metric, value) == value for metric, value in values.items()):
                stored |= values

        judgement = judge(former, [said({T, OLD}, values) for values in messages], NOBODY)

        was_refused = any(refusal is not None for refusal in judgement.refusals)
        assert judgement.values == ({**former, **stored} if was_refused else stored)


class TestDifferences:
    def test_are_by_name(self) -> None:
        found = differences({T: 1, OLD: 2}, {T: 1, OTHER: 3})

        assert [(each.metric, each.before, each.after) for each in found] == [(OLD, 2, None), (OTHER, None, 3)]
