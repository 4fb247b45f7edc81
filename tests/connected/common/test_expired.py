"""Rollups whose readings are gone because of their age, of a device or of some of its metrics only: what follows from later changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.regular_readings import convert, store_readings
from support.rollups import begin_rollups, refresh_up_to, violations

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = TODAY - 60 * DAY


class Kept:
    """A database as its owner, and as the API for the tenant demo."""

    def __init__(self, owner: "asyncpg.Connection[asyncpg.Record]", api: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.owner = owner
        self.api = api

    async def keep(self, kind: str, days: int | None, *, metric: str | None = None) -> None:
        await self.api.fetchval(
            "SELECT sens.set_retention($1, NULL, $2, $3, false, 'key 1 (test)', NULL, NULL)", kind, metric, days
        )
        while await self.api.fetchrow("SELECT * FROM sens.continue_retention(10000)") is not None:
            pass

    async def delete(self, first: datetime, past: datetime, metric: str | None = None) -> list[tuple[str, datetime]]:
        """Delete a range of the device d1; return what is not cut."""
        uncut = await self.api.fetch("SELECT * FROM sens.uncut_rollups('d1', $1, $2, $3)", metric, first, past)
        await self.api.fetchval(
            "SELECT sens.delete_range('d1', $1, $2, $3, 'key 1 (test)', NULL, NULL)", metric, first, past
        )
        while await self.api.fetchrow("SELECT * FROM sens.continue_deletion(1000)") is not None:
            pass
        return [(row[0], row[1]) for row in uncut]

    async def refresh(self) -> None:
        await refresh_up_to(self.owner, TODAY)

    async def counts(self, metric: str, table: str = "rollup_1h") -> dict[datetime, int]:
        rows = await self.owner.fetch(
            f"SELECT r.ts, r.count FROM sens.{table} r JOIN sens.metrics m ON m.id = r.metric_id WHERE m.name = $1 ORDER BY 1",  # noqa: S608 - constants
            metric,
        )
        return {row[0]: row[1] for row in rows}

    async def answer(
        self, metric: str, first: datetime, past: datetime, width: timedelta
    ) -> dict[datetime, tuple[int, str]]:
        """Return how many values buckets have, and of what that was read."""
        rows = await self.api.fetch(
            """
            SELECT a.bucket, a.count, a.source FROM sens.edge_aggregates(
                (SELECT min(id) FROM sens.devices), (SELECT id FROM sens.metrics WHERE name = $1), $2, $3,
                ARRAY(SELECT generate_series($2::timestamptz, $3::timestamptz, $4)), '{min}', false
            ) a ORDER BY 1
            """,
            metric, first, past, width,
        )  # fmt: skip
        return {row[0]: (row[1], row[2]) for row in rows}


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[Kept]:
    """Store a reading of two numbers each half hour for sixty days, with their rollups."""
    owner, api = await connect(settings, "test"), await connect(settings, "test", role=API_ROLE)
    try:
        tenant = await owner.fetchval("INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 10) RETURNING id")
        for connection in (owner, api):
            await connection.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        await begin_rollups(owner, FIRST)
        await store_readings(owner, "demo", "d1", {"a": 1.0, "b": 2.0}, first=FIRST, step=HOUR / 2, count=60 * 48)
        await owner.execute("DELETE FROM sens.former_devices")
        await refresh_up_to(owner, TODAY)
        yield Kept(owner, api)
    finally:
        await owner.close()
        await api.close()


@pytest.mark.parametrize("columnstore", [False, True])
class TestMetric:
    async def test_that_goes_earlier_leaves_rollups_of_the_others_to_be_computed_again(
        self, database: DatabaseSettings, columnstore: bool
    ) -> None:
        async with opened(database) as kept:
            if columnstore:
                await convert(kept.owner)
            await kept.keep("raw", 20, metric="a")
            await store_readings(kept.owner, "demo", "d1", {"b": 5.0}, first=FIRST + 10 * DAY + HOUR / 4)
            await kept.owner.execute(
                "SELECT sens.note_changed(min(id), $1, $2) FROM sens.devices", FIRST + 10 * DAY, FIRST + 10 * DAY + HOUR
            )
            assert await kept.answer("a", FIRST + 10 * DAY, FIRST + 11 * DAY, DAY) == {FIRST + 10 * DAY: (48, "1h")}
            await kept.refresh()
            hours, days = await kept.counts("b"), await kept.counts("b", "rollup_1d")
            assert (hours[FIRST + 10 * DAY], hours[FIRST + 10 * DAY + HOUR], days[FIRST + 10 * DAY]) == (3, 2, 49)
            hours, days = await kept.counts("a"), await kept.counts("a", "rollup_1d")
            assert set(hours.values()) == {2}
            assert (len(hours), len(days), set(days.values())) == (60 * 24, 60, {48})

    async def test_is_deleted_in_a_range_of_which_another_ones_readings_are_gone(
        self, database: DatabaseSettings, columnstore: bool
    ) -> None:
        async with opened(database) as kept:
            if columnstore:
                await convert(kept.owner)
            await kept.keep("raw", 20, metric="a")
            start = FIRST + 10 * DAY + 90 * HOUR / 60
            assert await kept.delete(start, start + 3 * HOUR, "b") == []
            await kept.refresh()
            hours, days = await kept.counts("b"), await kept.counts("b", "rollup_1d")
            assert [hours.get(FIRST + 10 * DAY + hour * HOUR) for hour in range(6)] == [2, 1, None, None, 1, 2]
            assert days[FIRST + 10 * DAY] == 42
            assert set((await kept.counts("a", "rollup_1d")).values()) == {48}


class TestRange:
    async def test_older_than_readings_are_kept_goes_from_hours_and_days(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.keep("raw", 20)
            first, past = FIRST + 10 * DAY + 22.5 * HOUR, FIRST + 12 * DAY + 2 * HOUR
            assert await kept.delete(first, past) == [("rollup_1h", FIRST + 10 * DAY + 22 * HOUR)]
            await kept.refresh()
            for metric in ("a", "b"):
                hours, days = await kept.counts(metric), await kept.counts(metric, "rollup_1d")
                assert len(hours) == 60 * 24 - 1 - 24 - 2
                # The hour that lies partly in the range is still in its day.
                assert [days.get(FIRST + day * DAY) for day in range(9, 14)] == [48, 46, None, 44, 48]

    async def test_leaves_a_day_whose_hours_are_gone_too(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.keep("raw", 20)
            await kept.keep("rollup_1h", 30)
            uncut = await kept.delete(FIRST + 10 * DAY + HOUR / 2, FIRST + 12 * DAY, "a")
            await kept.refresh()
            assert uncut == [("rollup_1d", FIRST + 10 * DAY)]
            days = await kept.counts("a", "rollup_1d")
            assert [days.get(FIRST + day * DAY) for day in range(9, 13)] == [48, 48, None, 48]
            assert set((await kept.counts("b", "rollup_1d")).values()) == {48}

    async def test_leaves_the_law_as_it_is_where_readings_are_there(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            assert await kept.delete(FIRST + 10 * DAY + HOUR / 4, FIRST + 40 * DAY + HOUR / 4) == []
            assert await violations(kept.owner) == []
            await kept.refresh()
            assert await violations(kept.owner) == []
            assert len(await kept.counts("a", "rollup_1d")) == 60 - 29


class TestHours:
    async def test_that_are_gone_are_read_from_the_readings(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.keep("rollup_1h", 20)
            day = FIRST + 10 * DAY
            assert await kept.answer("a", day, day + 2 * HOUR, HOUR) == {day: (2, "raw"), day + HOUR: (2, "raw")}
            assert await kept.answer("a", day, day + DAY, DAY) == {day: (48, "1d")}

    async def test_that_are_gone_are_still_in_a_day_that_is_computed_again(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.keep("rollup_1h", 20)
            day = FIRST + 10 * DAY
            await store_readings(kept.owner, "demo", "d1", {"b": 5.0}, first=day + HOUR / 4)
            await kept.owner.execute("SELECT sens.note_changed(min(id), $1, $2) FROM sens.devices", day, day + HOUR)
            await kept.refresh()
            assert (await kept.counts("b", "rollup_1d"))[day] == 49
            assert set((await kept.counts("a", "rollup_1d")).values()) == {48}

    async def test_wait_for_a_change_of_their_day(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.owner.execute("SELECT sens.note_changed(min(id), $1, $2) FROM sens.devices", FIRST, FIRST + HOUR)
            await kept.keep("rollup_1h", 20)
            assert len(await kept.counts("a")) == 60 * 24


class TestDays:
    async def test_that_are_gone_are_read_from_the_hours(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.keep("rollup_1d", 20)
            day = FIRST + 10 * DAY
            assert await kept.answer("a", day, day + DAY, DAY) == {day: (48, "1h")}
