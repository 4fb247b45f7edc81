"""The migration runner on a real server."""

import asyncio

import pytest

from sens_common.database import connect
from sens_common.errors import SchemaError
from sens_common.migrations import REQUIRED_VERSION, migrate, schema_version
from sens_common.settings import DatabaseSettings


async def _version(settings: DatabaseSettings) -> int:
    connection = await connect(settings, "test")
    try:
        return await schema_version(connection)
    finally:
        await connection.close()


class TestMigrate:
    def test_brings_an_empty_database_up_to_date(self, empty_database: DatabaseSettings) -> None:
        applied = asyncio.run(migrate(empty_database))
        assert [migration.version for migration in applied] == list(range(1, REQUIRED_VERSION + 1))
        assert asyncio.run(_version(empty_database)) == REQUIRED_VERSION

    def test_does_nothing_the_second_time(self, database: DatabaseSettings) -> None:
        assert asyncio.run(migrate(database)) == []

    def test_is_safe_from_several_processes_at_once(self, empty_database: DatabaseSettings) -> None:
        async def several() -> list[int]:
            return [len(applied) for applied in await asyncio.gather(*(migrate(empty_database) for _ in range(5)))]

        assert sorted(asyncio.run(several())) == [0, 0, 0, 0, REQUIRED_VERSION]

    def test_refuses_a_schema_whose_applied_migration_has_another_text(self, database: DatabaseSettings) -> None:
        async def tamper() -> None:
            connection = await connect(database, "test")
            await connection.execute("UPDATE sens.schema_migrations SET checksum = 'other' WHERE version = 2")
            await connection.close()

        asyncio.run(tamper())
        with pytest.raises(SchemaError, match="migration 0002"):
            asyncio.run(migrate(database))

    def test_accepts_a_newer_schema(self, database: DatabaseSettings) -> None:
        async def pretend() -> None:
            connection = await connect(database, "test")
            await connection.execute("INSERT INTO sens.schema_migrations VALUES (9999, 'from_the_future', 'x')")
            await connection.close()

        asyncio.run(pretend())
        assert asyncio.run(migrate(database)) == []
