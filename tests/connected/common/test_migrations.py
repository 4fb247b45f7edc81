"""The migration runner on a real server."""

import asyncio

import pytest

from sens_common import migrations
from sens_common.database import connect
from sens_common.errors import SchemaError, UnavailableError
from sens_common.migrations import REQUIRED_VERSION, Migration, Storage, load, migrate, schema_version
from sens_common.settings import DatabaseSettings


async def _version(settings: DatabaseSettings) -> int:
    connection = await connect(settings, "test")
    try:
        return await schema_version(connection)
    finally:
        await connection.close()


def _versions() -> list[int]:
    return [migration.version for migration in load("postgresql")]


class TestMigrate:
    async def test_brings_an_empty_database_up_to_date(self, empty_database: DatabaseSettings) -> None:
        applied = await migrate(empty_database)
        assert [migration.version for migration in applied] == _versions()
        assert await _version(empty_database) == REQUIRED_VERSION

    async def test_does_nothing_the_second_time(self, database: DatabaseSettings) -> None:
        assert await migrate(database) == []

    async def test_is_safe_from_several_processes_at_once(self, empty_database: DatabaseSettings) -> None:
        applied = await asyncio.gather(*(migrate(empty_database) for _ in range(5)))
        assert sorted([migration.version for each in applied for migration in each]) == _versions()

    async def test_refuses_a_schema_whose_applied_migration_has_another_text(self, database: DatabaseSettings) -> None:
        connection = await connect(database, "test")
        await connection.execute("UPDATE sens.schema_migrations SET checksum = 'other' WHERE version = 2")
        await connection.close()
        with pytest.raises(SchemaError, match="migration 0002"):
            await migrate(database)

    async def test_accepts_a_newer_schema(self, database: DatabaseSettings) -> None:
        connection = await connect(database, "test")
        await connection.execute("INSERT INTO sens.schema_migrations VALUES (9999, 'from_the_future', 'x')")
        await connection.close()
        assert await migrate(database) == []

    async def test_chooses_the_storage_once_and_keeps_to_it(self, database: DatabaseSettings) -> None:
        async def kind() -> str:
            connection = await connect(database, "test")
            try:
                return str(await connection.fetchval("SELECT kind FROM sens.storage"))
            finally:
                await connection.close()

        async def has_extension() -> bool:
            connection = await connect(database, "test")
            try:
                return bool(
                    await connection.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')")
                )
            finally:
                await connection.close()

        before = await kind()
        assert before == ("timescaledb" if await has_extension() else "postgresql")
        await migrate(database)
        assert await kind() == before

    async def test_leaves_nothing_of_a_migration_that_fails(
        self, empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = Migration(2, "broken", "CREATE TABLE sens.half_made (); SELECT 1 / 0")

        def first_and_broken(storage: Storage) -> list[Migration]:
            return [load(storage)[0], broken]

        with monkeypatch.context() as patch:
            patch.setattr(migrations, "load", first_and_broken)
            with pytest.raises(SchemaError, match="division by zero"):
                await migrate(empty_database)
        assert await _version(empty_database) == 1
        # The next run finds a schema to go on from, and nobody holds the lock.
        applied = await migrate(empty_database)
        assert [migration.version for migration in applied] == _versions()[1:]

    async def test_that_the_server_ends_can_be_run_again(
        self, empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended = Migration(2, "ended", "CREATE TABLE sens.half_made (); SELECT pg_terminate_backend(pg_backend_pid())")

        def first_and_ended(storage: Storage) -> list[Migration]:
            return [load(storage)[0], ended]

        with monkeypatch.context() as patch:
            patch.setattr(migrations, "load", first_and_ended)
            with pytest.raises(UnavailableError, match="interrupted"):
                await migrate(empty_database)
        assert len(await migrate(empty_database)) == len(_versions()) - 1

    async def test_says_which_right_is_missing(
        self, empty_database: DatabaseSettings, postgres: DatabaseSettings
    ) -> None:
        connection = await connect(postgres, "test")
        await connection.execute(f"ALTER DATABASE {empty_database.name} OWNER TO {postgres.user}")
        await connection.close()
        with pytest.raises(SchemaError, match=f"role {empty_database.user} lacks a right"):
            await migrate(empty_database)

    def test_takes_files_with_the_same_number_as_one_migration_in_the_order_of_their_names(self) -> None:
        retention = next(migration for migration in load("postgresql") if migration.name.startswith("retention"))

        functions = ["sens.continue_deletion", "sens.check_late_days", "sens.drop_expired"]
        positions = [retention.sql.index(f"FUNCTION {function}(") for function in functions]
        assert retention.name == "retention"
        assert positions == sorted(positions)


class TestLoad:
    @pytest.mark.parametrize("storage", ["timescaledb", "postgresql"])
    def test_numbers_each_migration_once_up_to_the_required_version(self, storage: Storage) -> None:
        assert [migration.version for migration in load(storage)] == list(range(1, REQUIRED_VERSION + 1))
