"""The schema on a real server: who sees which rows, where a reading finds its partition, and how a query finds its rows."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg
import pytest

from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from support.letters import dead_letter, insert_dead_letters
from support.servers import execute_as, owner

type Connection = asyncpg.Connection[asyncpg.Record]

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY_HASH = hashlib.sha256(b"sens_a key").digest()
REVOKED_HASH = hashlib.sha256(b"sens_a revoked key").digest()
TENANT_TABLES = (
    "tenants",
    "devices",
    "metrics",
    "tenant_measurements",
    "tenant_text_measurements",
    "message_counts",
    "tenant_dead_letters",
    "dead_letter_usage",
)


class Tenant(NamedTuple):
    """A tenant with one device, a number of 21.5 and a text of 'secret of <name>' at `NOON`."""

    id: int
    device: int
    number: int
    text: int


class Tenants(NamedTuple):
    """Two tenants in one database."""

    database: DatabaseSettings
    a: Tenant
    b: Tenant


@asynccontextmanager
async def api(database: DatabaseSettings, tenant_id: int | None) -> AsyncIterator[Connection]:
    """Connect as the API does for a request of one tenant, None for a request whose tenant was not set."""
    connection = await connect(database, "test", role=API_ROLE)
    try:
        async with connection.transaction():
            if tenant_id is not None:
                await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(tenant_id))
            yield connection
    finally:
        await connection.close()


async def add_tenant(connection: Connection, name: str) -> Tenant:
    tenant = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ($1) RETURNING id", name)
    device = await connection.fetchval(
        "INSERT INTO sens.devices (tenant_id, name) VALUES ($1, 'thermometer') RETURNING id", tenant
    )
    add_metric = "INSERT INTO sens.metrics (tenant_id, name, kind) VALUES ($1, $2, $3) RETURNING id"
    number = await connection.fetchval(add_metric, tenant, "temperature", "number")
    text = await connection.fetchval(add_metric, tenant, "firmware", "text")
    await connection.execute("INSERT INTO sens.measurements VALUES ($1, $2, $3, 21.5)", device, number, NOON)
    await connection.execute(
        "INSERT INTO sens.text_measurements VALUES ($1, $2, $3, $4)", device, text, NOON, f"secret of {name}"
    )
    await connection.execute("INSERT INTO sens.message_counts VALUES ($1, $2, 1, 1, 0)", tenant, NOON.date())
    await insert_dead_letters(connection, [dead_letter(tenant=name, device=f"of-{name}")])
    return Tenant(tenant, device, number, text)


@pytest.fixture
def tenants(former_database: DatabaseSettings) -> Tenants:
    async def add() -> Tenants:
        async with owner(former_database) as connection:
            await connection.execute("SELECT sens.ensure_partitions($1, $1)", NOON)
            return Tenants(former_database, await add_tenant(connection, "a"), await add_tenant(connection, "b"))

    return asyncio.run(add())


@pytest.fixture
def partitioned(former_database: DatabaseSettings) -> DatabaseSettings:
    """A database with PostgreSQL's own partitions."""

    async def kind() -> str:
        async with owner(former_database) as connection:
            return str(await connection.fetchval("SELECT kind FROM sens.storage"))

    if asyncio.run(kind()) != "postgresql":
        pytest.skip("this server has TimescaleDB, which makes its chunks by itself")
    return former_database


async def partitions(connection: Connection, parent: str = "measurements") -> dict[str, str]:
    """Return the partitions of a table with their bounds."""
    rows = await connection.fetch(
        """
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::text::regclass ORDER BY 1
        """,
        f"sens.{parent}",
    )
    return {row["relname"]: row["bounds"] for row in rows}


class TestRowsOfATenant:
    async def test_are_all_that_a_request_of_the_tenant_sees(self, tenants: Tenants) -> None:
        async def see(tenant: Tenant) -> dict[str, list[asyncpg.Record]]:
            async with api(tenants.database, tenant.id) as connection:
                return {table: await connection.fetch(f"SELECT * FROM sens.{table}") for table in TENANT_TABLES}  # noqa: S608 - our own names

        for tenant, name in ((tenants.a, "a"), (tenants.b, "b")):
            seen = await see(tenant)
            assert [(row["id"], row["name"]) for row in seen["tenants"]] == [(tenant.id, name)]
            assert [row["id"] for row in seen["devices"]] == [tenant.device]
            assert {row["id"] for row in seen["metrics"]} == {tenant.number, tenant.text}
            assert [(row["tenant_id"], row["stored"]) for row in seen["message_counts"]] == [(tenant.id, 1)]
            assert [(row["tenant_id"], row["device"]) for row in seen["tenant_dead_letters"]] == [
                (tenant.id, f"of-{name}")
            ]
            assert [(row["tenant_id"], row["letters"]) for row in seen["dead_letter_usage"]] == [(tenant.id, 1)]
            assert [tuple(row) for row in seen["tenant_measurements"]] == [(tenant.device, tenant.number, NOON, 21.5)]
            assert [tuple(row) for row in seen["tenant_text_measurements"]] == [
                (tenant.device, tenant.text, NOON, f"secret of {name}")
            ]

    async def test_are_not_found_by_another_tenant_who_names_them(self, tenants: Tenants) -> None:
        async with api(tenants.database, tenants.a.id) as connection:
            assert [
                await connection.fetchval("SELECT count(*) FROM sens.tenants WHERE id = $1", tenants.b.id),
                await connection.fetchval("SELECT count(*) FROM sens.devices WHERE id = $1", tenants.b.device),
                await connection.fetchval(
                    "SELECT count(*) FROM sens.tenant_measurements WHERE device_id = $1", tenants.b.device
                ),
                await connection.fetchval(
                    "SELECT count(*) FROM sens.tenant_text_measurements WHERE value LIKE 'secret of b%'"
                ),
            ] == [0, 0, 0, 0]

    async def test_are_invisible_without_a_tenant(self, tenants: Tenants) -> None:
        async def count(setting: str | None) -> list[int]:
            async with api(tenants.database, None) as connection:
                if setting is not None:
                    await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", setting)
                return [await connection.fetchval(f"SELECT count(*) FROM sens.{table}") for table in TENANT_TABLES]  # noqa: S608 - our own names

        for setting in (None, "", "0"):
            assert await count(setting) == [0] * len(TENANT_TABLES)

    async def test_are_forgotten_at_the_end_of_the_transaction(self, tenants: Tenants) -> None:
        connection = await connect(tenants.database, "test", role=API_ROLE)
        try:
            async with connection.transaction():
                await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(tenants.a.id))
                during = await connection.fetchval("SELECT count(*) FROM sens.tenant_measurements")
            assert (during, await connection.fetchval("SELECT count(*) FROM sens.tenant_measurements")) == (1, 0)
        finally:
            await connection.close()

    async def test_give_the_api_no_right_on_tables_and_none_to_write(self, tenants: Tenants) -> None:
        statements = [
            "SELECT 1 FROM sens.api_keys",
            "SELECT 1 FROM sens.measurements",
            "SELECT 1 FROM sens.text_measurements",
            "INSERT INTO sens.tenant_measurements VALUES (1, 1, now(), 1)",
            "UPDATE sens.tenant_measurements SET value = 0",
            "DELETE FROM sens.tenant_text_measurements",
            "INSERT INTO sens.tenants (name) VALUES ('mine')",
            "UPDATE sens.devices SET tenant_id = 1",
            "DELETE FROM sens.metrics",
            "TRUNCATE sens.devices",
            "ALTER TABLE sens.devices DISABLE ROW LEVEL SECURITY",
            "CREATE TABLE sens.mine ()",
        ]

        async with api(tenants.database, tenants.a.id) as connection:
            for statement in statements:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with connection.transaction():
                        await connection.execute(statement)

    async def test_are_out_of_reach_in_the_partitions_and_chunks_too(self, tenants: Tenants) -> None:
        async def readable() -> list[str]:
            async with owner(tenants.database) as connection:
                tables = await connection.fetch(
                    """
                    SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind IN ('r', 'p', 'v', 'm')
                      AND (n.nspname = 'sens' OR n.nspname = '_timescaledb_internal' AND c.relname LIKE '%hyper%chunk')
                      AND has_table_privilege($1, c.oid, 'SELECT')
                    """,
                    API_ROLE,
                )
                return sorted(row["name"] for row in tables)

        assert await readable() == sorted(
            f"sens.{table}"
            for table in (*TENANT_TABLES, "audit_events", "deletions", "registrations", "schema_migrations")
        )

    async def test_are_not_shown_to_a_function_in_another_tenants_query(self, tenants: Tenants) -> None:
        heard: list[str] = []

        async def spy(table: str, column: str) -> list[str]:
            heard.clear()
            # It costs next to nothing, so that the planner would like to call it before everything else.
            await execute_as(
                tenants.database,
                """
                CREATE OR REPLACE FUNCTION sens.leak(seen text) RETURNS boolean LANGUAGE plpgsql COST 0.0001
                AS $$ BEGIN RAISE NOTICE '%', seen; RETURN true; END $$
                """,
            )
            async with api(tenants.database, tenants.a.id) as connection:
                connection.add_log_listener(lambda _connection, message: heard.append(message.message))
                await connection.fetch(f"SELECT * FROM {table} WHERE sens.leak({column})")  # noqa: S608 - our own names
            return heard

        device = str(tenants.a.device)
        assert await spy("sens.tenant_text_measurements", "value") == ["secret of a"]
        assert await spy("sens.tenant_measurements", "device_id::text") == [device]
        assert await spy("sens.devices", "id::text") == [device]

    async def test_are_not_shown_by_an_error_in_another_tenants_query(self, tenants: Tenants) -> None:
        async with api(tenants.database, tenants.a.id) as connection:
            assert (
                len(
                    await connection.fetch(
                        "SELECT * FROM sens.tenant_measurements WHERE 1 / (device_id - $1) IS NOT NULL",
                        tenants.b.device,
                    )
                )
                == 1
            )


class TestAuthenticate:
    @pytest.fixture
    def keys(self, tenants: Tenants) -> Tenants:
        async def add() -> None:
            async with owner(tenants.database) as connection:
                statement = "INSERT INTO sens.api_keys (tenant_id, name, prefix, hash, revoked_at) VALUES ($1, 'k', 'sens_', $2, $3)"
                await connection.execute(statement, tenants.b.id, KEY_HASH, None)
                await connection.execute(statement, tenants.b.id, REVOKED_HASH, NOON)

        asyncio.run(add())
        return tenants

    async def ask(self, database: DatabaseSettings, key_hash: bytes | None) -> list[asyncpg.Record]:
        async with api(database, None) as connection:
            return await connection.fetch("SELECT * FROM sens.authenticate($1)", key_hash)

    async def test_names_the_tenant_of_a_key(self, keys: Tenants) -> None:
        (row,) = await self.ask(keys.database, KEY_HASH)
        assert (row["tenant_id"], row["tenant"]) == (keys.b.id, "b")

    async def test_names_none_for_a_revoked_or_unknown_key(self, keys: Tenants) -> None:
        for key_hash in (REVOKED_HASH, hashlib.sha256(b"unknown").digest(), b"", None):
            assert await self.ask(keys.database, key_hash) == []


class TestEnsurePartitions:
    async def run(self, database: DatabaseSettings, work: Callable[[Connection], Awaitable[object]]) -> dict[str, str]:
        """Do the work and return the measurements' partitions afterwards."""

        async with owner(database) as connection:
            await work(connection)
            numbers = await partitions(connection)
            texts = await partitions(connection, "text_measurements")
            assert {f"text_{name}": bounds for name, bounds in numbers.items()} == texts
            return numbers

    async def test_has_made_this_month_and_the_next_two_ahead(self, partitioned: DatabaseSettings) -> None:
        async def nothing(connection: Connection) -> None:
            pass

        months = [datetime.now(UTC).replace(day=1)]
        for _ in range(2):
            months.append((months[-1] + timedelta(days=32)).replace(day=1))
        assert {f"measurements_{month:%Y_%m}" for month in months} <= set(await self.run(partitioned, nothing))

    async def test_gives_a_late_reading_of_last_year_a_home(self, partitioned: DatabaseSettings) -> None:
        late = datetime(datetime.now(UTC).year - 1, 3, 15, tzinfo=UTC)

        async def store(connection: Connection) -> None:
            insert = "INSERT INTO sens.measurements VALUES (1, 1, $1, 5)"
            with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
                await connection.execute(insert, late)
            await connection.execute("SELECT sens.ensure_partitions($1, $1)", late)
            await connection.execute(insert, late)
            assert await connection.fetchval("SELECT value FROM sens.measurements WHERE ts = $1", late) == 5

        assert f"measurements_{late:%Y_%m}" in await self.run(partitioned, store)

    async def test_covers_every_month_from_the_first_to_the_last(self, partitioned: DatabaseSettings) -> None:
        async def make(connection: Connection) -> None:
            await connection.execute(
                "SELECT sens.ensure_partitions($1, $2)",
                datetime(2019, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC),
                datetime(2020, 2, 1, tzinfo=UTC),
            )

        made = [name for name in await self.run(partitioned, make) if re.search("2019|2020", name)]
        assert made == [f"measurements_{month}" for month in ("2019_11", "2019_12", "2020_01", "2020_02")]

    async def test_cuts_at_the_months_of_utc_whatever_the_sessions_time_zone(
        self, partitioned: DatabaseSettings
    ) -> None:
        last_instant = datetime(2020, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)

        async def make(connection: Connection) -> None:
            await connection.execute("SET timezone = 'Pacific/Auckland'")
            await connection.execute("SET datestyle = 'German'")
            for instant in (last_instant, last_instant + timedelta(microseconds=1)):
                await connection.execute("SELECT sens.ensure_partitions($1, $1)", instant)
                await connection.execute("INSERT INTO sens.measurements VALUES (1, 1, $1, 1)", instant)
            assert await connection.fetchval("SHOW timezone") == "Pacific/Auckland"
            await connection.execute("SET timezone = 'UTC'")
            await connection.execute("SET datestyle = 'ISO'")

        made = {name: bounds for name, bounds in (await self.run(partitioned, make)).items() if "2020" in name}
        assert made == {
            "measurements_2020_02": "FOR VALUES FROM ('2020-02-01 00:00:00+00') TO ('2020-03-01 00:00:00+00')",
            "measurements_2020_03": "FOR VALUES FROM ('2020-03-01 00:00:00+00') TO ('2020-04-01 00:00:00+00')",
        }

    async def test_is_safe_from_several_sessions_that_write_at_once(self, partitioned: DatabaseSettings) -> None:
        months = [datetime(2018, month, 1, tzinfo=UTC) for month in range(1, 13)]

        async def write(session: int) -> None:
            async with owner(partitioned) as connection:
                for month in months[session:] + months[:session]:
                    async with connection.transaction():
                        await connection.execute("SELECT sens.ensure_partitions($1, $1)", month)
                        await connection.execute("INSERT INTO sens.measurements VALUES ($1, 1, $2, 1)", session, month)

        async def several(connection: Connection) -> None:
            await asyncio.gather(*(write(session) for session in range(6)))
            assert await connection.fetchval("SELECT count(*) FROM sens.measurements") == 6 * len(months)

        assert len([name for name in await self.run(partitioned, several) if "2018" in name]) == len(months)

    async def test_lets_others_write_while_a_partition_is_being_made(self, partitioned: DatabaseSettings) -> None:
        async def write(connection: Connection) -> None:
            async with owner(partitioned) as other, connection.transaction():
                await connection.execute("SELECT sens.ensure_partitions('2017-05-01', '2017-05-01')")
                await other.execute("SET lock_timeout = '5s'")
                await other.execute("INSERT INTO sens.measurements VALUES (1, 1, now(), 1)")
                assert await other.fetchval("SELECT count(*) FROM sens.measurements") == 1

        assert "measurements_2017_05" in await self.run(partitioned, write)

    async def test_refuses_times_without_end(self, partitioned: DatabaseSettings) -> None:
        async def call(connection: Connection) -> None:
            for first, last in (("-infinity", "2020-01-01"), ("2020-01-01", "infinity")):
                with pytest.raises(asyncpg.RaiseError, match="must be finite"):
                    await connection.execute(
                        "SELECT sens.ensure_partitions($1::text::timestamptz, $2::text::timestamptz)", first, last
                    )

        assert not [name for name in await self.run(partitioned, call) if "2020" in name]

    async def test_does_nothing_where_the_extension_makes_chunks(self, former_database: DatabaseSettings) -> None:
        async with owner(former_database) as connection:
            for _ in range(2):
                await connection.execute("SELECT sens.ensure_partitions(now(), now() + interval '2 months')")


class TestRangeQuery:
    async def test_of_one_device_reads_its_months_by_the_primary_key_alone(self, partitioned: DatabaseSettings) -> None:
        async def explain() -> str:
            async with owner(partitioned) as connection:
                await connection.execute(
                    "SELECT sens.ensure_partitions($1, $2)",
                    datetime(2025, 1, 1, tzinfo=UTC),
                    datetime(2026, 1, 31, tzinfo=UTC),
                )
                tenant = await add_tenant(connection, "a")
                await connection.execute(
                    """
                    INSERT INTO sens.measurements
                    SELECT device, $2, ts, 1 FROM generate_series($1::int, $1 + 20) device,
                        generate_series(timestamptz '2025-10-01', timestamptz '2026-01-30', interval '1 hour') ts
                    """,
                    tenant.device,
                    tenant.number,
                )
                await connection.execute("ANALYZE sens.measurements")
            async with api(partitioned, tenant.id) as connection:
                rows = await connection.fetch(
                    """
                    EXPLAIN (COSTS OFF) SELECT ts, value FROM sens.tenant_measurements
                    WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4 ORDER BY ts
                    """,
                    tenant.device,
                    tenant.number,
                    datetime(2025, 11, 20, tzinfo=UTC),
                    datetime(2025, 12, 5, tzinfo=UTC),
                )
                return "\n".join(row[0] for row in rows)

        plan = await explain()
        assert set(re.findall(r" on (measurements_\d{4}_\d\d)", plan)) == {
            "measurements_2025_11",
            "measurements_2025_12",
        }, plan
        scans = [line for line in plan.splitlines() if re.search(r"Scan.* on (?:measurements|\w+_pkey)", line)]
        assert scans, plan
        assert all("_pkey" in scan or "Bitmap Heap" in scan for scan in scans), plan
        conditions = re.findall(r"Index Cond: \((\(device_id = .*)\)", plan)
        assert len(conditions) == 2, plan
        assert all(part in condition for condition in conditions for part in ("metric_id =", "ts >=", "ts <")), plan


class TestAuditEvents:
    async def _recorded(self, settings: DatabaseSettings) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await connect(settings, "test")
        await connection.execute("INSERT INTO sens.tenants (name) VALUES ('a'), ('b')")
        for tenant in ("a", "b"):
            await connection.execute(
                "SELECT sens.record_audit((SELECT id FROM sens.tenants WHERE name = $1), 'administrator', 'key.created', 'k')",
                tenant,
            )
        return connection

    async def test_are_written_and_read_by_the_api_for_its_tenant_only(self, database: DatabaseSettings) -> None:
        connection = await self._recorded(database)
        tenant_id = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = 'a'")
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE sens_api")
            await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(tenant_id))
            await connection.execute("SELECT sens.record_audit($1, 'key 1 (x)', 'device.deleted', 'd')", tenant_id)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await connection.execute(
                        "INSERT INTO sens.audit_events (actor, action, subject) VALUES ('x', 'a.b', '')"
                    )
            rows = await connection.fetch("SELECT tenant, action FROM sens.audit_events ORDER BY id")
        await connection.close()
        assert [f"{row['tenant']} {row['action']}" for row in rows] == ["a key.created", "a device.deleted"]

    @pytest.mark.parametrize(
        "change",
        ["UPDATE sens.audit_events SET actor = 'x'", "DELETE FROM sens.audit_events", "TRUNCATE sens.audit_events"],
    )
    async def test_are_not_changed_by_their_owner_either(self, database: DatabaseSettings, change: str) -> None:
        async def scenario() -> None:
            connection = await self._recorded(database)
            try:
                await connection.execute(change)
            finally:
                await connection.close()

        with pytest.raises(asyncpg.RaiseError, match="neither changed nor deleted"):
            await scenario()
