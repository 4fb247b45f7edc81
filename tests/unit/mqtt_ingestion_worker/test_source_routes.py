"""Sources on the platform's broker: whose a message is, and which sources can't be subscribed to."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.tenant_limits import MqttSource
from sens_common.topics import NATIVE_PATTERN, SOURCES, TOPICS
from sens_mqtt_ingestion_worker.source_routes import Answer, SourceRoutes

LEVELS = st.text(st.characters(exclude_characters="+#/\0", exclude_categories=["Cs"]), max_size=8)
TOPIC_NAMES = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)


def routes(*sources: tuple[str, str, str], own: str = NATIVE_PATTERN.filter) -> SourceRoutes:
    it = SourceRoutes([own])
    of_tenant: dict[str, list[MqttSource]] = {}
    for tenant, name, topic_filter in sources:
        of_tenant.setdefault(tenant, []).append(MqttSource(name, topic_filter))
    it.set(of_tenant)
    return it


class TestTopic:
    def test_names_tenant_and_source(self) -> None:
        it = routes(("demo", "house", "tele/+/SENSOR"), ("other", "field", "netmore/#"))

        assert it.topic("tele/kitchen/SENSOR") == "ingest/v1/demo/house/tele/kitchen/SENSOR"
        assert it.topic("netmore") == "ingest/v1/other/field/netmore"

    def test_of_no_source_stays(self) -> None:
        it = routes(("demo", "house", "tele/+/SENSOR"))

        assert [it.topic(topic) for topic in ("sens/v1/demo/d1/telemetry", "tele/x/STATE")] == [
            "sens/v1/demo/d1/telemetry",
            "tele/x/STATE",
        ]

    def test_follows_the_sources(self) -> None:
        it = routes(("demo", "house", "tele/#"))
        before = it.topic("tele/x")
        it.set({"other": [MqttSource("taken-over", "tele/#")]})

        assert (before, it.topic("tele/x")) == ("ingest/v1/demo/house/tele/x", "ingest/v1/other/taken-over/tele/x")

    def test_of_a_source_that_is_gone_is_still_its_tenants(self) -> None:
        it = routes(("demo", "house", "tele/#"), ("other", "field", "netmore/#"))
        it.set({})

        assert it.filters == frozenset()
        assert it.topic("tele/late") == "ingest/v1/demo/house/tele/late"

    @given(TOPIC_NAMES)
    def test_leads_back_to_what_was_published(self, published: str) -> None:
        topic = SOURCES.topic("demo", "house", published)

        route = TOPICS.route(topic)
        assert (route.tenant, route.source, route.refusal) == ("demo", "house", None)
        assert TOPICS.tenant_of(topic) == "demo"
        assert SOURCES.message_address(topic) == (published, "")


class TestSource:
    @pytest.mark.parametrize(
        ("topic_filter", "why"),
        [
            ("ingest/+/other/#", "and ingest/v1/# of the platform match the same topics"),
            ("sens/v1/#", "and sens/v1/+/+/telemetry of the settings match the same topics"),
            ("tele/kitchen/#", "and tele/+/SENSOR of source demo/a match the same topics"),
            ("tele/x#", "# for all remaining ones at the end"),
            ("$share/g/tele2/#", "is a shared subscription"),
        ],
    )
    def test_that_can_not_be_subscribed_to_is_left_out_and_named(self, topic_filter: str, why: str) -> None:
        it = routes(("demo", "a", "tele/+/SENSOR"), ("other", "b", topic_filter))

        assert it.filters == {"tele/+/SENSOR"}
        assert "source other/b takes no messages" in (it.problems.problem or "")
        assert why in (it.problems.problem or "")

    def test_that_is_mended_is_a_problem_no_longer(self) -> None:
        it = routes(("demo", "a", "sens/#"))
        it.set({"demo": [MqttSource("a", "tele/#")]})

        assert it.problems.problem is None
        assert it.filters == {"tele/#"}

    def test_is_shared_as_the_settings_share(self) -> None:
        it = routes(("demo", "a", "tele/#"), own="$share/workers/sens/v1/+/+/telemetry")

        assert it.filters == {"$share/workers/tele/#"}
        assert it.topic("tele/x") == "ingest/v1/demo/a/tele/x"

    def test_that_the_broker_refuses_is_a_problem_until_it_does_not(self) -> None:
        it = routes(("demo", "a", "tele/#"))
        it.note_answer("tele/#", Answer("the broker refuses the subscription to tele/#: not authorized"))
        refused = it.problems.problem
        it.note_answer("tele/#", Answer())

        assert (
            refused == "source demo/a takes no messages: the broker refuses the subscription to tele/#: not authorized"
        )
        assert it.problems.problem is None

    def test_that_the_broker_refused_is_a_problem_no_longer_when_it_is_gone(self) -> None:
        it = routes(("demo", "a", "tele/#"))
        it.note_answer("tele/#", Answer("the broker refuses it"))
        it.set({})

        assert it.problems.problem is None

    def test_that_the_broker_refuses_is_told_by_the_name_that_it_has_now(self) -> None:
        it = routes(("demo", "a", "tele/#"))
        it.note_answer("tele/#", Answer("the broker refuses it"))
        it.set({"demo": [MqttSource("b", "tele/#")]})

        assert it.problems.problem == "source demo/b takes no messages: the broker refuses it"
        assert it.states(1.0)["demo"]["b"].reason == "subscription_refused"

    def test_of_which_the_broker_keeps_nothing_is_connected_and_says_so(self) -> None:
        it = routes(("demo", "a", "tele/#"))
        it.note_answer("tele/#", Answer(at_most_once=True))
        state = it.states(1.0)["demo"]["a"]

        assert (state.status, state.reason, it.at_most_once_count) == ("connected", "at_most_once", 1)
        assert state.detail.startswith("the broker grants tele/# QoS 0 only: it keeps nothing")
        assert (it.problems.problem or "").startswith("messages of source demo/a may be lost: the broker grants")
        it.note_answer("tele/#", Answer())
        assert (it.problems.problem, it.at_most_once_count) == (None, 0)

    def test_that_holds_is_not_displaced_by_a_new_one(self) -> None:
        it = routes(("plant", "first", "tele/#"))
        it.set({"acme": [MqttSource("second", "tele/+/SENSOR")], "plant": [MqttSource("first", "tele/#")]})

        assert it.filters == {"tele/#"}
        assert "source acme/second takes no messages" in (it.problems.problem or "")


class TestSettingsFilter:
    def test_of_which_the_broker_keeps_nothing_is_a_note(self) -> None:
        it = routes()
        it.note_answer(NATIVE_PATTERN.filter, Answer(at_most_once=True))

        assert (it.problems.problem or "").startswith("messages of devices may be lost: the broker grants sens/v1/+/+")
        assert it.at_most_once_count == 1


class TestChange:
    async def test_is_told_once(self) -> None:
        it = routes(("demo", "a", "tele/#"))
        async with asyncio.timeout(5):
            await it.changed()
        waiting = asyncio.ensure_future(it.changed())
        await asyncio.sleep(0)
        it.set({"demo": [MqttSource("renamed", "tele/#")]})  # the filters are the same
        await asyncio.sleep(0)
        told_for_nothing = waiting.done()
        it.set({"demo": [MqttSource("renamed", "other/#")]})
        async with asyncio.timeout(5):
            await waiting

        assert not told_for_nothing
