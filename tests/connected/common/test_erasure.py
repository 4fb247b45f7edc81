"""Deleting a time range and a tenant, and erasing a device, while workers run: what is erased does not come back."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from sens_common import envelope
from sens_common.control import device_hash
from sens_common.database import connect
from sens_common.jetstream import connect as connect_nats
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.regular_readings import convert, store_readings
from support.servers import owner
from support.workers import Publisher, TelemetryPath

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
DELETE_RANGE = "SELECT sens.delete_range($1, $2, $3, $4, 'key 1 (test)', NULL, NULL)"


async def finish(api: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Let all deletions come to their end."""
    while await api.fetchrow("SELECT * FROM sens.continue_deletion(1000)") is not None:
        pass


async def api_of(settings: DatabaseSettings, tenant: int) -> "asyncpg.Connection[asyncpg.Record]":
    api = await connect(settings, "test", role=API_ROLE)
    await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
    return api


@pytest.mark.parametrize("columnstore", [False, True])
class TestRange:
    async def test_of_a_device_or_metric_goes_and_the_rest_stays(
        self, database: DatabaseSettings, columnstore: bool
    ) -> None:
        async with owner(database) as connection:
            tenant = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
            for device in ("d1", "d2"):
                await store_readings(connection, "demo", device, {"a": 1.0, "b": 2.0}, first=START, count=20 * 24)
            if columnstore:
                await convert(connection)
            api = await api_of(database, tenant)
            whole = await api.fetchval(DELETE_RANGE, "d1", None, START + DAY, START + 3 * DAY)
            values = await api.fetchval(DELETE_RANGE, "d1", "b", START + 2 * DAY, START + 10 * DAY)
            single = await api.fetchval(DELETE_RANGE, "d2", None, START, START + timedelta(microseconds=1))
            assert await api.fetchval(DELETE_RANGE, "d3", None, START, START + DAY) is None
            assert await api.fetchval(DELETE_RANGE, "d1", "c", START, START + DAY) is None
            await finish(api)
            left = await connection.fetch(
                """
                SELECT d.name, count(*)::int, count(r.numbers[1])::int, count(r.numbers[2])::int
                FROM sens.readings r JOIN sens.devices d ON d.id = r.device_id GROUP BY 1 ORDER BY 1
                """
            )
            assert [tuple(row) for row in left] == [("d1", 18 * 24, 18 * 24, 11 * 24), ("d2", 479, 479, 479)]
            receipts = await api.fetch('SELECT id, readings, "values" FROM sens.finished_deletions ORDER BY id')
            assert [tuple(row) for row in receipts] == [
                (whole, 48, 96), (values, 0, 7 * 24), (single, 1, 2)
            ]  # fmt: skip
            actions = await connection.fetch("SELECT action, details ->> 'metric' FROM sens.audit_events")
            assert [tuple(row) for row in actions] == [
                ("readings.deleted", None), ("readings.deleted", "b"), ("readings.deleted", None)
            ]  # fmt: skip
            await api.close()


class TestTenant:
    def test_is_gone_with_all_that_it_has(self, path: TelemetryPath) -> None:
        path.fetch("INSERT INTO sens.tenants (name) VALUES ('trial')")
        with Publisher(path.broker) as publisher:
            publisher.publish_all(
                [
                    (
                        f"sens/v1/trial/d{number % 3}/telemetry",
                        f'{{"ts": {1780000000 + number}, "a": {number}}}'.encode(),
                    )
                    for number in range(100)
                ]
            )
            publisher.publish("sens/v1/trial/d0/telemetry", "no json")
            path.wait_until_idle()
            assert path.fetch("SELECT sens.delete_tenant('trial', 'administrator')")[0][0] == 3
            publisher.publish("sens/v1/trial/d0/telemetry", '{"ts": 1780000000, "a": 1}')
            path.wait_until_idle()
        assert asyncio.run(self.rows_left(path.database)) == 0
        assert all(value[0].startswith("idle-") for value in path.values())
        letters = path.fetch("SELECT tenant_id, reason FROM sens.dead_letters")
        assert [tuple(row) for row in letters] == [(None, "unknown_tenant")]
        assert path.fetch("SELECT unaccounted FROM sens.conservation() WHERE unaccounted <> 0") == []

    @staticmethod
    async def rows_left(database: DatabaseSettings) -> int:
        """Let all deletions come to their end; return how many rows are left of devices that are gone."""
        async with owner(database) as connection:
            api = await api_of(database, 0)
            await finish(api)
            await api.close()
            left: int = await connection.fetchval(
                """
                SELECT (SELECT count(*) FROM sens.readings WHERE device_id NOT IN (SELECT id FROM sens.devices))
                    + (SELECT count(*) FROM sens.device_metric_sets WHERE device_id NOT IN (SELECT id FROM sens.devices))
                """
            )
            return left


class TestErasure:
    def test_keeps_earlier_messages_from_coming_back(self, path: TelemetryPath) -> None:
        topic = "sens/v1/demo/d1/telemetry"
        with Publisher(path.broker) as publisher:
            publisher.publish(topic, '{"ts": 1780000000, "a": 1, "b": "x"}')
            publisher.publish(topic, "no json")
            publisher.publish("sens/v1/demo/d2/telemetry", "no json")
            path.wait_until_idle()
            before = time.time_ns() // 1000
            asyncio.run(self.erase(path.database, "d1"))
            # A replay, or the stream's history: received before the erasure, for a device that is not there, then for one that is there again.
            asyncio.run(self.publish_received_at(path, topic, before, '{"ts": 1780000001, "a": 2}'))
            path.wait_until_idle()
            assert path.fetch("SELECT FROM sens.devices WHERE name = 'd1'") == []
            publisher.publish(topic, '{"ts": 1780000002, "a": 3}')
            path.wait_until_idle()
            asyncio.run(self.publish_received_at(path, topic, before, '{"ts": 1780000003, "a": 4}'))
            asyncio.run(self.publish_received_at(path, topic, before, "no json"))
            path.wait_until_idle()
        assert [value for value in path.values() if value[0] == "d1"] == [("d1", "a", 1_780_000_002_000_000, 3.0)]
        assert [tuple(row) for row in path.fetch("SELECT device FROM sens.dead_letters")] == [("d2",)]
        assert path.fetch("SELECT unaccounted FROM sens.conservation() WHERE unaccounted <> 0") == []
        assert path.fetch("SELECT sum(discarded)::int FROM sens.message_counts")[0][0] == 3
        receipt = path.fetch('SELECT readings, "values", letters FROM sens.finished_deletions')
        assert receipt[0]["letters"] == 1
        assert receipt[0]["values"] == 2
        actions = path.fetch("SELECT action, subject FROM sens.audit_events")
        assert [tuple(row) for row in actions] == [("device.erased", f"device with the hash {device_hash('d1').hex()}")]

    @staticmethod
    async def erase(database: DatabaseSettings, device: str) -> None:
        async with owner(database) as connection:
            tenant = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = 'demo'")
            api = await api_of(database, tenant)
            erase = "SELECT sens.erase_device($1, $2, 'key 1 (test)', NULL, NULL)"
            await api.fetchval(erase, device_hash(device), datetime.now(UTC))
            await finish(api)
            await api.close()

    @staticmethod
    async def publish_received_at(path: TelemetryPath, topic: str, received_at: int, payload: str) -> None:
        async with connect_nats(path.nats, "test") as client:
            await client.jetstream().publish(
                "sens.telemetry.replay",
                envelope.encode([envelope.Message(topic, payload.encode(), received_at)]),
                headers={
                    envelope.VERSION_HEADER: envelope.VERSION,
                    envelope.COUNT_HEADER: "1",
                    envelope.RECEIVED_HEADER: envelope.encode_counts({"demo": 1}),
                },
            )

    async def test_deletes_later_what_came_back_before_it_was_applied_again(self, database: DatabaseSettings) -> None:
        """As after a restore of the database, in which the erasure is missing."""
        async with owner(database) as connection:
            tenant = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
            now = datetime.now(UTC)
            await store_readings(connection, "demo", "d1", {"a": 1.0}, first=now - DAY, step=DAY * 2, count=2)
            api = await api_of(database, tenant)
            for _ in range(2):
                await api.execute(
                    "SELECT sens.apply_control(5, 7, $1, $2, $3)", tenant, device_hash("d1"), now - timedelta(hours=1)
                )
            await finish(api)
            assert await connection.fetchval("SELECT count(*) FROM sens.readings") == 1
            assert await connection.fetchval("SELECT count(*) FROM sens.erasures") == 1
            assert tuple(await connection.fetchrow("SELECT * FROM sens.control_progress") or ()) == (5, 7)
            await api.close()
