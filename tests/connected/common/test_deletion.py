"""Deleting devices and metrics in the database: at once out of sight, and gone in short steps, whatever workers do meanwhile."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import orjson
import pytest

from sens_common.database import connect
from sens_common.envelope import Message
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from support.former_rows import allow_former_rows
from support.regular_readings import convert
from support.servers import owner
from support.workers import Publisher, TelemetryPath

NOW = 1_769_860_800_000_000
VALUES = """
    SELECT device_id, metric_id FROM sens.measurements UNION ALL SELECT device_id, metric_id FROM sens.text_measurements
    UNION ALL
    SELECT r.device_id, v.metric_id FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
    CROSS JOIN LATERAL (
        SELECT metric_id FROM unnest(s.number_ids, r.numbers) AS n (metric_id, value) WHERE value IS NOT NULL
        UNION ALL
        SELECT metric_id FROM unnest(s.text_ids, r.texts) AS t (metric_id, value) WHERE value IS NOT NULL
    ) v
"""
ORPHANS = f"""
    SELECT count(*) FROM ({VALUES}) m
    WHERE device_id NOT IN (SELECT id FROM sens.devices) OR metric_id NOT IN (SELECT id FROM sens.metrics)
"""  # noqa: S608 - constants
COUNT = f"SELECT count(*) FROM ({VALUES}) m"  # noqa: S608 - constants


class Deletions:
    """A database as its owner, as the API for a tenant, and as a worker."""

    def __init__(
        self,
        owner: "asyncpg.Connection[asyncpg.Record]",
        api: "asyncpg.Connection[asyncpg.Record]",
        database: Database,
    ) -> None:
        self.owner = owner
        self.api = api
        self.database = database
        self.builder = Interpreter(TimescaleRegistry(database), decoder("native"))

    async def fill(self, form: str, rows: int) -> None:
        """Store readings of three metrics for each of three devices, over some months.

        Args:
            form: ``former``: a row for each value, ``readings``: a row for each time, ``columnstore``: the same, in the columnstore where
                there is one.
            rows: Readings of each device.
        """
        messages = [
            Message(f"sens/v1/demo/d{device}/telemetry", b'{"a": 1, "b": true, "c": "x"}', NOW) for device in (1, 2, 3)
        ]
        await self.builder.interpret(messages)
        if form == "former":
            await self._fill_former(rows)
            return
        await self.store("a b", "c", rows, offset="0 s")
        if form == "columnstore":
            await convert(self.owner)

    async def _fill_former(self, rows: int) -> None:
        await allow_former_rows(self.owner, [datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 5)])
        for table, value, kinds in (("measurements", "1", "{number,boolean}"), ("text_measurements", "'x'", "{text}")):
            await self.owner.execute(
                f"""
                INSERT INTO sens.{table} SELECT d.id, m.id, timestamptz '2026-01-01' + n * interval '1 hour', {value}
                FROM sens.devices d, sens.metrics m, generate_series(1, {rows}) n WHERE m.kind = ANY ('{kinds}')
                """  # noqa: S608 - constants
            )

    async def store(self, numbers: str, texts: str, rows: int, *, offset: str) -> None:
        """Store readings of some metrics for each device, one an hour, in the form of a row for each time."""
        await self.owner.execute("SELECT sens.ensure_reading_partitions('2026-01-01', '2026-04-01')")
        set_id = await self.owner.fetchval(
            """
            INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) SELECT
                (SELECT id FROM sens.tenants WHERE name = 'demo'),
                ARRAY(SELECT id FROM sens.metrics WHERE name = ANY (string_to_array($1, ' ')) AND kind <> 'text' ORDER BY id),
                ARRAY(SELECT id FROM sens.metrics WHERE name = ANY (string_to_array($2, ' ')) AND kind = 'text' ORDER BY id)
            RETURNING id
            """,
            numbers,
            texts,
        )
        await self.owner.execute(
            "INSERT INTO sens.device_metric_sets SELECT id, $1, '2026-01-01', '2026-04-01' FROM sens.devices", set_id
        )
        await self.owner.execute(
            """
            INSERT INTO sens.readings
            SELECT d.id, $1, timestamptz '2026-01-01' + n * interval '1 hour' + $3::text::interval,
                CASE WHEN s.number_ids <> '{}' THEN array_fill(1::float8, ARRAY[cardinality(s.number_ids)]) END,
                CASE WHEN s.text_ids <> '{}' THEN array_fill('x'::text, ARRAY[cardinality(s.text_ids)]) END
            FROM sens.devices d, sens.metric_sets s, generate_series(1, $2) n WHERE s.id = $1
            """,
            set_id,
            rows,
            offset,
        )

    async def delete_device(self, name: str) -> bool:
        return bool(await self.api.fetchval("SELECT sens.delete_device($1, 'key 1 (test)', '192.0.2.1', 'r')", name))

    async def go_on(self) -> None:
        """Let the time pass that has to lie between two deletions of a tenant."""
        await self.owner.execute("UPDATE sens.registrations SET deleted_at = NULL")

    async def finish(self, most: int = 1000) -> list[int]:
        """Delete what is to be deleted; return what each step deleted."""
        steps = []
        while (step := await self.api.fetchrow("SELECT * FROM sens.continue_deletion($1)", most)) is not None:
            steps.append(step["deleted"])
        return steps


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[Deletions]:
    owner, api = await connect(settings, "test"), await connect(settings, "test", role=API_ROLE)
    try:
        tenant = await owner.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
        await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        async with open_pool(settings, "test") as pool:
            yield Deletions(owner, api, Database(pool, settings))
    finally:
        await owner.close()
        await api.close()


async def delete(settings: DatabaseSettings, name: str, *, metric: bool = False) -> bool:
    """Delete a device or a metric of the tenant demo, as the API does."""
    async with api_of(settings, "demo") as api:
        return await delete_as(api, name, metric=metric)


@asynccontextmanager
async def api_of(settings: DatabaseSettings, tenant_name: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Connect as the API does for a tenant."""
    async with owner(settings) as connection:
        tenant = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = $1", tenant_name)
    api = await connect(settings, "test", role=API_ROLE)
    try:
        await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        yield api
    finally:
        await api.close()


async def delete_as(api: "asyncpg.Connection[asyncpg.Record]", name: str, *, metric: bool = False) -> bool:
    """Delete a device or a metric; come again when the gate does not let it pass."""
    while True:
        try:
            if metric:
                return bool(await api.fetchval("SELECT sens.delete_metric($1, NULL, 'test', NULL, NULL)", name))
            return bool(await api.fetchval("SELECT sens.delete_device($1, 'test', NULL, NULL)", name))
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(0.05)


async def finish(settings: DatabaseSettings) -> None:
    """Delete the measurements of what is deleted."""
    api = await connect(settings, "test", role=API_ROLE)
    try:
        while await api.fetchrow("SELECT * FROM sens.continue_deletion(10000)") is not None:
            pass
    finally:
        await api.close()


@pytest.mark.parametrize("form", ["former", "readings", "columnstore"])
class TestDevice:
    async def test_is_out_of_sight_at_once_and_gone_in_steps(self, database: DatabaseSettings, form: str) -> None:
        async with opened(database) as deletions:
            await deletions.fill(form, 700)
            assert await deletions.delete_device("d2")
            seen = [
                await deletions.api.fetchval(f"SELECT count(*) FROM sens.{view}")  # noqa: S608 - constants
                for view in ("tenant_measurements", "tenant_text_measurements")
            ]
            steps = await deletions.finish()
            assert await deletions.owner.fetchval(COUNT) == 6 * 700
            names = await deletions.owner.fetch("SELECT name FROM sens.devices ORDER BY name")
            assert (seen, [row[0] for row in names]) == (
                [4 * 700, 2 * 700] if form == "former" else [0, 0],
                ["d1", "d3"],
            )
            assert sum(steps) == 3 * 700
            assert len(steps) > 1
            # Of the columnstore a step takes a whole chunk.
            assert max(steps) <= 1000 or form == "columnstore"
            assert await deletions.owner.fetchval("SELECT count(*) FROM sens.device_metric_sets") == (
                0 if form == "former" else 2
            )

    async def test_of_another_tenant_does_not_exist(self, database: DatabaseSettings, form: str) -> None:
        async with opened(database) as deletions:
            await deletions.fill(form, 1)
            other = await deletions.owner.fetchval("INSERT INTO sens.tenants (name) VALUES ('other') RETURNING id")
            unknown = await deletions.delete_device("nothing")
            await deletions.api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(other))
            assert (unknown, await deletions.delete_device("d1"), await deletions.owner.fetchval(COUNT)) == (
                False,
                False,
                9,
            )

    async def test_makes_room_for_another_and_is_in_the_audit(self, database: DatabaseSettings, form: str) -> None:
        async with opened(database) as deletions:
            await deletions.fill(form, 1)
            await deletions.delete_device("d1")
            event = await deletions.owner.fetchrow(
                "SELECT tenant, actor, action, subject, address, request_id FROM sens.audit_events"
            )
            assert event is not None
            assert (await deletions.owner.fetchval("SELECT devices FROM sens.registrations"), tuple(event)) == (
                2,
                ("demo", "key 1 (test)", "device.deleted", "d1", "192.0.2.1", "r"),
            )


@pytest.mark.parametrize("form", ["former", "readings", "columnstore"])
class TestMetric:
    async def test_of_one_kind_goes_from_all_devices(self, database: DatabaseSettings, form: str) -> None:
        async with opened(database) as deletions:
            await deletions.fill(form, 700)
            await deletions.builder.interpret([Message("sens/v1/demo/d1/telemetry", orjson.dumps({"a": "text"}), NOW)])
            delete = "SELECT sens.delete_metric($1, $2, 'key 1 (test)', NULL, NULL)"
            kinds = []
            for each in (("a", "number"), ("b", None), ("x", None)):
                kinds.append(await deletions.api.fetchval(delete, *each))
                await deletions.go_on()
            assert kinds == [["number"], ["boolean"], []]
            steps = await deletions.finish()
            assert sum(steps) == 6 * 700
            assert max(steps) <= 1000
            left = await deletions.owner.fetch("SELECT name || ' ' || kind FROM sens.metrics ORDER BY 1")
            counted = await deletions.owner.fetchval("SELECT metrics FROM sens.registrations")
            assert ([row[0] for row in left], await deletions.owner.fetchval(COUNT), counted) == (
                ["a text", "c text"],
                3 * 700,
                2,
            )


class TestMetricOfReadings:
    async def test_leaves_the_other_values_of_a_row_and_no_row_without_a_value(
        self, database: DatabaseSettings
    ) -> None:
        async with opened(database) as deletions:
            await deletions.fill("readings", 100)
            await deletions.store("a", "", 100, offset="1 s")
            await deletions.store("a", "c", 100, offset="2 s")
            await convert(deletions.owner)
            await deletions.store("b", "", 10, offset="3 s")
            for metric in ("a", "c"):
                await deletions.api.fetchval("SELECT sens.delete_metric($1, NULL, 'key 1 (test)', NULL, NULL)", metric)
                await deletions.go_on()
                await deletions.finish(most=100)
            rows = await deletions.owner.fetch(
                "SELECT numbers, texts, count(*)::int FROM sens.readings GROUP BY 1, 2 ORDER BY count(*)"
            )
            sets = await deletions.owner.fetchval("SELECT count(DISTINCT metric_set_id) FROM sens.device_metric_sets")
            assert ([tuple(row) for row in rows], sets) == ([([1.0], None, 30), ([None, 1.0], [None], 300)], 2)


class TestStoring:
    """A worker that remembers ids stores no row under one that is gone."""

    def test_goes_on_with_a_new_device_after_a_deletion(self, path: TelemetryPath) -> None:
        with Publisher(path.broker) as publisher:
            publisher.publish("sens/v1/demo/d1/telemetry", '{"ts": 1780000000, "a": 1}')
            path.wait_until_idle()
            before = path.fetch("SELECT id FROM sens.devices WHERE name = 'd1'")[0][0]
            assert asyncio.run(delete(path.database, "d1"))
            publisher.publish("sens/v1/demo/d1/telemetry", '{"ts": 1780000000, "a": 2}')
        path.wait_until_idle()
        asyncio.run(finish(path.database))
        assert [value for value in path.values() if value[0] == "d1"] == [("d1", "a", 1_780_000_000_000_000, 2.0)]
        assert path.fetch("SELECT id FROM sens.devices WHERE name = 'd1'")[0][0] > before
        assert path.fetch(ORPHANS)[0][0] == 0

    def test_leaves_no_row_of_what_is_deleted_meanwhile(self, path: TelemetryPath) -> None:
        names = [f"d{number}" for number in range(5)]

        published, has_deleted_enough = threading.Event(), threading.Event()

        async def delete_all_the_time() -> int:
            deleted = 0
            while not published.is_set():
                for name in names:
                    deleted += await delete(path.database, name)
                deleted += bool(await delete(path.database, "n", metric=True))
                if deleted >= len(names):
                    has_deleted_enough.set()
            return deleted

        def publish() -> None:
            try:
                with Publisher(path.broker) as publisher:
                    for start in range(0, 40_000, 200):
                        if start >= 4000 and has_deleted_enough.is_set():
                            break
                        publisher.publish_all(
                            [
                                (f"sens/v1/demo/{names[number % 5]}/telemetry", f'{{"n": {number}, "t": "x"}}'.encode())
                                for number in range(start, start + 200)
                            ]
                        )
            finally:
                published.set()

        publishing = threading.Thread(target=publish)
        publishing.start()
        deleted = asyncio.run(delete_all_the_time())
        publishing.join()
        path.wait_until_idle()
        asyncio.run(finish(path.database))
        assert deleted >= len(names)
        assert path.fetch(ORPHANS)[0][0] == 0
        assert path.fetch("SELECT unaccounted FROM sens.conservation() WHERE unaccounted <> 0") == []

    def test_of_a_tenant_is_not_held_up_by_another_ones_deletions(self, path: TelemetryPath) -> None:
        path.fetch("INSERT INTO sens.tenants (name) VALUES ('other')")
        path.fetch(
            "INSERT INTO sens.devices (tenant_id, name)"
            " SELECT id, 'd' || n FROM sens.tenants, generate_series(1, 100) n WHERE name = 'other'"
        )

        async def delete_all() -> None:
            async with api_of(path.database, "other") as api:
                for number in range(1, 101):
                    assert await delete_as(api, f"d{number}")

        deleting = threading.Thread(target=lambda: asyncio.run(delete_all()))
        with Publisher(path.broker) as publisher:
            publisher.publish("sens/v1/demo/d1/telemetry", '{"n": 1}')
            deleting.start()
            while deleting.is_alive():
                publisher.publish_all([("sens/v1/demo/d1/telemetry", b'{"n": 1}')] * 20)
        deleting.join()
        path.wait_until_idle()
        assert path.telemetry.metric("sens_telemetry_store_retries_total") == 0


class TestGate:
    async def test_lets_a_tenant_delete_now_and_then_only(self, database: DatabaseSettings) -> None:
        async with opened(database) as deletions:
            await deletions.fill("readings", 1)
            assert await deletions.delete_device("d1")
            with pytest.raises(asyncpg.LockNotAvailableError, match=r"every 0\.2 s"):
                await deletions.delete_device("d2")
            await deletions.go_on()
            assert await deletions.delete_device("d2")

    async def test_makes_a_deletion_wait_for_what_is_being_stored(self, database: DatabaseSettings) -> None:
        async with opened(database) as deletions:
            await deletions.fill("readings", 1)
            async with deletions.database.connection() as connection, connection.transaction():
                await connection.fetchval("SELECT generation FROM sens.name_generation")
                await deletions.api.execute("SELECT set_config('lock_timeout', '50ms', false)")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await deletions.delete_device("d1")
            assert await deletions.delete_device("d1")

    async def test_holds_while_names_are_registered(self, database: DatabaseSettings) -> None:
        """Registering and deleting at once neither lock each other out nor lose count."""

        async with opened(database) as deletions:
            names = [f"d{number}" for number in range(40)]

            async def register() -> None:
                for name in names * 3:
                    builder = Interpreter(TimescaleRegistry(deletions.database), decoder("native"))  # remembers nothing
                    # Where the device is deleted as soon as it is registered, the worker tries again.
                    with contextlib.suppress(StoreUnavailableError):
                        await builder.interpret([Message(f"sens/v1/demo/{name}/telemetry", b'{"a": 1}', NOW)])

            async def delete() -> None:
                for name in names * 3:
                    await deletions.go_on()
                    await deletions.delete_device(name)

            await asyncio.gather(register(), delete())
            existing, counted = (
                await deletions.owner.fetchval("SELECT count(*) FROM sens.devices"),
                await deletions.owner.fetchval("SELECT devices FROM sens.registrations"),
            )
        assert existing == counted
        assert existing <= 40
