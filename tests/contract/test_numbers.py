"""What the API expects of where a tenant's numbers are, held by those in memory and by PostgreSQL."""

from datetime import UTC, datetime

from support.letters import dead_letter
from support.tenant_data import Opener

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


class TestOverview:
    async def test_of_a_new_tenant_has_limits_and_nothing_used(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            found = await it.numbers("demo").overview()
            assert found is not None
            limits = {name: value for name, value in found._asdict().items() if name.endswith("_limit")}
            assert limits["stored_byte_limit"] is None
            assert all(value for name, value in limits.items() if name != "stored_byte_limit")
            assert not any(value for name, value in found._asdict().items() if name not in limits)

    async def test_counts_devices_and_metrics_of_the_tenant_alone(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", [("d", "t", START, 1.0), ("e", "t", START, "x")])
            await it.store("other", [("d", "t", START, 1.0), ("e", "t", START, 1.0), ("f", "u", START, 1.0)])
            found = await it.numbers("demo").overview()
            assert found is not None
            assert (found.devices, found.metrics) == (2, 2)

    async def test_no_longer_counts_what_is_deleted(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            for tenant in ("demo", "other"):
                await it.store(tenant, [("d", "t", START, 1.0), ("d", "t", START, "x"), ("e", "u", START, True)])
            await it.names("demo").delete_metric("t", None)
            await it.names("other").delete_device("d")
            demo, other = await it.numbers("demo").overview(), await it.numbers("other").overview()
            assert demo is not None
            assert other is not None
            assert ((demo.devices, demo.metrics), (other.devices, other.metrics)) == ((2, 1), (1, 3))

    async def test_adds_up_dead_letters_and_their_bytes_until_they_are_deleted(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await it.keep([dead_letter(payload=b"{" * 100), dead_letter(), dead_letter(tenant="other")])
            before = await it.numbers("demo").overview()
            await it.letters("demo").delete_replayed([(ids[0], 0)])
            after = await it.numbers("demo").overview()
            assert before is not None
            assert after is not None
            assert (before.dead_letters, after.dead_letters) == (2, 1)
            assert before.dead_letter_bytes == 2 * after.dead_letter_bytes + 99

    async def test_has_todays_messages_of_the_tenant(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            words = ("received", "stored", "duplicate", "dead_lettered", "discarded", "without_measurements")
            for number, word in enumerate(words, 1):
                await it.count("demo", word, number)
                await it.count("demo", word, 10)
                await it.count("other", word, 100)
            found = await it.numbers("demo").overview()
            assert found is not None
            assert [getattr(found, word) for word in words] == [11, 12, 13, 14, 15, 16]

    async def test_of_a_deleted_tenant_is_none(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            numbers = it.numbers("other")
            await it.remove("other")
            assert await numbers.overview() is None
            assert await it.numbers("demo").overview() is not None
