"""Messages counted by tenant, for the headers of envelopes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import envelope
from sens_mqtt_ingestion_worker.accounting import count_by_tenant, fitted, tenant_of

TOPICS = st.lists(
    st.one_of(
        st.builds("sens/v1/{}/{}/telemetry".format, st.sampled_from("abcdefgh"), st.sampled_from(["d1", "Küche", ""])),
        st.text("sen/v1+~A", max_size=12),
        st.sampled_from(["sens/v1/a", "sens/v1/a/", "sens/v1//d/telemetry", "sens/v1/A/d/telemetry", "tele/x/SENSOR"]),
    ),
    max_size=40,
)


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
        assert tenant_of(topic) == tenant


class TestCountByTenant:
    @given(TOPICS)
    def test_counts_each_topic_once(self, topics: list[str]) -> None:
        assert count_by_tenant(topics) == Counter(map(tenant_of, topics))

    def test_tells_tenants_apart_of_which_one_begins_like_another(self) -> None:
        topics = [f"sens/v1/{tenant}/d1/telemetry" for tenant in ("plant", "plant-2", "plant")]
        assert count_by_tenant(topics) == {"plant": 2, "plant-2": 1}


class TestFitted:
    @given(
        st.dictionaries(st.from_regex(r"[a-z0-9]{1,63}|~", fullmatch=True), st.integers(1, 65_535), max_size=30),
        st.integers(32, 400),
    )
    def test_loses_no_message_and_has_room(self, counts: dict[str, int], room: int) -> None:
        shown = fitted(counts, (), room)
        assert sum(shown.values()) == sum(counts.values())
        assert len(envelope.encode_counts(shown)) <= room
        assert all(shown[tenant] == count for tenant, count in counts.items() if tenant in shown and tenant != "~")

    def test_names_those_first_that_exist_then_those_with_most_messages(self) -> None:
        counts = {"made-up": 9, "demo": 1, "invented": 10, "~": 5}
        assert fitted(counts, {"demo"}, 31) == {"demo": 1, "~": 24}
        assert fitted(counts, {"demo"}, 40) == {"demo": 1, "invented": 10, "~": 14}
