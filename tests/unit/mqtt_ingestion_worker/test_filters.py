"""Topic filters of the settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import topic_filters
from sens_common.topic_filters import overlap
from sens_mqtt_ingestion_worker.filters import apart, earlier_forms

LEVEL = st.sampled_from(["a", "b", "", "$c"])
TOPICS = st.lists(LEVEL, min_size=1, max_size=4).map("/".join)
FILTERS = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
)


def matches(topic: str, topic_filter: str) -> bool:
    """Match as section 4.7 says it."""
    if topic.startswith("$") and topic_filter[0:1] in {"+", "#"}:
        return False
    levels, wanted = topic.split("/"), topic_filter.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: len(wanted)]
    return len(levels) == len(wanted) and all(want in {"+", level} for level, want in zip(levels, wanted, strict=True))


class TestOverlap:
    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("sens/v1/+/+/telemetry", "sens/v1/demo/+/telemetry", True),
            ("sens/v1/+/+/telemetry", "$share/sens/sens/v1/+/+/telemetry", True),
            ("$share/a/x", "$share/b/x", True),
            ("x", "x", True),
            ("#", "x/y", True),
            ("x/#", "x", True),
            ("x/+/y", "x/z/+", True),
            ("sens/v1/a/+/telemetry", "sens/v1/b/+/telemetry", False),
            ("x/+", "x", False),
            ("x/+", "x/y/z", False),
            ("#", "$SYS/broker", False),
            ("+/broker", "$SYS/broker", False),
            ("$SYS/#", "$SYS/broker", True),
        ],
    )
    def test_is_that_of_the_topics_that_both_match(self, first: str, second: str, *, expected: bool) -> None:
        assert overlap(first, second) is overlap(second, first) is expected

    @given(TOPICS, FILTERS, FILTERS)
    def test_is_never_missed(self, topic: str, first: str, second: str) -> None:
        if matches(topic, first) and matches(topic, second):
            assert overlap(first, second)


class TestApart:
    def test_names_both_filters_that_overlap(self) -> None:
        with pytest.raises(ValueError, match=r"^b/\+ and b/c match the same topics"):
            apart(["a", "b/+", "b/c"])

    def test_takes_filters_that_do_not(self) -> None:
        assert apart(["a/+", "b/+"]) == ["a/+", "b/+"]


class TestEarlierForms:
    def test_are_the_filters_shared_and_not_and_the_usual_ones(self) -> None:
        assert earlier_forms(["$share/x/a/#"]) == {
            "a/#",
            "$share/sens/a/#",
            "sens/v1/+/+/telemetry",
            "$share/sens/sens/v1/+/+/telemetry",
        }


class TestMatch:
    @given(TOPICS, FILTERS)
    def test_is_what_the_specification_says(self, topic: str, topic_filter: str) -> None:
        assert topic_filters.matches(topic_filter, topic) is matches(topic, topic_filter)
        assert topic_filters.matches(f"$share/group/{topic_filter}", topic) is matches(topic, topic_filter)
