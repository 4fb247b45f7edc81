"""Moving a device to another tenant, with its history, while a worker stores."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from sens_common.control import device_hash
from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.regular_readings import convert, store_readings
from support.rollups import begin_rollups, refresh_up_to, violations
from support.workers import Publisher, TelemetryPath

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = TODAY - 40 * DAY
KEY = b"k" * 32
MOVE = "SELECT * FROM sens.move_device($1, $2, $3, 'key 1 (test)', '192.0.2.1', 'r')"
VALUES = """
    SELECT m.name, m.kind, r.ts, v.number::text FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
        JOIN sens.devices d ON d.id = r.device_id JOIN sens.tenants t ON t.id = d.tenant_id
        CROSS JOIN LATERAL (
            SELECT n.id, n.value::text AS number FROM unnest(s.number_ids, r.numbers) AS n (id, value)
            UNION ALL SELECT x.id, x.value FROM unnest(s.text_ids, r.texts) AS x (id, value)
        ) v JOIN sens.metrics m ON m.id = v.id AND m.tenant_id = d.tenant_id
    WHERE t.name = $1 AND d.name = $2 AND v.number IS NOT NULL AND r.ts = r.ts
"""
LEFT = """
    SELECT (SELECT count(*) FROM sens.readings WHERE device_id NOT IN (SELECT id FROM sens.devices))
        + (SELECT count(*) FROM sens.rollup_1h WHERE device_id NOT IN (SELECT id FROM sens.devices))
        + (SELECT count(*) FROM sens.rollup_1d WHERE device_id NOT IN (SELECT id FROM sens.devices))
        + (SELECT count(*) FROM sens.device_metric_sets WHERE device_id NOT IN (SELECT id FROM sens.devices))
"""


class Moves:
    """A database as its owner, and as the API for the tenant demo, from which devices move to the tenant other."""

    def __init__(self, owner: "asyncpg.Connection[asyncpg.Record]", api: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.owner = owner
        self.api = api

    async def move(self, device: str = "d1", name: str = "d1") -> str:
        await self.owner.execute("UPDATE sens.registrations SET deleted_at = NULL")
        row = await self.api.fetchrow(MOVE, device, name, KEY)
        assert row is not None
        return str(row["outcome"])

    async def finish(self, most: int = 1000) -> int:
        steps = 0
        while await self.api.fetchrow("SELECT * FROM sens.continue_deletion($1)", most) is not None:
            steps += 1
        return steps

    async def values(self, tenant: str, device: str) -> set[tuple[object, ...]]:
        return {tuple(row) for row in await self.owner.fetch(VALUES, tenant, device)}

    async def rollups(self, tenant: str, table: str) -> set[tuple[object, ...]]:
        rows = await self.owner.fetch(
            f"""
            SELECT m.name, r.ts, r.count, r.sum, r.min, r.max, r.first, r.last
            FROM sens.{table} r JOIN sens.metrics m ON m.id = r.metric_id JOIN sens.devices d ON d.id = r.device_id
                JOIN sens.tenants t ON t.id = d.tenant_id WHERE t.name = $1
            """,  # noqa: S608 - constants
            tenant,
        )
        return {tuple(row) for row in rows}


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[Moves]:
    """Give two tenants; the other one has metrics of other ids, and in another order."""
    owner, api = await connect(settings, "test"), await connect(settings, "test", role=API_ROLE)
    try:
        tenant = await owner.fetchval("INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 10) RETURNING id")
        other = await owner.fetchval("INSERT INTO sens.tenants (name) VALUES ('other') RETURNING id")
        await owner.execute(
            "INSERT INTO sens.api_keys (tenant_id, name, prefix, hash) VALUES ($1, 'other key', 'p', $2)", other, KEY
        )
        await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        await begin_rollups(owner, FIRST)
        await store_readings(owner, "other", "e", {"c": 0.0, "t": "x", "b": 0.0}, first=FIRST)
        await owner.execute("DELETE FROM sens.former_devices")
        yield Moves(owner, api)
    finally:
        await owner.close()
        await api.close()


async def fill(moves: Moves, *, columnstore: bool = False) -> None:
    """Store readings of two metric sets for d1 over forty days, with their rollups."""
    await store_readings(
        moves.owner, "demo", "d1", {"a": 1.5, "b": 2.5, "c": True, "t": "text"}, first=FIRST, count=40 * 24
    )
    await store_readings(moves.owner, "demo", "d1", {"b": 7.0}, first=FIRST + HOUR / 2, count=39 * 24)
    if columnstore:
        await convert(moves.owner)
    await refresh_up_to(moves.owner, TODAY)


@pytest.mark.parametrize("columnstore", [False, True])
class TestHistory:
    async def test_follows_exactly_in_steps(self, database: DatabaseSettings, columnstore: bool) -> None:
        async with opened(database) as moves:
            await fill(moves, columnstore=columnstore)
            before = await moves.values("demo", "d1")
            hours, days = await moves.rollups("demo", "rollup_1h"), await moves.rollups("demo", "rollup_1d")
            assert await moves.move() == "moved"
            assert await moves.values("demo", "d1") == set()
            assert await moves.finish() > 4
            assert await moves.values("other", "d1") == before
            assert await moves.owner.fetchval(LEFT) == 0
            assert await violations(moves.owner) == []
            await refresh_up_to(moves.owner, TODAY)
            assert await violations(moves.owner) == []
            other = await moves.owner.fetchval("SELECT id FROM sens.devices WHERE name = 'e'")
            assert (
                await moves.owner.fetchval("SELECT count(*) FROM sens.device_metric_sets WHERE device_id = $1", other)
                == 1
            )
            assert hours <= await moves.rollups("other", "rollup_1h")
            assert days <= await moves.rollups("other", "rollup_1d")

    async def test_comes_with_rollups_whose_readings_are_gone(
        self, database: DatabaseSettings, columnstore: bool
    ) -> None:
        async with opened(database) as moves:
            await fill(moves, columnstore=columnstore)
            for kind, days, metric in (("raw", 20, None), ("raw", 15, "b"), ("rollup_1h", 30, None)):
                await moves.api.fetchval(
                    "SELECT sens.set_retention($1, NULL, $2, $3, false, 'test', NULL, NULL)", kind, metric, days
                )
            while await moves.api.fetchrow("SELECT * FROM sens.continue_retention(10000)") is not None:
                pass
            before = [await moves.rollups("demo", table) for table in ("rollup_1h", "rollup_1d")]
            assert await moves.move() == "moved"
            await moves.finish()
            await refresh_up_to(moves.owner, TODAY)
            after = [await moves.rollups("other", table) for table in ("rollup_1h", "rollup_1d")]
            assert [former - found for former, found in zip(before, after, strict=True)] == [set(), set()]
            assert await moves.owner.fetchval(LEFT) == 0

    async def test_is_united_with_what_came_meanwhile(self, database: DatabaseSettings, columnstore: bool) -> None:
        async with opened(database) as moves:
            await fill(moves, columnstore=columnstore)
            before = await moves.values("demo", "d1")
            assert await moves.move() == "moved"
            # The same times: a value that is stored already, one that is another one, one of a metric that is new.
            await store_readings(moves.owner, "other", "d1", {"a": 1.5, "b": 9.0, "z": 4.0}, first=FIRST, count=400)
            await moves.finish()
            changed = {(("b", "number", FIRST + n * HOUR, "2.5")) for n in range(400)}
            added = {("b", "number", FIRST + n * HOUR, "9") for n in range(400)}
            added |= {("z", "number", FIRST + n * HOUR, "4") for n in range(400)}
            assert await moves.values("other", "d1") == before - changed | added


class TestRefusals:
    async def test_leave_the_device_where_it_is(self, database: DatabaseSettings) -> None:
        async with opened(database) as moves:
            await fill(moves)
            before = await moves.values("demo", "d1")
            assert await moves.move("d9") == "unknown_device"
            assert await moves.move("d1", "e") == "taken"
            await moves.owner.execute("UPDATE sens.tenants SET device_limit = 1 WHERE name = 'other'")
            assert await moves.move() == "too_many_devices"
            await moves.owner.execute("UPDATE sens.tenants SET device_limit = 9, metric_limit = 4 WHERE name = 'other'")
            assert await moves.move() == "too_many_metrics"
            await moves.owner.execute("UPDATE sens.tenants SET metric_limit = 9 WHERE name = 'other'")
            await moves.owner.execute("UPDATE sens.api_keys SET access = 'read_only'")
            assert await moves.move() == "read_only_key"
            await moves.owner.execute("UPDATE sens.api_keys SET access = 'read_write', revoked_at = now()")
            assert await moves.move() == "unknown_key"
            await moves.owner.execute(
                "UPDATE sens.api_keys SET revoked_at = NULL, tenant_id = (SELECT id FROM sens.tenants WHERE name = 'demo')"
            )
            assert await moves.move() == "same_tenant"
            assert await moves.values("demo", "d1") == before
            assert await moves.owner.fetchval("SELECT count(*) FROM sens.audit_events") == 0

    async def test_of_a_device_whose_history_is_still_coming(self, database: DatabaseSettings) -> None:
        async with opened(database) as moves:
            await fill(moves)
            assert await moves.move() == "moved"
            other = await moves.owner.fetchval("SELECT id FROM sens.tenants WHERE name = 'other'")
            await moves.owner.execute(
                "UPDATE sens.api_keys SET tenant_id = (SELECT id FROM sens.tenants WHERE name = 'demo')"
            )
            await moves.api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(other))
            assert await moves.move() == "still_moving"
            with pytest.raises(asyncpg.ObjectInUseError, match="being moved"):
                await moves.api.fetchval(
                    "SELECT sens.delete_range('d1', NULL, $1, $2, 'test', NULL, NULL)", FIRST, FIRST + DAY
                )
            await moves.finish()
            before = await moves.values("other", "d1")
            assert await moves.move("d1", "d1-back") == "moved"
            await moves.finish()
            assert await moves.values("demo", "d1-back") == before


class TestErasure:
    async def test_takes_what_is_still_to_come_and_the_name_in_the_other_tenant(
        self, database: DatabaseSettings
    ) -> None:
        async with opened(database) as moves:
            await fill(moves)
            tenants = {row[0]: row[1] for row in await moves.owner.fetch("SELECT name, id FROM sens.tenants")}
            assert await moves.move("d1", "d2") == "moved"
            await moves.api.fetchrow("SELECT * FROM sens.continue_deletion(1000)")
            await moves.api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenants["other"]))
            names = await moves.api.fetch("SELECT * FROM sens.erased_names($1)", device_hash("d2"))
            assert [(row[0], row[1]) for row in names] == [
                (tenants["other"], device_hash("d2")), (tenants["demo"], device_hash("d1"))
            ]  # fmt: skip
            await moves.owner.execute("UPDATE sens.registrations SET deleted_at = NULL")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await moves.api.fetchval(
                    "SELECT sens.erase_former_name($1, $2, $3, $4, 'test', NULL, NULL)",
                    device_hash("e"), tenants["demo"], device_hash("d1"), names[1][2],
                )  # fmt: skip
            assert await moves.api.fetchval(
                "SELECT sens.erase_former_name($1, $2, $3, $4, 'test', NULL, NULL)",
                device_hash("d2"), tenants["demo"], device_hash("d1"), names[1][2],
            ) is not None  # fmt: skip
            await moves.owner.execute("UPDATE sens.registrations SET deleted_at = NULL")
            erasure = await moves.api.fetchval(
                "SELECT sens.erase_device($1, $2, 'test', NULL, NULL)", device_hash("d2"), datetime.now(UTC)
            )
            await moves.finish()
            assert await moves.owner.fetchval(LEFT) == 0
            assert await moves.owner.fetchval("SELECT count(*) FROM sens.readings") == 1
            receipt = await moves.owner.fetchval(
                "SELECT f.readings FROM sens.finished_deletions f JOIN sens.erasures e ON e.deletion_id = f.id WHERE e.id = $1",
                erasure,
            )
            assert receipt == 40 * 24 + 39 * 24


class TestAudit:
    async def test_names_it_in_both_tenants(self, database: DatabaseSettings) -> None:
        async with opened(database) as moves:
            await fill(moves)
            await moves.move("d1", "d2")
            rows = await moves.owner.fetch(
                "SELECT tenant, actor, action, subject, details - 'deletion' AS d FROM sens.audit_events ORDER BY id"
            )
            assert [tuple(row)[:4] for row in rows] == [
                ("demo", "key 1 (test)", "device.moved", "d1"), ("other", "key 1 (other key)", "device.moved", "d2")
            ]  # fmt: skip
            assert rows[0]["d"] == '{"to": "other", "from": "demo", "name": "d2"}'
            counted = await moves.owner.fetch(
                "SELECT t.name, r.devices FROM sens.registrations r JOIN sens.tenants t ON t.id = r.tenant_id"
            )
            assert ("other", 2) in [tuple(row) for row in counted]


class TestStoring:
    def test_goes_on_while_a_device_moves(self, path: TelemetryPath) -> None:
        """Messages for the device come to both tenants all the while, also copies of what is being moved."""
        path.fetch("INSERT INTO sens.tenants (name) VALUES ('other')")
        path.fetch(
            "INSERT INTO sens.api_keys (tenant_id, name, prefix, hash)"
            " SELECT id, 'k', 'p', repeat('k', 32)::bytea FROM sens.tenants WHERE name = 'other'"
        )

        def message(tenant: str, number: int) -> tuple[str, bytes]:
            return (
                f"sens/v1/{tenant}/d1/telemetry",
                f'{{"ts": {1780000000 + number}, "n": {number}, "s": "x"}}'.encode(),
            )

        def publish() -> None:
            with Publisher(path.broker) as publisher:
                for start in range(0, 3000, 100):
                    publisher.publish_all([message("other", number) for number in range(start, start + 100)])
                    publisher.publish_all([message("demo", 10_000 + number) for number in range(start, start + 100)])

        with Publisher(path.broker) as publisher:
            publisher.publish_all([message("demo", number) for number in range(6000)])
            path.wait_until_idle()
        publishing = threading.Thread(target=publish)
        publishing.start()
        asyncio.run(self.move(path.database))
        publishing.join()
        path.wait_until_idle()
        asyncio.run(self.finish(path.database))
        numbers = "SELECT v.value::int FROM sens.readings r JOIN sens.devices d ON d.id = r.device_id JOIN sens.tenants t ON t.id = d.tenant_id"
        numbers += " CROSS JOIN LATERAL unnest(r.numbers) AS v (value) WHERE t.name = '{}' AND d.name = 'd1'"
        other = [row[0] for row in path.fetch(numbers.format("other"))]
        demo = [row[0] for row in path.fetch(numbers.format("demo"))]
        assert set(range(6000)) <= set(other)
        assert len(other) == len(set(other))
        assert sorted([*demo, *(number for number in other if number >= 10_000)]) == list(range(10_000, 13_000))
        assert path.fetch(LEFT)[0][0] == 0
        assert path.fetch("SELECT count(*) FROM sens.dead_letters")[0][0] == 0
        assert path.fetch("SELECT unaccounted FROM sens.conservation() WHERE unaccounted <> 0") == []

    @staticmethod
    async def move(database: DatabaseSettings) -> None:
        owner, api = await connect(database, "test"), await connect(database, "test", role=API_ROLE)
        try:
            await owner.execute("DELETE FROM sens.former_devices")
            tenant = await owner.fetchval("SELECT id FROM sens.tenants WHERE name = 'demo'")
            await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
            while True:
                try:
                    row = await api.fetchrow(MOVE, "d1", "d1", KEY)
                except asyncpg.LockNotAvailableError:
                    continue
                assert row is not None
                if row["outcome"] == "moved":
                    break
                # A message for the other tenant was faster: its device has to go first.
                assert row["outcome"] == "taken"
                await owner.execute("UPDATE sens.registrations SET deleted_at = NULL")
                other = await owner.fetchval("SELECT id FROM sens.tenants WHERE name = 'other'")
                await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(other))
                await api.fetchval("SELECT sens.delete_device('d1', 'test', NULL, NULL)")
                await owner.execute("UPDATE sens.registrations SET deleted_at = NULL")
                await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        finally:
            await owner.close()
            await api.close()
        await TestStoring.finish(database)

    @staticmethod
    async def finish(database: DatabaseSettings) -> None:
        api = await connect(database, "test", role=API_ROLE)
        try:
            while True:
                try:
                    if await api.fetchrow("SELECT * FROM sens.continue_deletion(1000)") is None:
                        return
                except asyncpg.LockNotAvailableError:
                    continue
        finally:
            await api.close()
