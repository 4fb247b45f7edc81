"""What the API expects of where deletions go on, held by the one in memory and by PostgreSQL."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from sens_platform_api.registry.service import Deletions
from support.tenant_data import Opener, TenantData

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


async def fill(data: TenantData, tenant: str) -> None:
    """Store 50 measurements of each of two devices: 40 of a metric of numbers, 10 of one of texts."""
    times = [START + timedelta(seconds=second) for second in range(40)]
    await data.store(tenant, [(device, "n", time, 1.0) for device in ("d", "e") for time in times])
    await data.store(tenant, [(device, "s", time, "x") for device in ("d", "e") for time in times[:10]])


async def all_steps(deletions: Deletions, most: int) -> tuple[Counter[int], list[int]]:
    """Take steps until there is no deletion; return how many each has deleted, and those that were finished."""
    deleted: Counter[int] = Counter()
    finished: list[int] = []
    while (step := await deletions.step(most)) is not None:
        assert 0 <= step.deleted <= most + 1  # a reading of two goes as a whole
        assert step.deletion not in finished
        deleted[step.deletion] += step.deleted
        if step.finished:
            finished.append(step.deletion)
    return deleted, finished


class TestSteps:
    async def test_are_none_without_a_deletion(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await fill(it, "demo")
            assert await it.deletions.step(10) is None
            assert await it.measurement_count() == 100

    @pytest.mark.parametrize("most", [7, 50, 1000])
    async def test_of_a_device_delete_all_that_it_had_and_nothing_else(
        self, opened_in_each_form: Opener, most: int
    ) -> None:
        async with opened_in_each_form() as it:
            await fill(it, "demo")
            await fill(it, "other")
            await it.names("demo").delete_device("d")
            deleted, finished = await all_steps(it.deletions, most)
            assert list(deleted.values()) == [50]
            assert finished == list(deleted)
            assert await it.measurement_count() == 150

    @pytest.mark.parametrize("most", [7, 80, 1000])
    async def test_of_a_metric_delete_it_from_all_devices(self, opened_in_each_form: Opener, most: int) -> None:
        async with opened_in_each_form() as it:
            await fill(it, "demo")
            await fill(it, "other")
            await it.names("demo").delete_metric("n", None)
            deleted, finished = await all_steps(it.deletions, most)
            assert list(deleted.values()) == [80]
            assert finished == list(deleted)
            assert await it.measurement_count() == 120

    async def test_of_several_deletions_take_turns(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            for tenant in ("demo", "other"):
                await fill(it, tenant)
                await it.names(tenant).delete_device("d")
            steps = [await it.deletions.step(10) for _ in range(4)]
            assert [step.deletion for step in steps if step] == [step.deletion for step in steps[:2] if step] * 2
            assert (await all_steps(it.deletions, 10))[0].total() == 60

    async def test_leave_what_is_stored_under_the_name_afterwards(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await fill(it, "demo")
            await it.names("demo").delete_device("d")
            await it.store("demo", [("d", "n", START, 2.0)])
            await all_steps(it.deletions, 20)
            found = await it.devices("demo").latest("d")
            assert found is not None
            assert [each.value for each in found.latest] == [2.0]
            assert await it.measurement_count() == 51
