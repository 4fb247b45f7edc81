"""What the API expects of where a tenant's devices are, held by those in memory and by PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest

from sens_platform_api.devices.repository import LatestOfDevice
from support.stored_rows import Form
from support.tenant_data import Opener

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
NAMES = ["A", "Z-1", "a", "a.b", "aa", "b_1"]
"""In the order of their bytes, which is not that of a dictionary."""


class TestByName:
    async def test_are_all_of_the_tenant_in_the_order_of_their_bytes(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", [(name, "t", START, 1.0) for name in reversed(NAMES)])
            await it.store("other", [("a0", "t", START, 1.0)])
            found = await it.devices("demo").by_name(after="", prefix="", limit=100)
            assert [device.name for device in found] == NAMES
            assert len({device.id for device in found}) == len(NAMES)

    async def test_are_all_on_one_of_the_pages(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", [(name, "t", START, 1.0) for name in NAMES])
            for limit in (1, 2, 5, 6, 7):
                seen: list[str] = []
                after = ""
                while page := await it.devices("demo").by_name(after=after, prefix="", limit=limit):
                    assert len(page) <= limit
                    seen += [device.name for device in page]
                    after = seen[-1]
                assert seen == NAMES

    async def test_with_a_prefix_are_those_that_begin_with_it_to_the_letter(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", [(name, "t", START, 1.0) for name in NAMES])
            for prefix in ("a", "a.", "b_", "_", "%", "z"):
                found = await it.devices("demo").by_name(after="", prefix=prefix, limit=100)
                assert [device.name for device in found] == [name for name in NAMES if name.startswith(prefix)]


class TestLatest:
    async def test_is_the_newest_value_of_each_series_by_name_and_kind(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            later, last = START + timedelta(seconds=1), START + timedelta(days=40)
            await it.store("demo", [("d", "t", last, 2.0), ("d", "t", later, 3.0), ("d", "t", START, "ö")])
            await it.store("demo", [("d", "door", START, True), ("d", "door", later, False), ("d", "a/b", START, 1.0)])
            found = await it.devices("demo").latest("d")
            assert found is not None
            assert [(each.series.name, each.series.kind, each.measured_at, each.value) for each in found.latest] == [
                ("a/b", "number", START, 1.0),
                ("door", "boolean", later, False),
                ("t", "number", last, 2.0),
                ("t", "text", START, "ö"),
            ]
            assert found.latest[1].value is False

    async def test_is_that_of_the_device_alone(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [("d", "t", START, 1.0), ("e", "t", START + timedelta(seconds=1), 2.0)])
            await it.store("other", [("d", "t", START + timedelta(seconds=2), 3.0), ("theirs", "t", START, 3.0)])
            found = await it.devices("demo").latest("d")
            assert found is not None
            assert found.device.name == "d"
            assert [each.value for each in found.latest] == [1.0]

    async def test_of_a_device_that_the_tenant_has_not_is_none(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("other", [("d", "t", START, 3.0)])
            assert await it.devices("demo").latest("d") is None


class TestLatestByName:
    async def test_is_that_of_all_devices_by_name_on_one_of_the_pages(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [(name, "t", START, float(index)) for index, name in enumerate(NAMES)])
            await it.store("demo", [("a", "door", START + timedelta(seconds=1), True), ("b_1", "t", START, "x")])
            await it.store("other", [("a0", "t", START, 1.0)])
            devices = it.devices("demo")
            single = [await devices.latest(name) for name in NAMES]
            for limit in (1, 4, 6, 7):
                seen: list[LatestOfDevice | None] = []
                after = ""
                while page := await devices.latest_by_name(after=after, prefix="", limit=limit, value_limit=100):
                    assert len(page) <= limit
                    seen += page
                    after = page[-1].device.name
                assert seen == single

    async def test_with_a_prefix_is_that_of_those_that_begin_with_it(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [(name, "t", START, 1.0) for name in NAMES])
            found = await it.devices("demo").latest_by_name(after="a", prefix="a", limit=10, value_limit=100)
            assert [each.device.name for each in found] == ["a.b", "aa"]

    @pytest.mark.parametrize("opened_in_each_form", ["memory", Form.READINGS], indirect=True)
    async def test_is_of_as_many_devices_as_the_limit_of_values_allows_and_of_one_at_least(
        self, opened_in_each_form: Opener
    ) -> None:
        async with opened_in_each_form() as it:
            rows = [(name, metric, START, 1.0) for name in ("a", "b", "c") for metric in ("m1", "m2", "m3")]
            await it.store("demo", rows)
            sizes = {
                limit: len(await it.devices("demo").latest_by_name(after="", prefix="", limit=10, value_limit=limit))
                for limit in (1, 5, 6, 9)
            }
            assert sizes == {1: 1, 5: 1, 6: 2, 9: 3}
