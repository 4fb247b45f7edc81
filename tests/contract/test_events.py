"""What the API expects of where a tenant's audit is, held by the one in memory and by PostgreSQL."""

from support.tenant_data import Opener


class TestNewest:
    async def test_are_the_tenants_own_newest_first(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            for tenant, action in (("demo", "a.one"), ("other", "a.two"), (None, "a.three"), ("demo", "a.four")):
                await it.record(tenant, action)
            found = await it.events("demo").newest(before=None, limit=10)
            assert [(event.tenant, event.action, event.actor) for event in found] == [
                ("demo", "a.four", "administrator"),
                ("demo", "a.one", "administrator"),
            ]

    async def test_are_all_on_one_of_the_pages(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            actions = [f"a.{letter}" for letter in "abcde"]
            for action in actions:
                await it.record("demo", action)
                await it.record("other", action)
            for limit in (1, 2, 5, 6):
                seen: list[str] = []
                before: int | None = None
                while page := await it.events("demo").newest(before=before, limit=limit):
                    assert len(page) <= limit
                    seen += [event.action for event in page]
                    before = page[-1].id
                assert seen == actions[::-1]

    async def test_that_come_meanwhile_are_on_no_later_page(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.record("demo", "a.one")
            await it.record("demo", "a.two")
            (first,) = await it.events("demo").newest(before=None, limit=1)
            await it.record("demo", "a.three")
            assert [event.action for event in await it.events("demo").newest(before=first.id, limit=9)] == ["a.one"]
