"""The databases that tests are given: a copy is what a database of its own migration would be, and nobody meets another one's traces."""

import asyncio
from typing import Final

import pytest

from sens_common.migrations import migrate
from sens_common.settings import DatabaseSettings
from support.databases import Databases
from support.servers import execute_as, owner

CONTENT: Final = {
    "tables": """
        SELECT relname, relkind::text, relacl::text, relowner::regrole::text FROM pg_class
        WHERE relnamespace <> 'pg_toast'::regnamespace
    """,
    "columns": """
        SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attacl::text
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attnum > 0 AND relnamespace <> 'pg_toast'::regnamespace
    """,
    "functions": "SELECT oid::regprocedure::text, proacl::text, proowner::regrole::text, prosrc FROM pg_proc",
    "schemas": "SELECT nspname, nspacl::text, nspowner::regrole::text FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)'",
    "rights": "SELECT datacl::text, datdba::regrole::text FROM pg_database WHERE datname = current_database()",
    "migrations": "SELECT version, name, checksum FROM sens.schema_migrations",
}


async def content_of(database: DatabaseSettings) -> dict[str, list[tuple[object, ...]]]:
    """Return what a database has, and who may do what with it."""
    async with owner(database) as connection:
        return {
            what: sorted((tuple(row) for row in await connection.fetch(query)), key=repr)
            for what, query in CONTENT.items()
        }


def test_a_copy_is_what_a_migrated_database_is(databases: Databases, empty_database: DatabaseSettings) -> None:
    assert asyncio.run(migrate(empty_database)) != []
    with databases.new(migrate) as copy:
        assert asyncio.run(content_of(copy)) == asyncio.run(content_of(empty_database))
        assert asyncio.run(migrate(copy)) == []


@pytest.mark.parametrize("time", ["first", "second"])
def test_nobody_finds_what_another_one_has_stored(database: DatabaseSettings, time: str) -> None:
    asyncio.run(execute_as(database, f"INSERT INTO sens.tenants (name) VALUES ('{time}')"))  # noqa: S608 - our own name

    async def names() -> list[str]:
        async with owner(database) as connection:
            return [row["name"] for row in await connection.fetch("SELECT name FROM sens.tenants")]

    assert asyncio.run(names()) == [time]


def test_what_is_done_to_the_owner_ends_with_the_database(databases: Databases, postgres: DatabaseSettings) -> None:
    with databases.new() as database:
        changes = ("SUPERUSER NOCREATEROLE", "SET work_mem = '1MB'")
        asyncio.run(execute_as(postgres, *(f"ALTER ROLE {database.user} {change}" for change in changes)))

    async def owner_of(another: DatabaseSettings) -> tuple[object, ...]:
        async with owner(another) as connection:
            query = "SELECT rolsuper, rolcreaterole, rolcanlogin, rolconfig FROM pg_roles WHERE rolname = current_user"
            return tuple(await connection.fetchrow(query) or ())

    with databases.new() as another:
        assert asyncio.run(owner_of(another)) == (False, True, True, None)
