"""The logins of the API and of the telemetry worker on a real server: what they may do, and what not."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg
import pytest
from pydantic import SecretStr

from sens_common import migrations
from sens_common.database import connect
from sens_common.errors import SchemaError, SettingsError, UnavailableError
from sens_common.logins import API_ROLE, WORKER_ROLE, Login, scram_verifier
from sens_common.migrations import Migration, Storage, load, migrate
from sens_common.privileges import ADVISORY_LOCKS, shortcomings
from sens_common.settings import DatabaseSettings
from sens_platform_api.postgresql import open_pools as open_api_pools
from sens_platform_api.postgresql import transaction
from sens_platform_api.settings import LimitSettings
from sens_telemetry_worker.batch import Rejection
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.database import open_pool as open_worker_pool
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.parts import NO_QUOTA, part_of
from support.rows import INSERT_NAMES, KeyedValue, rows_of
from support.servers import execute_as

type Connection = asyncpg.Connection[asyncpg.Record]

AT = 1_500_000_000_000_000
MIGRATIONS_OLD_LOCK = 0x53454E53
"""The number of the advisory lock that migrations took before they had roles."""


class Logins(NamedTuple):
    """A database as its owner, as the API and as the telemetry worker, each with a login of its own."""

    owner: DatabaseSettings
    api: DatabaseSettings
    worker: DatabaseSettings
    made: tuple[Login, Login]


@pytest.fixture
def logins(database: DatabaseSettings, postgres: DatabaseSettings) -> Iterator[Logins]:
    """A database with the current schema, and its logins."""
    names = [f"{database.name}_{who}" for who in ("api", "worker")]
    made = tuple(
        Login(name, SecretStr(secrets.token_urlsafe(16)), rights)
        for name, rights in zip(names, (API_ROLE, WORKER_ROLE), strict=True)
    )
    asyncio.run(migrate(database, made))
    api, worker = (database.model_copy(update={"user": each.user, "password": each.password}) for each in made)
    try:
        yield Logins(database, api, worker, (made[0], made[1]))
    finally:
        asyncio.run(execute_as(postgres, *(f"DROP ROLE {name}" for name in names)))


@asynccontextmanager
async def session(settings: DatabaseSettings, role: str | None = None) -> AsyncIterator[Connection]:
    connection = await connect(settings, "test", role=role)
    try:
        yield connection
    finally:
        await connection.close()


async def refused(connection: Connection, *statements: str) -> None:
    """Check that the server refuses each statement for want of a right."""
    for statement in statements:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute(statement)


class TestLogins:
    async def test_are_no_superusers_and_members_of_their_rights_alone(self, logins: Logins) -> None:
        async def ask() -> list[tuple[bool, bool, bool, list[str]]]:
            async with session(logins.owner) as connection:
                return [
                    tuple(row)
                    for row in await connection.fetch(
                        """
                        SELECT rolsuper, rolcreaterole, rolcreatedb, ARRAY(
                            SELECT roleid::regrole::text FROM pg_auth_members m WHERE m.member = r.oid
                        ) FROM pg_roles r WHERE rolname = ANY($1) ORDER BY rolname
                        """,
                        [login.user for login in logins.made],
                    )
                ]

        assert await ask() == [(False, False, False, [API_ROLE]), (False, False, False, [WORKER_ROLE])]

    async def test_can_become_neither_the_owner_nor_each_other(self, logins: Logins) -> None:
        for settings, role, others in (
            (logins.api, API_ROLE, (logins.owner.user, logins.worker.user, WORKER_ROLE)),
            (logins.worker, WORKER_ROLE, (logins.owner.user, logins.api.user, API_ROLE)),
        ):
            for start in (role, None):
                async with session(settings, start) as connection:
                    await refused(connection, *(f'SET ROLE "{other}"' for other in others))

    async def test_get_a_new_password_at_the_next_migration(self, logins: Logins) -> None:
        changed = logins.made[0]._replace(password=SecretStr("another-password"))
        assert await migrate(logins.owner, [changed]) == []
        async with session(logins.api.model_copy(update={"password": changed.password})):
            pass
        with pytest.raises(UnavailableError, match="password authentication failed"):
            async with session(logins.api):
                pass

    async def test_that_the_owner_may_not_make_are_asked_of_an_administrator(
        self, empty_database: DatabaseSettings, postgres: DatabaseSettings
    ) -> None:
        await execute_as(postgres, f"ALTER ROLE {empty_database.user} NOCREATEROLE")
        with pytest.raises(SchemaError, match=f'GRANT {API_ROLE} TO "sens_of_nobody"'):
            await migrate(empty_database, [Login("sens_of_nobody", SecretStr("x"), API_ROLE)])

    async def test_that_an_administrator_has_made_are_taken_as_they_are(
        self, logins: Logins, postgres: DatabaseSettings
    ) -> None:
        await execute_as(postgres, f"ALTER ROLE {logins.owner.user} NOCREATEROLE")
        await migrate(logins.owner, logins.made)
        with pytest.raises(SchemaError, match=f'GRANT {API_ROLE} TO "{logins.api.user}"'):
            await migrate(logins.owner, [logins.made[0]._replace(password=SecretStr("another"))])

    def test_take_no_password_that_clients_would_send_in_another_form(self) -> None:
        with pytest.raises(SettingsError, match="printable ASCII"):
            scram_verifier("pässword", b"0" * 16)


class TestTheMigrationsLock:
    """What keeps two migrations apart is nothing that the API or a worker could hold."""

    async def test_is_not_held_up_by_advisory_locks(
        self, logins: Logins, postgres: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hold_and_migrate() -> list[Migration]:
            await execute_as(
                postgres.model_copy(update={"name": logins.owner.name}),
                f"GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO {API_ROLE}",
            )
            async with session(logins.api, API_ROLE) as connection:
                await connection.execute("SELECT pg_advisory_lock($1)", MIGRATIONS_OLD_LOCK)
                return await migrate(logins.owner)

        def one_more(storage: Storage) -> list[Migration]:
            return [*load(storage), Migration(9999, "more", "CREATE TABLE sens.more ()")]

        monkeypatch.setattr(migrations, "load", one_more)
        assert [migration.name for migration in await hold_and_migrate()] == ["more"]

    async def test_is_not_held_up_by_who_reads_the_schemas_version(
        self, logins: Logins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def read_and_migrate() -> list[Migration]:
            async with session(logins.api, API_ROLE) as connection, connection.transaction():
                await connection.execute("LOCK TABLE sens.schema_migrations IN ACCESS SHARE MODE")
                await connection.fetch("SELECT * FROM sens.schema_migrations")
                return await migrate(logins.owner)

        def one_more(storage: Storage) -> list[Migration]:
            return [*load(storage), Migration(9999, "more", "CREATE TABLE sens.more ()")]

        monkeypatch.setattr(migrations, "load", one_more)
        assert [migration.name for migration in await read_and_migrate()] == ["more"]

    async def test_and_that_of_the_partitions_are_refused_to_both(self, logins: Logins) -> None:
        modes = ("ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE")

        for settings, role in ((logins.api, API_ROLE), (logins.worker, WORKER_ROLE)):
            async with session(settings, role) as connection:
                for mode in modes:
                    await refused(
                        connection,
                        f"LOCK TABLE sens.schema_migrations IN {mode} MODE",
                        f"LOCK TABLE sens.partition_gate IN {mode} MODE",
                    )


class TestEveryLogin:
    async def test_may_take_no_advisory_lock(self, logins: Logins) -> None:
        async def attempt() -> list[str]:
            async with session(logins.api) as connection:
                await refused(
                    connection,
                    "SELECT pg_advisory_lock(1)",
                    "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
                    "SELECT pg_advisory_unlock_all()",
                )
                left = await connection.fetch(
                    """
                    SELECT oid::regprocedure::text FROM pg_proc
                    WHERE proname LIKE '%advisory%' AND has_function_privilege(oid, 'EXECUTE')
                    """
                )
                return [row[0] for row in left]

        assert await attempt() == []

    async def test_may_not_use_the_schema_public(self, logins: Logins) -> None:
        await execute_as(
            logins.owner, "CREATE TABLE public.of_the_owner ()", "GRANT ALL ON public.of_the_owner TO public"
        )
        for settings in (logins.api, logins.worker):
            async with session(settings) as connection:
                await refused(connection, "SELECT FROM public.of_the_owner", "CREATE TABLE public.mine ()")

    async def test_but_the_workers_may_make_no_temporary_table(self, logins: Logins) -> None:
        async with session(logins.api, API_ROLE) as connection:
            await refused(connection, "CREATE TEMPORARY TABLE mine ()")
        async with session(logins.worker, WORKER_ROLE) as connection:
            await connection.execute("CREATE TEMPORARY TABLE mine ()")


class TestTheApi:
    async def test_gives_a_connection_back_and_takes_it_again(self, logins: Logins) -> None:
        async with open_api_pools(logins.api.model_copy(update={"pool_size": 1}), "test", LimitSettings()) as (
            pool,
            _keys,
        ):
            answers = []
            for _ in range(3):
                async with transaction(pool) as connection:
                    answers.append(await connection.fetchval("SELECT count(*)::int FROM sens.tenants"))
            assert answers == [0, 0, 0]


class TestTheWorker:
    async def test_stores_recognises_copies_and_makes_partitions_that_are_the_owners(self, logins: Logins) -> None:
        await execute_as(logins.owner, INSERT_NAMES)
        rows = rows_of([KeyedValue(0, 1, AT, 1, 21.5), KeyedValue(0, 1, AT, 2, "x")])
        async with open_worker_pool(logins.worker, "test") as pool:
            store = TimescaleStore(Database(pool, logins.worker), NO_QUOTA)
            first = await store.write(part_of(rows, 1))
            bad = [Rejection(1, "malformed_payload", "bad")]
            again = await store.write(part_of(rows, 2, rejected=bad))
        async with session(logins.owner) as connection:
            owners = await connection.fetch(
                "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'sens'::regnamespace"
            )
        assert (first.new_values.tolist(), again.new_values.tolist(), {row[0] for row in owners}) == (
            [2],
            [0, 0],
            {logins.owner.user},
        )

    async def test_changes_nothing_of_tenants_keys_and_records(self, logins: Logins) -> None:
        async with session(logins.worker, WORKER_ROLE) as connection:
            await refused(
                connection,
                "SELECT 1 FROM sens.api_keys",
                "INSERT INTO sens.tenants (name) VALUES ('mine')",
                "UPDATE sens.tenants SET device_limit = 0",
                "UPDATE sens.measurements SET value = 0",
                "DELETE FROM sens.readings",
                "DELETE FROM sens.metric_sets",
                "UPDATE sens.metric_sets SET number_ids = '{}'",
                "DELETE FROM sens.device_metric_sets",
                "UPDATE sens.devices SET name = ''",
                "DELETE FROM sens.measurements",
                "TRUNCATE sens.measurements",
                "DELETE FROM sens.message_counts",
                "INSERT INTO sens.schema_migrations (version, name, checksum) VALUES (99, 'x', 'x')",
                "CREATE TABLE sens.mine ()",
            )


class TestShortcomings:
    async def of(self, settings: DatabaseSettings) -> list[str]:
        async with session(settings, API_ROLE) as connection:
            return await shortcomings(connection, "SENS_API_LOGIN__PASSWORD", "postgres-api-password")

    async def test_are_none_with_logins_of_their_own(self, logins: Logins) -> None:
        assert await self.of(logins.api) == []

    async def test_name_a_service_that_logs_in_as_the_owner(self, database: DatabaseSettings) -> None:
        (found,) = await self.of(database)
        assert f"logs in as {database.user}" in found
        assert "SENS_API_LOGIN__PASSWORD" in found
        assert "postgres-api-password" in found

    async def test_name_what_only_a_superuser_can_mend(self, logins: Logins, postgres: DatabaseSettings) -> None:
        there = postgres.model_copy(update={"name": logins.owner.name})

        await execute_as(
            there,
            "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO public",
            f"ALTER ROLE {logins.owner.user} SUPERUSER",
        )
        before = await self.of(logins.api)
        await execute_as(there, ADVISORY_LOCKS, f"ALTER ROLE {logins.owner.user} NOSUPERUSER")
        after = await self.of(logins.api)
        assert [("superuser of the server" in text, "advisory locks" in text) for text in before] == [
            (True, False),
            (False, True),
        ]
        assert after == []

    async def test_name_what_the_owner_can_mend_by_a_migration(self, logins: Logins) -> None:
        await execute_as(logins.owner, f"GRANT TEMPORARY ON DATABASE {logins.owner.name} TO public")
        before = await self.of(logins.api)
        await migrate(logins.owner)
        after = await self.of(logins.api)
        assert ["temporary tables" in text for text in before] == [True]
        assert after == []
