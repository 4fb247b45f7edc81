"""What goes through everything that is stored does so in short steps: deleting a tenant, looking for partitions that can be dropped."""

from datetime import UTC, datetime, timedelta

import asyncpg

from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.letters import dead_letter, insert_dead_letters
from support.regular_readings import store_readings
from support.rollups import begin_rollups, refresh_up_to
from support.servers import owner

type Connection = asyncpg.Connection[asyncpg.Record]

DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = TODAY - 100 * DAY


async def stored(connection: Connection) -> None:
    """Store readings of two devices of a tenant that keeps them for 30 days, and new ones of a tenant that keeps all."""
    await connection.execute("INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 10), ('other', 36500)")
    await connection.execute(
        "INSERT INTO sens.retention SELECT id, NULL, NULL, 'raw', 30 FROM sens.tenants WHERE name = 'demo'"
    )
    await begin_rollups(connection, FIRST)
    for device in ("d1", "d2"):
        await store_readings(connection, "demo", device, {"a": 1.0}, first=FIRST, step=DAY, count=99)
    await store_readings(connection, "other", "kept", {"a": 1.0}, first=TODAY - 5 * DAY)
    await connection.execute("DELETE FROM sens.former_devices")
    await refresh_up_to(connection, TODAY)


async def step(connection: Connection, devices: int) -> asyncpg.Record:
    """Look at so many devices, or drop a partition."""
    row = await connection.fetchrow("SELECT partition, finished FROM sens.continue_dropping($1)", devices)
    assert row is not None
    return row


async def look(connection: Connection) -> int:
    """Look at one device after the other until all are known; return how many steps that took."""
    steps = 0
    while await connection.fetchval("SELECT finished_at IS NULL FROM sens.dropping"):
        assert tuple(await step(connection, 1)) == (None, False)
        steps += 1
    return steps


class TestDropping:
    async def test_looks_at_some_devices_at_a_time_before_it_drops(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await stored(connection)
            assert await look(connection) == 4
            dropped = []
            while not (row := await step(connection, 10))["finished"]:
                dropped.append(row["partition"])
            assert len(dropped) >= 2
            assert None not in dropped
            oldest = await connection.fetchval("SELECT min(ts) FROM sens.readings")
            assert TODAY - 62 * DAY <= oldest <= TODAY - 30 * DAY

    async def test_begins_again_after_another_rule(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await stored(connection)
            await look(connection)
            await connection.execute("UPDATE sens.retention SET days = NULL")
            await connection.execute(
                "INSERT INTO sens.retention SELECT id, NULL, NULL, 'raw', 36500 FROM sens.tenants WHERE name = 'other'"
            )
            assert await look(connection) == 4
            assert tuple(await step(connection, 10)) == (None, True)

    async def test_keeps_a_partition_into_which_something_came_meanwhile(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await stored(connection)
            await look(connection)
            await store_readings(connection, "other", "kept", {"a": 2.0}, first=FIRST + DAY / 2)
            await connection.execute(
                "SELECT sens.note_changed(id, $1, $2) FROM sens.devices WHERE name = 'kept'", FIRST, FIRST + DAY
            )
            await refresh_up_to(connection, TODAY)
            while not (row := await step(connection, 10))["finished"]:
                assert row["partition"] is None
            assert await connection.fetchval("SELECT count(*) FROM sens.readings WHERE numbers = '{2}'") == 1

    async def test_waits_for_the_rollups_and_says_so(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await stored(connection)
            await connection.execute("SELECT sens.note_changed(min(id), $1, $2) FROM sens.devices", FIRST, FIRST + DAY)
            status = "SELECT waiting_since IS NOT NULL FROM sens.retention_status() WHERE tenant IS NULL"
            await look(connection)
            assert tuple(await step(connection, 10)) == (None, True)
            assert await connection.fetchval(status)
            await refresh_up_to(connection, TODAY)
            await look(connection)
            assert (await step(connection, 10))["partition"] is not None
            assert not await connection.fetchval(status)


class TestTenant:
    async def test_goes_in_steps_and_leaves_its_name_at_once(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await connection.execute("INSERT INTO sens.tenants (name) VALUES ('trial'), ('other')")
            for tenant in ("trial", "other"):
                for device in range(12):
                    await store_readings(connection, tenant, f"d{device}", {"a": 1.0, "b": "x"}, first=FIRST, count=30)
            await connection.execute("INSERT INTO sens.registrations SELECT id, 12, 2 FROM sens.tenants")
            await insert_dead_letters(connection, [dead_letter(tenant="trial") for _ in range(25)])
            assert await connection.fetchval("SELECT sens.delete_tenant('trial', 'administrator')") == 12
            assert await connection.fetchval("SELECT sens.delete_tenant('trial', 'administrator')") is None
            await connection.execute("INSERT INTO sens.tenants (name) VALUES ('trial')")
            api = await connect(database, "test", role=API_ROLE)
            steps = []
            while (row := await api.fetchrow("SELECT * FROM sens.continue_deletion(20)")) is not None:
                steps.append(row["deleted"])
            await api.close()
            assert len(steps) > 12 * 60 / 20
            assert max(steps) <= 20
            left = await connection.fetch(
                """
                SELECT (SELECT count(*)::int FROM sens.devices), (SELECT count(*)::int FROM sens.readings), (SELECT count(*)::int FROM sens.metrics),
                    (SELECT count(*)::int FROM sens.metric_sets), (SELECT count(*)::int FROM sens.dead_letters), (SELECT count(*)::int FROM sens.tenants)
                """
            )
            assert [tuple(row) for row in left] == [(12, 360, 2, 1, 0, 2)]
            assert await connection.fetchval("SELECT subject FROM sens.finished_deletions") == "tenant trial"
