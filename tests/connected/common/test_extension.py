"""The update of TimescaleDB's extension on a server that has a newer version than the database."""

import asyncio

import pytest

from sens_common.extension import timescaledb_versions, update_timescaledb
from sens_common.migrations import migrate
from sens_common.settings import DatabaseSettings
from support.servers import execute_as, owner

pytestmark = pytest.mark.timescaledb


@pytest.fixture
def outdated(postgres: DatabaseSettings, database: DatabaseSettings) -> DatabaseSettings:
    """A database that says it has the version before the server's, whose library the server does not have."""

    async def pretend() -> bool:
        async with owner(database) as connection:
            before = await connection.fetchval(
                """
                SELECT p.source FROM pg_available_extensions a, pg_extension_update_paths('timescaledb') p
                WHERE a.name = 'timescaledb' AND a.installed_version = a.default_version
                    AND p.target = a.default_version AND p.path = p.source || '--' || p.target
                ORDER BY string_to_array(p.source, '.')::int[] DESC LIMIT 1
                """
            )
        if before is None:
            return False
        await execute_as(
            postgres.model_copy(update={"name": database.name}),
            f"UPDATE _timescaledb_catalog.metadata SET value = '{before}' WHERE key = 'timescaledb_version'",  # noqa: S608 - a version
            f"UPDATE pg_extension SET extversion = '{before}' WHERE extname = 'timescaledb'",  # noqa: S608 - same
        )
        return True

    if not asyncio.run(pretend()):
        pytest.skip("needs a server with TimescaleDB, and its script for the update from the version before")
    return database


async def test_is_done_by_the_migrations_as_the_owner_who_is_no_superuser(outdated: DatabaseSettings) -> None:
    assert await migrate(outdated) == []

    versions = await timescaledb_versions(outdated)
    assert versions is not None
    assert versions.installed == versions.available


async def test_is_not_tried_where_there_is_nothing_newer(database: DatabaseSettings) -> None:
    before = await timescaledb_versions(database)
    await update_timescaledb(database)

    assert await timescaledb_versions(database) == before
