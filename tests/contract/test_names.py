"""What the API expects of where a tenant's names are, and of their deletion, held by those in memory and by PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from sens_platform_api.between_batches import StillStoringError
from sens_platform_api.devices.repository import Kind, Value
from support.tenant_data import Opener, TenantData

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
METRICS: list[tuple[str, Kind]] = [
    ("T", "number"),
    ("a/b", "number"),
    ("t", "boolean"),
    ("t", "number"),
    ("t", "text"),
    ("ö", "number"),
]
"""In the order of their bytes."""
VALUES: dict[Kind, Value] = {"number": 1.0, "boolean": True, "text": "x"}


async def fill(data: TenantData, tenant: str = "demo", device: str = "d") -> None:
    """Store a measurement of each of the metrics."""
    await data.store(tenant, [(device, name, START, VALUES[kind]) for name, kind in reversed(METRICS)])


async def metrics(data: TenantData, tenant: str = "demo") -> list[tuple[str, Kind]]:
    found = await data.names(tenant).metrics(after=("", ""), prefix="", limit=100)
    return [(metric.name, metric.kind) for metric in found]


async def devices(data: TenantData, tenant: str = "demo") -> list[str]:
    return [device.name for device in await data.devices(tenant).by_name(after="", prefix="", limit=100)]


async def between_batches[T](delete: Callable[[], Awaitable[T]]) -> T:
    """Delete when it is possible: each tenant's deletions have to keep a distance."""
    while True:
        try:
            return await delete()
        except StillStoringError:
            await asyncio.sleep(0.02)


class TestMetrics:
    async def test_are_all_of_the_tenant_by_the_bytes_of_name_and_kind(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it)
            await it.store("other", [("d", "theirs", START, 1.0)])
            assert await metrics(it) == METRICS

    async def test_are_all_on_one_of_the_pages(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it)
            for limit in (1, 2, 4, 6, 7):
                seen: list[tuple[str, Kind]] = []
                after = ("", "")
                while page := await it.names("demo").metrics(after=after, prefix="", limit=limit):
                    assert len(page) <= limit
                    seen += [(metric.name, metric.kind) for metric in page]
                    after = seen[-1]
                assert seen == METRICS

    async def test_with_a_prefix_are_those_that_begin_with_it_to_the_letter(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it)
            for prefix in ("t", "a/", "%", "ö"):
                found = await it.names("demo").metrics(after=("", ""), prefix=prefix, limit=100)
                assert [(each.name, each.kind) for each in found] == [
                    each for each in METRICS if each[0].startswith(prefix)
                ]


class TestDeletedDevice:
    async def test_is_gone_at_once_and_its_metrics_and_other_devices_stay(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await fill(it)
            await fill(it, device="e")
            assert await it.names("demo").delete_device("d")
            assert await devices(it) == ["e"]
            assert await it.devices("demo").latest("d") is None
            assert await metrics(it) == METRICS

    async def test_that_is_deleted_again_is_not_there(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it)
            assert await it.names("demo").delete_device("d")
            assert not await it.names("demo").delete_device("d")
            assert not await it.names("demo").delete_device("D")
            assert [event.action for event in await it.events("demo").newest(before=None, limit=9)] == [
                "device.deleted"
            ]

    async def test_of_another_tenant_stays(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it, "other")
            assert not await it.names("demo").delete_device("d")
            await fill(it)
            assert await it.names("demo").delete_device("d")
            assert await devices(it, "other") == ["d"]

    async def test_that_comes_again_is_a_new_one_without_the_old_values(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await fill(it)
            (before,) = await it.devices("demo").by_name(after="", prefix="", limit=1)
            await it.names("demo").delete_device("d")
            await it.store("demo", [("d", "t", START - timedelta(days=1), 5.0)])
            found = await it.devices("demo").latest("d")
            assert found is not None
            assert found.device.id != before.id
            assert [each.value for each in found.latest] == [5.0]


class TestDeletedMetric:
    async def test_is_gone_at_once_from_all_devices(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            for device in ("d", "e"):
                await fill(it, device=device)
            assert await it.names("demo").delete_metric("t", "number") == ["number"]
            left = [each for each in METRICS if each != ("t", "number")]
            assert await metrics(it) == left
            for device in ("d", "e"):
                found = await it.devices("demo").latest(device)
                assert found is not None
                assert [(each.series.name, each.series.kind) for each in found.latest] == left

    async def test_without_a_kind_is_gone_with_all_of_them(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await fill(it)
            assert await it.names("demo").delete_metric("t", None) == ["boolean", "number", "text"]
            assert await metrics(it) == [each for each in METRICS if each[0] != "t"]

    async def test_that_is_deleted_again_has_no_kinds(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it)
            names = it.names("demo")
            assert await names.delete_metric("ö", "text") == []
            assert await names.delete_metric("ö", None) == ["number"]
            assert await between_batches(partial(names.delete_metric, "ö", None)) == []
            assert await between_batches(partial(names.delete_metric, "t", "text")) == ["text"]
            assert [event.action for event in await it.events("demo").newest(before=None, limit=9)] == [
                "metric.deleted"
            ] * 2

    async def test_of_another_tenant_stays(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await fill(it, "other")
            assert await it.names("demo").delete_metric("t", None) == []
            await fill(it)
            await it.names("demo").delete_metric("t", None)
            assert await metrics(it, "other") == METRICS
