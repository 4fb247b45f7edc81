"""What topics say."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.names import DEVICE_PATTERN, TENANT_PATTERN, UNROUTED, device_name, is_tenant_name
from sens_common.topics import NATIVE, NATIVE_FORMAT, NATIVE_PATTERN, Grammar, Pattern, Route

TENANTS = st.from_regex(TENANT_PATTERN, fullmatch=True)
DEVICES = st.from_regex(DEVICE_PATTERN, fullmatch=True)
SEVERAL = Grammar(
    [
        NATIVE_PATTERN,
        Pattern("sens/v1/{tenant}/{device}/senml", "senml"),
        Pattern("sens/v1/{tenant}/uplinks", "json"),
        Pattern("gateway/{tenant}/up", "netmore"),
    ]
)
TOPICS = st.one_of(
    st.builds("sens/v1/{}/{}/telemetry".format, st.sampled_from("abcdefgh"), st.sampled_from(["d1", "Küche", ""])),
    st.builds("gateway/{}/{}".format, st.sampled_from(["a", "A", ""]), st.sampled_from(["up", "down"])),
    st.text("sen/v1+~A", max_size=12),
    st.text(max_size=100),
    st.sampled_from(["sens/v1/a", "sens/v1/a/", "sens/v1//d/telemetry", "sens/v1/A/d/telemetry", "tele/x/SENSOR"]),
)


class TestRoute:
    @given(TENANTS, DEVICES)
    def test_returns_tenant_device_and_format(self, tenant: str, device: str) -> None:
        route = NATIVE.route(f"sens/v1/{tenant}/{device}/telemetry")

        assert route == Route(tenant, device_name(device), NATIVE_FORMAT)

    def test_returns_the_canonical_name_of_an_eui(self) -> None:
        route = NATIVE.route("sens/v1/demo/70-B3-D5-7E-D0-06-53-C8/telemetry")

        assert route == Route("demo", "70b3d57ed00653c8", NATIVE_FORMAT)

    @pytest.mark.parametrize(
        "topic",
        [
            "",
            "sens/v1/demo/d1",
            "sens/v1/demo/d1/telemetry/",
            "sens/v1/demo/d1/telemetry/more",
            "/sens/v1/demo/d1/telemetry",
            "sens/v2/demo/d1/telemetry",
            "sens/v1/demo/d1/Telemetry",
            "sens/v1/demo/d1/telemetry\n",
            "sens/v1//d1/telemetry",
            "sens/v1/demo//telemetry",
            "sens/v1/Demo/d1/telemetry",
            "sens/v1/demo/-d1/telemetry",
            "sens/v1/demo/d 1/telemetry",
            "sens/v1/demo/d1\n/telemetry",
            f"sens/v1/{'a' * 64}/d1/telemetry",
            f"sens/v1/demo/{'a' * 64}/telemetry",
            "sens/v1/démo/d1/telemetry",
            "sens/v1/~/d1/telemetry",
        ],
    )
    def test_refuses_another_shape(self, topic: str) -> None:
        assert NATIVE.route(topic).refusal is not None

    @given(TOPICS)
    def test_answers_any_text_with_valid_names_or_a_refusal(self, topic: str) -> None:
        for grammar in (NATIVE, SEVERAL):
            route = grammar.route(topic)

            assert is_tenant_name(route.tenant) or (route.tenant == UNROUTED and route.refusal is not None)
            assert route.device is None or (device_name(route.device) == route.device and route.refusal is None)
            assert (route.format in grammar.formats) == (route.refusal is None)
            assert route.refusal != ""

    @pytest.mark.parametrize(
        ("topic", "named"),
        [
            (
                "sens/v1/demo/Küche 1/telemetry",
                ["'Küche 1'", "letters (A to Z, a to z), digits, dots, underscores and hyphens"],
            ),
            (f"sens/v1/demo/{'a' * 64}/telemetry", ["aaaa", "1 to 63"]),
            ("sens/v1/demo//telemetry", ["the device ''"]),
            ("sens/v1/Demo/d1/telemetry", ["the tenant 'Demo'", "lower-case"]),
            ("tele/kitchen/SENSOR", ["sens/v1/{tenant}/{device}/telemetry"]),
        ],
    )
    def test_says_in_words_what_is_wrong(self, topic: str, named: list[str]) -> None:
        refusal = NATIVE.route(topic).refusal or ""

        assert all(part in refusal for part in named)
        assert "[" not in refusal

    @pytest.mark.parametrize(
        ("topic", "tenant", "device"),
        [
            ("sens/v1/demo/Kitchen/telemetry", "demo", "Kitchen"),
            ("sens/v1/demo/Küche/telemetry", "demo", None),
            ("sens/v1/demo//telemetry", "demo", None),
            ("sens/v1/demo/d1/state", "demo", None),
            ("sens/v1/Demo/d1/telemetry", UNROUTED, None),
            ("sens/v1/demo", UNROUTED, None),
            ("tele/kitchen/SENSOR", UNROUTED, None),
            ("", UNROUTED, None),
        ],
    )
    def test_gives_what_is_wrong_to_the_tenant_in_the_topic(self, topic: str, tenant: str, device: str | None) -> None:
        assert NATIVE.route(topic)[:2] == (tenant, device)


class TestSeveralPatterns:
    """Several formats in one process."""

    @pytest.mark.parametrize(
        ("topic", "route"),
        [
            ("sens/v1/demo/d1/telemetry", Route("demo", "d1", "native")),
            ("sens/v1/demo/d1/senml", Route("demo", "d1", "senml")),
            ("sens/v1/demo/uplinks", Route("demo", None, "json")),
            ("gateway/demo/up", Route("demo", None, "netmore")),
        ],
    )
    def test_the_topic_says_the_format(self, topic: str, route: Route) -> None:
        assert SEVERAL.route(topic) == route

    def test_a_refusal_names_all_forms(self) -> None:
        route = SEVERAL.route("sens/v1/demo/d1/state")

        assert route.tenant == "demo"
        assert route.refusal == (
            "the topic is of none of the forms sens/v1/{tenant}/{device}/telemetry, sens/v1/{tenant}/{device}/senml,"
            " sens/v1/{tenant}/uplinks, gateway/{tenant}/up"
        )

    def test_the_first_one_that_matches_is_taken(self) -> None:
        grammar = Grammar([Pattern("a/{tenant}/{device}/x", "one"), Pattern("a/{tenant}/d1/x", "other")])

        assert grammar.route("a/demo/d1/x").format == "one"

    def test_a_topic_can_not_have_two_tenants(self) -> None:
        with pytest.raises(ValueError, match="two tenants"):
            Grammar([Pattern("a/{tenant}/x", "one"), Pattern("a/b/{tenant}/x", "other")])

    def test_there_has_to_be_one(self) -> None:
        with pytest.raises(ValueError, match="needs a pattern"):
            Grammar([])


class TestPattern:
    @pytest.mark.parametrize("template", ["", "a/b", "a/{tenant}", "{tenant}/{tenant}/x", "{tenant}/{device}/{device}"])
    def test_one_that_says_no_single_tenant_is_refused(self, template: str) -> None:
        with pytest.raises(ValueError, match="can't be a pattern"):
            Pattern(template, "native")

    @given(TENANTS, DEVICES)
    def test_a_topic_that_it_makes_leads_back(self, tenant: str, device: str) -> None:
        assert NATIVE.route(NATIVE_PATTERN.topic(tenant, device))[:2] == (tenant, device_name(device))

    @given(TOPICS)
    def test_its_filter_matches_its_topics(self, topic: str) -> None:
        as_mqtt_does = re.compile(NATIVE_PATTERN.filter.replace("+", "[^/]*"))
        if NATIVE.route(topic).refusal is None:
            assert as_mqtt_does.fullmatch(topic)

    def test_characters_of_its_levels_stand_for_themselves(self) -> None:
        pattern = Pattern("a.b/{tenant}/x+", "native")

        assert pattern.route("a.b/demo/x+") == Route("demo", None, "native")
        assert pattern.route("a-b/demo/xx") is None


class TestTenantOf:
    @pytest.mark.parametrize(
        ("topic", "tenant"),
        [
            ("sens/v1/demo/d1/telemetry", "demo"),
            ("sens/v1/demo/not a device/telemetry", "demo"),
            ("sens/v1/demo/d1", "demo"),
            ("sens/v1/demo", "~"),
            ("sens/v1/Demo/d1/telemetry", "~"),
            ("sens/v1/~/d1/telemetry", "~"),
            ("sens/v1//d1/telemetry", "~"),
            ("sens/v2/demo/d1/telemetry", "~"),
            ("tele/kitchen/SENSOR", "~"),
            ("", "~"),
        ],
    )
    def test_is_the_third_level(self, topic: str, tenant: str) -> None:
        assert NATIVE.tenant_of(topic) == tenant

    @given(TOPICS)
    def test_is_that_of_the_route(self, topic: str) -> None:
        for grammar in (NATIVE, SEVERAL):
            assert grammar.tenant_of(topic) == grammar.route(topic).tenant

    @given(TOPICS)
    def test_is_the_one_whose_topics_begin_so(self, topic: str) -> None:
        for grammar in (NATIVE, SEVERAL):
            tenant = grammar.tenant_of(topic)
            assert (tenant != UNROUTED) == any(map(topic.startswith, grammar.beginnings_of(tenant)))
            assert tenant == UNROUTED or grammar.beginning(topic) in grammar.beginnings_of(tenant)


class TestCountByTenant:
    @given(st.lists(TOPICS, max_size=40))
    def test_counts_each_topic_once(self, topics: list[str]) -> None:
        for grammar in (NATIVE, SEVERAL):
            assert grammar.count_by_tenant(topics) == Counter(map(grammar.tenant_of, topics))

    def test_tells_tenants_apart_of_which_one_begins_like_another(self) -> None:
        topics = [f"sens/v1/{tenant}/d1/telemetry" for tenant in ("plant", "plant-2", "plant")]
        assert NATIVE.count_by_tenant(topics) == {"plant": 2, "plant-2": 1}
