"""Deleting what is older than it is kept, in the database: row by row, or a partition at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.regular_readings import convert, store_readings

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
LEFT = """
    SELECT d.name, min(r.ts), count(*)::int, sum(num_nonnulls(r.numbers[1]) + num_nonnulls(r.numbers[2]))::int
    FROM sens.readings r JOIN sens.devices d ON d.id = r.device_id GROUP BY d.name ORDER BY d.name
"""


class Retained:
    """A database as its owner, and as the API for a tenant."""

    def __init__(self, owner: "asyncpg.Connection[asyncpg.Record]", api: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.owner = owner
        self.api = api

    async def keep(
        self, kind: str, days: int | None, *, device: str | None = None, metric: str | None = None, forget: bool = False
    ) -> str:
        """Set a rule of the tenant demo."""
        answer: str = await self.api.fetchval(
            "SELECT sens.set_retention($1, $2, $3, $4, $5, 'key 1 (test)', NULL, NULL)",
            kind,
            device,
            metric,
            days,
            forget,
        )
        return answer

    async def expire(self, most: int = 1000) -> list[int]:
        """Delete what is older; return the values that each step deleted."""
        steps = []
        while (step := await self.api.fetchrow("SELECT * FROM sens.continue_retention($1)", most)) is not None:
            steps.append(step["values"])
        return steps

    async def drop(self) -> list[str]:
        """Drop what nobody keeps; return the partitions."""
        dropped = []
        while (name := await self.api.fetchval("SELECT sens.drop_expired()")) is not None:
            dropped.append(name)
        return dropped

    async def left(self) -> dict[str, tuple[datetime, int, int]]:
        """Return for each device its first reading, and how many readings and numbers it has."""
        return {row[0]: (row[1], row[2], row[3]) for row in await self.owner.fetch(LEFT)}


@asynccontextmanager
async def opened(settings: DatabaseSettings, *, late_days: int = 10) -> AsyncIterator[Retained]:
    owner, api = await connect(settings, "test"), await connect(settings, "test", role=API_ROLE)
    try:
        tenant = await owner.fetchval(
            "INSERT INTO sens.tenants (name, late_days) VALUES ('demo', $1) RETURNING id", late_days
        )
        await owner.execute("INSERT INTO sens.tenants (name) VALUES ('other')")
        await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        yield Retained(owner, api)
    finally:
        await owner.close()
        await api.close()


async def fill(retained: Retained, days: int = 100) -> None:
    """Store a reading of two numbers an hour for a device of the tenant, and for one of another tenant that keeps all."""
    for tenant, device in (("demo", "d1"), ("demo", "d2"), ("other", "kept")):
        await store_readings(
            retained.owner, tenant, device, {"a": 1.0, "b": 2.0}, first=NOW - days * DAY, count=days * 24
        )


class TestRules:
    async def test_are_changed_with_a_row_in_the_audit(self, database: DatabaseSettings) -> None:
        async with opened(database) as retained:
            answers = [
                await retained.keep("raw", 30),
                await retained.keep("raw", 30),
                await retained.keep("raw", 40, device="d1"),
                await retained.keep("raw", None, metric="a"),
                await retained.keep("raw", None, metric="a", forget=True),
                await retained.keep("raw", None, metric="a", forget=True),
            ]
            assert answers == ["changed", "unchanged", "unknown_device", "changed", "changed", "unchanged"]
            events = await retained.owner.fetch(
                "SELECT action, subject, details ->> 'before', details ->> 'after' FROM sens.audit_events ORDER BY id"
            )
            assert [tuple(event) for event in events] == [
                ("retention.changed", "raw", "unset", "30"),
                ("retention.changed", "raw", "unset", "for ever"),
                ("retention.changed", "raw", "for ever", "unset"),
            ]

    async def test_keep_readings_for_as_long_as_they_may_lie_back(self, database: DatabaseSettings) -> None:
        async with opened(database, late_days=30) as retained:
            with pytest.raises(asyncpg.CheckViolationError, match="30 days back"):
                await retained.keep("raw", 29, metric="a")
            assert await retained.keep("raw", 30) == "changed"
            with pytest.raises(asyncpg.CheckViolationError, match="kept for 30 days only"):
                await retained.owner.execute("UPDATE sens.tenants SET late_days = 31 WHERE name = 'demo'")
            await retained.owner.execute("UPDATE sens.tenants SET late_days = 36500 WHERE name = 'other'")

    async def test_count_by_how_narrow_they_are(self, database: DatabaseSettings) -> None:
        async with opened(database) as retained:
            await fill(retained, days=1)
            for days, device, metric in ((100, None, None), (90, None, "a"), (80, "d1", None), (70, "d1", "b")):
                await retained.keep("raw", days, device=device, metric=metric)
            rows = await retained.owner.fetch(
                """
                SELECT d.name, m.name, (now() AT TIME ZONE 'UTC')::date - nullif(sens.kept_from(d.tenant_id, d.id, m.name, 'raw'), '-infinity')::date
                FROM sens.devices d JOIN sens.metrics m ON m.tenant_id = d.tenant_id ORDER BY 1, 2
                """
            )
            assert [tuple(row) for row in rows] == [
                ("d1", "a", 80), ("d1", "b", 70), ("d2", "a", 90), ("d2", "b", 100),
                ("kept", "a", None), ("kept", "b", None),
            ]  # fmt: skip


@pytest.mark.parametrize("columnstore", [False, True])
class TestExpiry:
    async def test_deletes_what_is_older_and_nothing_of_others(
        self, database: DatabaseSettings, columnstore: bool
    ) -> None:
        async with opened(database) as retained:
            await fill(retained)
            if columnstore:
                await convert(retained.owner)
            await retained.keep("raw", 30)
            await retained.keep("raw", 60, device="d2")
            steps = await retained.expire()
            assert len(steps) > 2
            left = await retained.left()
            assert left["kept"] == (NOW - 100 * DAY, 2400, 4800)
            for device, days in (("d1", 30), ("d2", 60)):
                # A chunk of the columnstore goes as a whole.
                slack = 8 if columnstore else 1
                assert NOW - (days + slack) * DAY <= left[device][0] <= NOW - days * DAY, device
            progress = await retained.api.fetchrow('SELECT "values", finished_at FROM sens.retention_progress')
            assert progress is not None
            assert progress[0] == sum(steps) == 3 * 4800 - sum(each[2] for each in left.values())
            assert progress[1] is not None
            assert await retained.expire() == []

    async def test_of_a_metric_leaves_the_others(self, database: DatabaseSettings, columnstore: bool) -> None:
        async with opened(database) as retained:
            await fill(retained)
            if columnstore:
                await convert(retained.owner)
            await retained.keep("raw", 20, metric="a")
            await retained.keep("raw", 20, device="d2")
            await retained.keep("raw", None, device="d2", metric="b")
            await retained.expire()
            left = await retained.left()
            assert left["kept"] == (NOW - 100 * DAY, 2400, 4800)
            slack = 8 if columnstore else 1
            for device in ("d1", "d2"):
                assert left[device][:2] == (NOW - 100 * DAY, 2400)
                assert 2400 + 20 * 24 <= left[device][2] <= 2400 + (20 + slack) * 24


class TestPartitions:
    async def test_are_dropped_when_nobody_keeps_anything_of_them(self, database: DatabaseSettings) -> None:
        async with opened(database) as retained:
            await fill(retained, days=200)
            await convert(retained.owner)
            await retained.keep("raw", 30)
            assert await retained.drop() == []  # the other tenant keeps all
            await retained.owner.execute("UPDATE sens.tenants SET late_days = 10")
            await retained.owner.execute(
                "INSERT INTO sens.retention (tenant_id, kind, days) SELECT id, 'raw', 100 FROM sens.tenants WHERE name = 'other'"
            )
            assert len(await retained.drop()) >= 2
            left = await retained.left()
            for device in ("d1", "d2", "kept"):
                assert NOW - 135 * DAY <= left[device][0] <= NOW - 100 * DAY
            await retained.expire()
            left = await retained.left()
            assert left["kept"][0] <= NOW - 100 * DAY
            assert NOW - 38 * DAY <= left["d1"][0] <= NOW - 30 * DAY

    async def test_are_made_again_for_what_comes_late(self, database: DatabaseSettings) -> None:
        async with opened(database) as retained:
            await fill(retained, days=90)
            await retained.owner.execute("UPDATE sens.tenants SET late_days = 10")
            await retained.owner.execute(
                "INSERT INTO sens.retention (tenant_id, kind, days) SELECT id, 'raw', 30 FROM sens.tenants"
            )
            assert await retained.drop()
            await store_readings(retained.owner, "demo", "d1", {"a": 1.0}, first=NOW - 89 * DAY)
            assert (await retained.left())["d1"][0] == NOW - 89 * DAY

    async def test_of_one_tenant_go_as_a_whole_and_not_row_by_row(self, database: DatabaseSettings) -> None:
        async with opened(database) as retained:
            await store_readings(retained.owner, "demo", "d1", {"a": 1.0}, first=NOW - 100 * DAY, count=2400)
            await convert(retained.owner)
            await retained.keep("raw", 30)
            assert await retained.drop()
            assert sum(await retained.expire()) == 0
            assert (await retained.left())["d1"][0] >= NOW - 62 * DAY


class TestDeadLetters:
    async def test_are_deleted_when_they_are_older(self, database: DatabaseSettings) -> None:
        async with opened(database) as retained:
            await retained.owner.execute(
                """
                INSERT INTO sens.dead_letters
                    (tenant_id, topic, received_at, dead_lettered_at, reason, detail, payload, payload_bytes, stream, sequence, number)
                SELECT t.id, 'x', now(), now() - n * interval '1 day', 'x', 'x', '', 0, t.id, n, 0 FROM sens.tenants t, generate_series(0, 39) n
                """
            )
            await retained.keep("dead_letters", 14)
            await retained.expire(most=5)
            counts = await retained.owner.fetch(
                "SELECT count(*)::int FROM sens.dead_letters GROUP BY tenant_id ORDER BY 1"
            )
            progress = await retained.api.fetchval("SELECT letters FROM sens.retention_progress")
            assert [row[0] for row in counts] in ([15, 40], [14, 40])
            assert progress == 40 - counts[0][0]
