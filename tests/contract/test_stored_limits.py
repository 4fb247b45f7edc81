"""What the API expects of where the limits are that ingestion workers have to know, held by those in memory and by PostgreSQL."""

from support.tenant_data import Opener


class TestMessagesPerSecond:
    async def test_are_none_at_first(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            assert await it.limits.messages_per_second() == {}

    async def test_are_those_of_all_tenants_that_have_one(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.limit_rate("demo", 10)
            assert await it.limits.messages_per_second() == {"demo": 10}
            await it.limit_rate("other", 2**31 - 1)
            assert await it.limits.messages_per_second() == {"demo": 10, "other": 2**31 - 1}

    async def test_are_those_that_were_set_last(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.limit_rate("demo", 10)
            await it.limit_rate("other", 20)
            await it.limit_rate("demo", 11)
            await it.limit_rate("other", None)
            assert await it.limits.messages_per_second() == {"demo": 11}
