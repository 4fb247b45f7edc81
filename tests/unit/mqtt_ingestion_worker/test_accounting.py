"""Messages counted by tenant, for the headers of envelopes."""

from hypothesis import given
from hypothesis import strategies as st

from sens_common import envelope
from sens_mqtt_ingestion_worker.accounting import fitted


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
