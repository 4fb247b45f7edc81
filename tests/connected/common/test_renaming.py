"""Renaming devices and tenants while workers run, and replacing a device under its name."""

import asyncio
from datetime import UTC, datetime

import asyncpg

from sens_common.control import device_hash
from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.regular_readings import store_readings
from support.servers import owner
from support.workers import Publisher, TelemetryPath

type Connection = asyncpg.Connection[asyncpg.Record]

RENAME = "SELECT sens.rename_device($1, $2, 'key 1 (test)', NULL, NULL)"


async def api_of(settings: DatabaseSettings, tenant: int) -> Connection:
    api = await connect(settings, "test", role=API_ROLE)
    await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
    return api


async def finish(api: Connection) -> None:
    """Let all deletions come to their end."""
    while await api.fetchrow("SELECT * FROM sens.continue_deletion(1000)") is not None:
        pass


class TestDevice:
    def test_keeps_its_history_and_leaves_its_name_to_another(self, path: TelemetryPath) -> None:
        topic = "sens/v1/demo/d1/telemetry"
        with Publisher(path.broker) as publisher:
            publisher.publish(topic, '{"ts": 1780000000, "a": 1}')
            path.wait_until_idle()
            assert asyncio.run(self.rename(path.database, "d1", "d1-old")) == "renamed"
            publisher.publish(topic, '{"ts": 1780000000, "a": 2}')
            publisher.publish("sens/v1/demo/d1-old/telemetry", '{"ts": 1780000001, "a": 3}')
            path.wait_until_idle()
        assert [(value[0], value[3]) for value in path.values() if value[0].startswith("d1")] == [
            ("d1", 2.0), ("d1-old", 1.0), ("d1-old", 3.0)
        ]  # fmt: skip
        assert path.fetch("SELECT count(*) FROM sens.dead_letters")[0][0] == 0
        event = path.fetch("SELECT action, subject, details ->> 'name' FROM sens.audit_events")
        assert [tuple(row) for row in event] == [("device.renamed", "d1", "d1-old")]

    @staticmethod
    async def rename(database: DatabaseSettings, name: str, new_name: str) -> str:
        async with owner(database) as connection:
            api = await api_of(database, await connection.fetchval("SELECT id FROM sens.tenants WHERE name = 'demo'"))
            answer: str = await api.fetchval(RENAME, name, new_name)
            await api.close()
            return answer

    async def test_is_refused_for_a_name_that_is_taken(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            tenant = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
            for device in ("d1", "d2"):
                await store_readings(connection, "demo", device, {"a": 1.0}, first=datetime(2026, 3, 2, tzinfo=UTC))
            api = await api_of(database, tenant)
            answers = [await api.fetchval(RENAME, *names) for names in (("d1", "d2"), ("d3", "d4"), ("d1", "d4"))]
            assert answers == ["taken", "unknown_device", "renamed"]
            await api.close()

    async def test_that_is_erased_later_takes_its_former_name_along(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            tenant = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
            api = await api_of(database, tenant)
            first = datetime(2026, 3, 2, tzinfo=UTC)
            await store_readings(connection, "demo", "old", {"a": 1.0}, first=first)
            await store_readings(connection, "demo", "new", {"a": 1.0}, first=first)
            await api.fetchval(RENAME, "old", "first")
            await connection.execute("UPDATE sens.registrations SET deleted_at = NULL")
            # Another device has the former name since.
            await api.fetchval(RENAME, "new", "old")
            names = await api.fetch("SELECT device_hash, until FROM sens.erased_names($1)", device_hash("first"))
            assert [row[0] for row in names] == [device_hash("first"), device_hash("old")]
            for hash_, until in names:
                await connection.execute("UPDATE sens.registrations SET deleted_at = NULL")
                await api.fetchval(
                    "SELECT sens.erase_device($1, $2, 'key 1 (test)', NULL, NULL)", hash_, until or datetime.now(UTC)
                )
            await finish(api)
            left = await connection.fetch(
                "SELECT d.name, (SELECT count(*) FROM sens.readings r WHERE r.device_id = d.id)::int FROM sens.devices d"
            )
            assert [tuple(row) for row in left] == [("old", 1)]
            await api.close()


class TestTenant:
    def test_has_its_devices_under_the_new_name(self, path: TelemetryPath) -> None:
        path.fetch("INSERT INTO sens.tenants (name) VALUES ('trial')")
        with Publisher(path.broker) as publisher:
            publisher.publish("sens/v1/trial/d1/telemetry", '{"ts": 1780000000, "a": 1}')
            path.wait_until_idle()
            assert path.fetch("SELECT sens.rename_tenant('trial', 'demo', 'administrator')")[0][0] is False
            assert path.fetch("SELECT sens.rename_tenant('trial', 'greenhouse', 'administrator')")[0][0] is True
            publisher.publish("sens/v1/greenhouse/d1/telemetry", '{"ts": 1780000001, "a": 2}')
            publisher.publish("sens/v1/trial/d1/telemetry", '{"ts": 1780000002, "a": 3}')
            path.wait_until_idle()
        assert [value[3] for value in path.values() if value[0] == "d1"] == [1.0, 2.0]
        letters = path.fetch("SELECT tenant_id, reason FROM sens.dead_letters")
        assert [tuple(row) for row in letters] == [(None, "unknown_tenant")]
