"""Logins of tenants on a real server: what they see, what they can't do, and what ends what they do for too long."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
import pytest
from pydantic import SecretStr

from sens_common.database import connect
from sens_common.errors import UnavailableError
from sens_common.logins import API_ROLE, READER_ROLE
from sens_common.privileges import shortcomings_of_login
from sens_common.settings import DatabaseSettings
from sens_platform_api.errors import NotFoundError, RefusedError
from sens_platform_api.sql_logins import administration
from sens_platform_api.sql_logins.administration import NewLogin
from support.servers import eventually, execute_as, owner
from support.stored_rows import Form, Row, insert_measurements

type Connection = asyncpg.Connection[asyncpg.Record]

NOON: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
RANGE: Final = "'2026-01-01Z', '2026-03-01Z'"
VIEWS: Final = ("devices_by_name", "latest_by_name", "measurements_by_name", "series_by_name", "units_by_name")
FUNCTIONS: Final = {
    "own_devices()": "own_devices()",
    "own_device_sets()": "own_device_sets()",
    "own_elements()": "own_elements()",
    "own_units()": "own_units()",
    "own_calibrations()": "own_calibrations()",
    "latest(text)": "latest($1)",
    "series(text,text,timestamp with time zone,timestamp with time zone,integer,boolean)": f"series($1, 'n', {RANGE})",
    "buckets(text,text,timestamp with time zone,timestamp with time zone,interval,text)": f"buckets($1, 'n', {RANGE}, '1 day')",
}
"""What a login may call, and a call that asks for a device."""
EMPTY: Final = "unmoved_measurements()"
"""What a login may call too, and has no row for anybody."""
HARMLESS: Final = frozenset(
    {
        "conservation(date)",
        "current_tenant_id()",
        "metric_set_digest(integer[],integer[])",
        "note_dead_letter_usage()",
        "pass_on_dead_letters()",
        "raise_tenant_generation()",
        "refuse_change_of_audit_events()",
    }
)
"""What everybody may call: it works with the caller's rights, of which a login has none, or is called by triggers alone."""


class World(NamedTuple):
    """A database with two tenants that have the same metrics, and a login of each."""

    database: DatabaseSettings
    a: DatabaseSettings
    b: DatabaseSettings


def of(database: DatabaseSettings, made: NewLogin) -> DatabaseSettings:
    """Return the settings with which a login logs in."""
    return database.model_copy(update={"user": made.login.login, "password": SecretStr(made.password)})


async def make_login(connection: Connection, tenant: str, *, connections: int = 5, seconds: int = 30) -> NewLogin:
    async with connection.transaction():
        return await administration.create(
            connection, tenant=tenant, name="test", connections=connections, statement_seconds=seconds
        )


async def make_world(database: DatabaseSettings) -> World:
    async with owner(database) as connection:
        logins = []
        for tenant, value in (("a", 1.0), ("b", 2.0)):
            await connection.execute("INSERT INTO sens.tenants (name) VALUES ($1)", tenant)
            rows: list[Row] = [(f"{tenant}-device", "n", NOON + timedelta(hours=hour), value) for hour in range(3)]
            rows += [(device, "t", time, f"text of {tenant}") for device, _, time, _ in rows]
            await insert_measurements(connection, tenant, rows, Form.READINGS)
            await connection.execute(
                'INSERT INTO sens.profiles (tenant_id, name, metrics) SELECT id, \'p\', \'{"n": {"unit": "Cel"}}\' FROM sens.tenants WHERE name = $1',
                tenant,
            )
            await connection.execute(
                "INSERT INTO sens.device_profiles SELECT d.id, p.id FROM sens.devices d JOIN sens.profiles p USING (tenant_id) WHERE d.name = $1",
                f"{tenant}-device",
            )
            await connection.execute(
                "INSERT INTO sens.calibrations (device_id, metric_id, valid_from, scale, addend, reason, added_by)"
                " SELECT d.id, m.id, '2020-01-01Z', 1, 0, '', 'x' FROM sens.devices d JOIN sens.metrics m USING (tenant_id)"
                " WHERE d.name = $1 AND m.name = 'n'",
                f"{tenant}-device",
            )
            logins.append(await make_login(connection, tenant))
    return World(database, of(database, logins[0]), of(database, logins[1]))


@pytest.fixture
async def world(database: DatabaseSettings) -> World:
    return await make_world(database)


@asynccontextmanager
async def session(settings: DatabaseSettings) -> AsyncIterator[Connection]:
    connection = await connect(settings, "test")
    try:
        yield connection
    finally:
        await connection.close()


async def everything(connection: Connection, devices: Sequence[str]) -> dict[str, str]:
    """Return what each view and function shows, as text."""
    seen = {
        view: str([tuple(row) for row in await connection.fetch(f"SELECT * FROM sens.{view} ORDER BY 1, 2")])  # noqa: S608 - our own names
        for view in VIEWS
    }
    for name, call in FUNCTIONS.items():
        answers = [
            await connection.fetch(f"SELECT * FROM sens.{call}", *([device] if "$1" in call else []))  # noqa: S608 - our own names
            for device in devices
        ]
        seen[name] = str([tuple(row) for answer in answers for row in answer])
    return seen


class TestALogin:
    async def test_sees_its_own_tenant_through_everything_that_it_may_touch(self, world: World) -> None:
        devices = ["a-device", "b-device"]
        async with session(world.a) as one, session(world.b) as other:
            seen, seen_by_other = await everything(one, devices), await everything(other, devices)
        for name, answer in seen.items():
            assert answer not in ("[]", seen_by_other[name])
            assert "b-device" not in answer
            assert "text of b" not in answer
        assert "text of a" in seen["latest_by_name"]
        assert "2.0" not in seen["measurements_by_name"]

    async def test_may_touch_nothing_but_that(self, world: World) -> None:
        async with session(world.a) as connection:
            relations = await connection.fetch(
                """
                SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                    AND (
                        c.relkind = 'S' AND has_sequence_privilege(c.oid, 'SELECT, USAGE, UPDATE')
                        OR c.relkind <> 'S' AND (
                            has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                            OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                        )
                    )
                """
            )
            written = await connection.fetch(
                """
                SELECT c.oid::regclass::text AS name FROM pg_class c
                WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p')
                    AND (has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(c.oid, 'INSERT, UPDATE'))
                """
            )
            functions = await connection.fetch(
                """
                SELECT replace(p.oid::regprocedure::text, 'sens.', '') AS name FROM pg_proc p
                WHERE p.pronamespace = 'sens'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
                """
            )
            schemas = await connection.fetch(
                """
                SELECT nspname AS name, has_schema_privilege(oid, 'CREATE') AS create FROM pg_namespace
                WHERE has_schema_privilege(oid, 'CREATE, USAGE')
                """
            )
            databases = await connection.fetch(
                """
                SELECT datname AS name FROM pg_database
                WHERE datallowconn AND has_database_privilege(datname, 'CONNECT, CREATE, TEMPORARY') AND datname !~ '^sens_test_'
                """
            )
        # TimescaleDB lets everybody read its catalogue: names and sizes of hypertables and chunks, and no row of them.
        of_the_extension = {row["schema"] for row in relations} - {"sens"}
        assert {schema for schema in of_the_extension if "timescaledb" not in schema} == set()
        assert [row["name"] for row in relations if row["name"].endswith("_chunk")] == []
        assert {row["name"] for row in relations if row["schema"] == "sens"} == set(VIEWS)
        assert {row["name"] for row in written} <= {"pg_settings"}
        assert {row["name"] for row in functions} == FUNCTIONS.keys() | {EMPTY} | HARMLESS
        assert [row["name"] for row in schemas if row["create"]] == []
        assert {row["name"] for row in schemas if "timescaledb" not in row["name"]} == {
            "pg_catalog",
            "information_schema",
            "sens",
        }
        assert {row["name"] for row in databases} == set()

    async def test_is_that_tenants_whatever_it_sets(self, world: World) -> None:
        async with owner(world.database) as connection:
            other = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = 'b'")
        async with session(world.a) as connection:
            await connection.execute(f"SET sens.tenant_id = '{other}'")
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute("SET search_path = pg_temp, public, sens")
            await connection.execute("SET row_security = off")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"ALTER ROLE \"{world.a.user}\" SET sens.tenant_id = '{other}'")
            devices = await connection.fetch("SELECT device FROM sens.devices_by_name")
        assert [row["device"] for row in devices] == ["a-device"]

    async def test_can_become_nobody_else(self, world: World) -> None:
        async with session(world.a) as connection:
            version = connection.get_server_version().major
            for role in (world.database.user, world.b.user, API_ROLE, *([READER_ROLE] if version >= 16 else [])):
                for statement in (f'SET ROLE "{role}"', f'SET SESSION AUTHORIZATION "{role}"'):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement)

    async def test_that_got_the_rights_of_readers_elsewhere_has_no_tenant(
        self, world: World, postgres: DatabaseSettings
    ) -> None:
        user = f"{world.database.name}_other"
        await execute_as(postgres, f"CREATE ROLE {user} LOGIN PASSWORD 'x' IN ROLE {READER_ROLE}")
        try:
            async with session(world.database.model_copy(update={"user": user, "password": SecretStr("x")})) as other:
                await other.execute("SET sens.tenant_id = '1'")
                for name in (*VIEWS, "series('a-device', 'n')"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"{user} has no tenant here"):
                        await other.fetch(f"SELECT * FROM sens.{name}")  # noqa: S608 - our own names
        finally:
            await execute_as(postgres, f"DROP ROLE {user}")

    async def test_writes_nothing(self, world: World) -> None:
        async with session(world.a) as connection:
            assert await connection.fetchval("SHOW default_transaction_read_only") == "on"
            await connection.execute("SET default_transaction_read_only = off")
            for statement in (
                "CREATE TABLE sens.mine ()",
                "CREATE TABLE public.mine ()",
                "CREATE TEMPORARY TABLE mine ()",
                "CREATE SCHEMA mine",
                "CREATE FUNCTION sens.mine() RETURNS int LANGUAGE sql RETURN 1",
                "INSERT INTO sens.readings DEFAULT VALUES",
                "UPDATE sens.tenant_logins SET tenant_id = 2",
                "DELETE FROM sens.devices",
                "UPDATE sens.devices_by_name SET device = 'x'",
                "SELECT lo_from_bytea(0, 'x')",
                "SELECT lo_create(0)",
                "SELECT pg_advisory_lock(1)",
                "LOCK TABLE sens.name_generation IN ACCESS EXCLUSIVE MODE",
                "LOCK TABLE sens.measurements_by_name IN ACCESS EXCLUSIVE MODE",
                "SELECT sens.end_long_transactions()",
                "SELECT sens.end_sessions_of_login('x')",
                "SELECT sens.tenant_of_login()",
                "SET temp_file_limit = -1",
                f'ALTER ROLE "{world.a.user}" CONNECTION LIMIT -1',
                f'ALTER ROLE "{world.a.user}" RESET temp_file_limit',
            ):
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
                    async with connection.transaction():
                        await connection.execute(statement)

    async def test_learns_nothing_of_other_tenants_names_from_plans(self, world: World) -> None:
        async with owner(world.database) as connection:
            tenant = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = 'b'")
            await connection.execute(
                "INSERT INTO sens.devices (tenant_id, name) SELECT $1, 'secret-' || i FROM generate_series(1, 2000) i",
                tenant,
            )
            await connection.execute("ANALYZE sens.devices")
        async with session(world.a) as connection:
            plans = {
                (view, name): str(
                    await connection.fetch(
                        f"EXPLAIN SELECT * FROM sens.{view} WHERE device < '{name}'"  # noqa: S608 - our own names
                    )
                ).replace(name, "")
                for view in VIEWS
                for name in ("secret-1", "secret-5", "zzzzzzzz")
            }
            statistics = await connection.fetchval("SELECT count(*) FROM pg_stats WHERE schemaname = 'sens'")
        for view in VIEWS:
            assert len({plan for (of_view, _), plan in plans.items() if of_view == view}) == 1
            assert " on devices" not in plans[view, "secret-1"]
        assert statistics == 0

    async def test_sees_neither_what_others_ask_nor_other_logins_of_its_tenant(self, world: World) -> None:
        async with session(world.b) as other, session(world.a) as connection:
            await other.fetch("SELECT 'a secret', * FROM sens.devices_by_name")
            rows = await connection.fetch(
                "SELECT usename, query, client_addr FROM pg_stat_activity WHERE datname IS NOT NULL"
            )
            assert (
                await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%a secret' || ',%'")
                <= 1
            )
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", world.b.user
                )
        assert {row["query"] for row in rows if row["usename"] != world.a.user} == {"<insufficient privilege>"}
        assert {row["client_addr"] for row in rows if row["usename"] != world.a.user} == {None}

    async def test_is_told_the_same_of_another_tenants_device_and_of_none(self, world: World) -> None:
        async with session(world.a) as connection:
            answers = [
                await connection.fetch(f"SELECT * FROM sens.{call}", device)  # noqa: S608 - our own names
                for device in ("b-device", "nothing")
                for call in FUNCTIONS.values()
                if "$1" in call
            ]
        assert answers == [[]] * len(answers)


class TestTheApi:
    async def test_sees_the_tenant_of_its_setting_as_before(self, world: World) -> None:
        async with owner(world.database) as connection:
            tenants = [row["id"] for row in await connection.fetch("SELECT id FROM sens.tenants ORDER BY name")]
        api = await connect(world.database, "test", role=API_ROLE)
        try:
            seen = []
            for tenant in (*tenants, ""):
                await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
                seen.append([row["name"] for row in await api.fetch("SELECT name FROM sens.devices")])
        finally:
            await api.close()
        assert seen == [["a-device"], ["b-device"], []]


class TestLimits:
    async def test_are_those_of_the_login_when_a_session_begins(self, world: World) -> None:
        async with session(world.a) as connection:
            limits = {
                name: await connection.fetchval(f"SHOW {name}")
                for name in ("statement_timeout", "idle_in_transaction_session_timeout", "work_mem", "temp_file_limit")
            }
        assert limits == {
            "statement_timeout": "30s",
            "idle_in_transaction_session_timeout": "30s",
            "work_mem": "16MB",
            "temp_file_limit": "1GB",
        }

    async def test_of_connections_can_not_be_passed(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await connection.execute("INSERT INTO sens.tenants (name) VALUES ('a')")
            login = of(database, await make_login(connection, "a", connections=1))
        async with session(login):
            with pytest.raises(UnavailableError, match="too many connections for role"):
                await connect(login, "test")

    async def test_of_all_logins_together_leave_half_of_the_server(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await connection.execute("INSERT INTO sens.tenants (name) VALUES ('a')")
            available = int(await connection.fetchval("SHOW max_connections"))
            for _ in range(available // 2 // 50 - 1):
                await make_login(connection, "a", connections=50)
            with pytest.raises(RefusedError, match="half of them are for logins"):
                await make_login(connection, "a", connections=50)

    @pytest.mark.parametrize(
        "busy",
        [
            "BEGIN; SELECT * FROM sens.devices_by_name",
            "DO $$ BEGIN LOOP COMMIT; PERFORM pg_sleep(0.001); END LOOP; END $$",
            "SELECT pg_sleep(3600)",
        ],
    )
    async def test_of_time_hold_when_they_are_lifted(self, world: World, busy: str) -> None:
        async with owner(world.database) as connection:
            await connection.execute(
                "UPDATE sens.tenant_logins SET statement_seconds = 1 WHERE login = $1", world.a.user
            )
        api = await connect(world.database, "test", role=API_ROLE)
        lifted = await connect(world.a.model_copy(update={"command_timeout_seconds": 3600}), "test")
        other = await connect(world.b, "test")
        try:
            for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"):
                await lifted.execute(f"SET {setting} = 0")
            working = asyncio.create_task(lifted.execute(busy))
            await other.execute("BEGIN")

            async def ended() -> list[str]:
                return [row["login"] for row in await api.fetch("SELECT login FROM sens.end_long_transactions()")]

            assert await eventually(ended, "the session is ended") == [world.a.user]
            await asyncio.gather(working, return_exceptions=True)
            await wait_for_end(world.database, lifted)
            assert await other.fetchval("SELECT count(*) FROM sens.devices_by_name") == 1
        finally:
            for each in (api, lifted, other):
                each.terminate()


async def wait_for_end(database: DatabaseSettings, connection: Connection) -> None:
    """Wait until the server has ended a session."""
    async with owner(database) as watching:

        async def is_gone() -> bool:
            statement = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
            return bool(await watching.fetchval(statement, connection.get_server_pid()))

        await eventually(is_gone, "the session is gone")


class TestAdministration:
    async def test_gives_a_new_password_and_the_settings_of_a_new_login(self, world: World) -> None:
        async with session(world.a) as connection:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f'ALTER ROLE "{world.a.user}" SET statement_timeout = 0')
            async with owner(world.database) as of_owner:
                rotated = await administration.rotate(of_owner, world.a.user)
            await wait_for_end(world.database, connection)
        with pytest.raises(UnavailableError, match="password authentication failed"):
            await connect(world.a, "test")
        async with session(of(world.database, rotated)) as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "30s"

    async def test_deletes_a_login_with_its_role_and_its_sessions_alone(self, world: World) -> None:
        async with session(world.a) as connection, session(world.b) as other, owner(world.database) as of_owner:
            await administration.delete(of_owner, world.a.user)
            assert await other.fetchval("SELECT count(*) FROM sens.devices_by_name") == 1
            await wait_for_end(world.database, connection)
            assert not await of_owner.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", world.a.user)
            actions = await of_owner.fetch(
                "SELECT action FROM sens.audit_events WHERE subject LIKE '%' || $1 || '%' ORDER BY id", world.a.user
            )
            assert [row["action"] for row in actions] == ["login.created", "login.deleted"]
            with pytest.raises(NotFoundError):
                await administration.delete(of_owner, world.a.user)

    async def test_of_a_tenant_that_is_deleted_takes_its_logins_along(self, world: World) -> None:
        async with session(world.a) as connection, owner(world.database) as of_owner:
            await of_owner.fetchval("SELECT sens.delete_tenant('a', 'administrator')")
            await wait_for_end(world.database, connection)
            left = await of_owner.fetch(
                "SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)", [world.a.user, world.b.user]
            )
            assert [row["rolname"] for row in left] == [world.b.user]

    async def test_deletes_a_tenant_whose_logins_the_owner_may_not_drop(
        self, world: World, postgres: DatabaseSettings
    ) -> None:
        await execute_as(postgres, f"ALTER ROLE {world.database.user} NOCREATEROLE")
        async with owner(world.database) as of_owner:
            await of_owner.fetchval("SELECT sens.delete_tenant('a', 'administrator')")
        async with session(world.a) as connection:
            for view in VIEWS:
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="has no tenant here"):
                    await connection.fetch(f"SELECT * FROM sens.{view}")  # noqa: S608 - our own names

    async def test_finds_nothing_that_a_login_could_do_on_a_server_that_is_set_up(
        self, world: World, postgres: DatabaseSettings
    ) -> None:
        async with owner(world.database) as connection:
            # Other databases of this test's server are not PostgreSQL's own.
            before = await shortcomings_of_login(connection, world.a.user)
            await execute_as(
                postgres.model_copy(update={"name": world.database.name}),
                "GRANT EXECUTE ON FUNCTION lo_from_bytea(oid, bytea) TO public",
                "GRANT CONNECT ON DATABASE postgres TO public",
            )
            try:
                after = await shortcomings_of_login(connection, world.a.user)
            finally:
                await execute_as(postgres, "REVOKE CONNECT ON DATABASE postgres FROM public")
        assert [what for what in before if "sens_test_" not in what] == []
        assert "store large objects" in after
        assert [what for what in after if "other databases of the server" in what and "postgres" in what]
