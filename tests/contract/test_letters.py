"""What the API expects of where a tenant's dead letters are, held by those in memory and by PostgreSQL."""

import pytest

from sens_common.dead_letters import Origin, Reason
from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.repository import Summary
from sens_platform_api.dead_letters.service import Letters
from sens_platform_api.errors import NotFoundError
from support.letters import RECEIVED_AT, dead_letter
from support.tenant_data import Opener, TenantData

EVERYTHING = Filter()
TOPICS = [
    *("sens/v1/demo/d.1/telemetry", "sens/v1/demo/dx1/telemetry", "SENS/v1/demo/d.1/telemetry"),
    *("sens/v1/demo/(d|e)*/telemetry", "sens/v1/demo/Ⓐ½ö \u0301/telemetry", "a\\d/x", "a1/x", "a/b\nc"),
    *("sens/v1/demo", "sens/v1/demo/", "sens", "/sens", "$SYS/x", "$x"),
]
TOPIC_FILTERS = [
    *("#", "+", "+/+", "+/#", "/#", "sens/#", "sens/v1/+/+/telemetry", "sens/v1/demo/#", "sens/+/demo", "$SYS/#"),
    *("sens/v1/demo/d.1/#", "sens/v1/demo/(d|e)*/+", "sens/v1/demo/Ⓐ½ö \u0301/+", "a\\d/+", "+/b\nc"),
]


async def keep(data: TenantData, count: int) -> list[int]:
    """Keep so many dead letters of each tenant in turn; return the ids of the tenant demo's."""
    letters = [dead_letter(tenant=tenant, payload=b"x" * 10) for _ in range(count) for tenant in ("demo", "other")]
    return (await data.keep(letters))[::2]


async def listed(letters: Letters, wanted: Filter = EVERYTHING) -> list[Summary]:
    return (await letters.page(wanted, below=None, limit=100))[::-1]


class TestPage:
    async def test_has_the_tenants_own_newest_first(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 3)
            assert [each.id for each in await it.letters("demo").page(EVERYTHING, below=None, limit=9)] == ids[::-1]

    async def test_follows_page_until_all_were_there(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 5)
            for limit in (1, 2, 5, 6):
                seen: list[int] = []
                below: int | None = None
                while page := await it.letters("demo").page(EVERYTHING, below=below, limit=limit):
                    assert len(page) <= limit
                    seen += [each.id for each in page]
                    below = seen[-1]
                assert seen == ids[::-1]


class TestFilter:
    async def test_selects_what_passes_all_its_members(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.keep(
                [
                    dead_letter(),
                    dead_letter(device="d2"),
                    dead_letter(reason=Reason.TOO_OLD),
                    dead_letter(device="d2", reason=Reason.TOO_OLD),
                    dead_letter(device=None),
                ]
            )
            letters = it.letters("demo")
            every = await listed(letters)
            at = every[2].dead_lettered_at
            for wanted, passes in (
                (Filter(device="d2"), [each.device == "d2" for each in every]),
                (Filter(device="D2"), [False] * 5),
                (Filter(reason="too_old"), [each.reason == "too_old" for each in every]),
                (Filter(reason="too_old", device="d2"), [False, False, False, True, False]),
                (Filter(topic=every[1].topic), [each.topic == every[1].topic for each in every]),
                (Filter(since=at), [each.dead_lettered_at >= at for each in every]),
                (Filter(before=at), [each.dead_lettered_at < at for each in every]),
                (Filter(since=at, before=at), [False] * 5),
            ):
                expected = [each for each, passing in zip(every, passes, strict=True) if passing]
                assert await listed(letters, wanted) == expected, wanted
                assert await letters.count(wanted) == len(expected), wanted

    async def test_of_topics_matches_as_in_mqtt(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.keep([dead_letter()._replace(topic=topic) for topic in TOPICS])
            for topic_filter in TOPIC_FILTERS:
                found = [each.topic for each in await listed(it.letters("demo"), Filter(topic=topic_filter))]
                levels = topic_filter.split("/")
                assert found == [topic for topic in TOPICS if mqtt_matches(levels, topic.split("/"))], topic_filter


def mqtt_matches(wanted: list[str], levels: list[str]) -> bool:
    """Tell whether a topic matches a filter (MQTT 5.0, section 4.7)."""
    if levels[0].startswith("$") and wanted[0] in {"+", "#"}:
        return False
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(wanted) == len(levels) and all(each in {"+", level} for each, level in zip(wanted, levels, strict=True))


class TestOne:
    async def test_comes_with_payload_and_origin(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            origin = Origin(7, 8, 9)
            kept = dead_letter(payload=b"\x00\xff", payload_bytes=5000, replays=3, origin=origin)
            (letter_id,) = await it.keep([kept])
            found = await it.letters("demo").get(letter_id)
            assert (found.payload, found.origin) == (b"\x00\xff", origin)
            assert found.summary == (await listed(it.letters("demo")))[0]
            assert found.summary.received_at == RECEIVED_AT
            assert (found.summary.is_shortened, found.summary.payload_bytes, found.summary.replays) == (True, 5000, 3)

    async def test_that_is_not_there_or_anothers_is_not_found(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 1)
            for letters, letter_id in ((it.letters("other"), ids[0]), (it.letters("demo"), 10**9)):
                with pytest.raises(NotFoundError, match=f"there is no dead letter {letter_id}"):
                    await letters.get(letter_id)


class TestOldest:
    async def test_are_between_two_ids_oldest_first(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 5)
            letters = it.letters("demo")
            found = await letters.oldest(EVERYTHING, above=ids[0], until=ids[3], limit=9, max_bytes=1000)
            assert [each.summary.id for each in found] == ids[1:4]
            assert found[0] == await letters.get(ids[1])
            assert await letters.count(EVERYTHING, above=ids[0], until=ids[3]) == 3
            few = await letters.oldest(EVERYTHING, above=0, until=ids[4], limit=2, max_bytes=1000)
            assert [each.summary.id for each in few] == ids[:2]

    async def test_have_payloads_up_to_a_bound_but_always_one(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 5)
            for max_bytes, count in ((0, 1), (10, 1), (19, 1), (20, 2), (29, 2), (50, 5)):
                found = await it.letters("demo").oldest(EVERYTHING, above=0, until=ids[4], limit=9, max_bytes=max_bytes)
                assert [each.summary.id for each in found] == ids[:count], max_bytes

    async def test_are_none_where_there_are_none(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 1)
            assert await it.letters("demo").oldest(EVERYTHING, above=ids[0], until=10**9, limit=9, max_bytes=9) == []


class TestLastId:
    async def test_is_that_of_the_newest_of_the_tenant(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            assert await it.letters("demo").last_id() == 0
            ids = await keep(it, 2)
            assert await it.letters("demo").last_id() == ids[1]
            await it.letters("demo").delete_replayed([(ids[1], 0)])
            assert await it.letters("demo").last_id() == ids[0]


class TestDeletionOfReplayed:
    async def test_deletes_those_with_the_same_count_of_replays_once(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await it.keep([dead_letter(), dead_letter(replays=2), dead_letter(replays=1), dead_letter()])
            letters = it.letters("demo")
            replayed = [(ids[0], 0), (ids[1], 1), (ids[2], 1), (10**9, 0)]
            assert await letters.delete_replayed(replayed) == 2
            assert await letters.delete_replayed(replayed) == 0
            assert [each.id for each in await listed(letters)] == [ids[1], ids[3]]

    async def test_of_none_deletes_none(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await keep(it, 2)
            assert await it.letters("demo").delete_replayed([]) == 0
            assert await it.letters("demo").count(EVERYTHING) == 2

    async def test_leaves_those_of_another_tenant(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await keep(it, 1)
            assert await it.letters("other").delete_replayed([(ids[0], 0)]) == 0
            assert await it.letters("demo").count(EVERYTHING) == 1


class TestDeletionOfMany:
    async def test_takes_the_oldest_of_the_filter_until_none_is_left(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            ids = await it.keep([dead_letter(device=device) for device in ("d", "e", "d", "d")])
            letters = it.letters("demo")
            assert await letters.delete_many(Filter(device="d"), limit=2) == 2
            assert [each.id for each in await listed(letters)] == [ids[1], ids[3]]
            assert [await letters.delete_many(Filter(device="d"), limit=2) for _ in range(2)] == [1, 0]
            assert [each.id for each in await listed(letters)] == [ids[1]]

    async def test_leaves_those_of_another_tenant(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await keep(it, 3)
            assert await it.letters("demo").delete_many(EVERYTHING, limit=100) == 3
            assert await it.letters("other").count(EVERYTHING) == 3

    async def test_is_in_the_audit_when_something_was_deleted(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await keep(it, 3)
            for _ in range(2):
                await it.letters("demo").delete_many(EVERYTHING, limit=100)
            events = await it.events("demo").newest(before=None, limit=9)
            assert [(event.action, event.details) for event in events] == [("dead_letters.deleted", {"deleted": 3})]
            assert await it.events("other").newest(before=None, limit=9) == []
