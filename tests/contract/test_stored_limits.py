"""What the API expects of where it is that ingestion workers have to know, held by those in memory and by PostgreSQL."""

from sens_common.tenant_limits import MqttSource, TenantLimits
from support.tenant_data import Opener


class TestLimits:
    async def test_are_none_at_first(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            assert await it.limits.limits() == {}

    async def test_have_the_rates_of_all_tenants_that_have_one(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.limit_rate("demo", 10)
            assert await it.limits.limits() == {"demo": TenantLimits(10)}
            await it.limit_rate("other", 2**31 - 1)
            assert await it.limits.limits() == {"demo": TenantLimits(10), "other": TenantLimits(2**31 - 1)}

    async def test_are_those_that_were_set_last(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.limit_rate("demo", 10)
            await it.limit_rate("other", 20)
            await it.limit_rate("demo", 11)
            await it.limit_rate("other", None)
            assert await it.limits.limits() == {"demo": TenantLimits(11)}

    async def test_have_the_sources_whose_messages_come_by_mqtt(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.add_source("demo", "house", "tele/#")
            await it.add_source("demo", "field", "netmore/#")
            await it.add_source("demo", "push", None)
            await it.limit_rate("other", 5)
            await it.add_source("other", "field", "other/#")

            assert await it.limits.limits() == {
                "demo": TenantLimits(mqtt_sources=(MqttSource("field", "netmore/#"), MqttSource("house", "tele/#"))),
                "other": TenantLimits(5, (MqttSource("field", "other/#"),)),
            }
