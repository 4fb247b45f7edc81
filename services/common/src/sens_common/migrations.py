"""The schema's migrations: numbered SQL files, applied once each, in order, by the first process that comes.

``NNNN_name.sql`` is for every server; where a step differs, ``NNNN_name.timescaledb.sql`` and ``NNNN_name.postgresql.sql`` are its
two forms. Files with the same number are one migration, in the order of their names. Which form a database has is decided when its first migration runs and never changes afterwards.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from importlib import resources
from typing import Final, Literal, NamedTuple

import asyncpg
import structlog

from sens_common.database import Connection, connect
from sens_common.database_errors import DRIVER_ERRORS, DatabaseFault, fault_of
from sens_common.errors import SchemaError, SensError, UnavailableError, words_of
from sens_common.extension import update_timescaledb
from sens_common.logins import (
    API_ROLE,
    READER_ROLE,
    WORKER_ROLE,
    ApiLoginSettings,
    Login,
    WorkerLoginSettings,
    login,
    make_login,
)
from sens_common.privileges import restrict
from sens_common.settings import DatabaseSettings, ServiceSettings

log = structlog.get_logger()

Storage = Literal["timescaledb", "postgresql"]

REQUIRED_VERSION: Final = 23
"""The schema that this code needs; a newer one serves as well (expand first, contract later)."""

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)(?:\.(timescaledb|postgresql))?\.sql")
_MINIMUM_SERVER: Final = 15
_SET_OPTION_SINCE: Final = 16
_MIGRATION_TIMEOUT_SECONDS: Final = 3600


class Migration(NamedTuple):
    """One step."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL text, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(storage: Storage) -> list[Migration]:
    """Return the migrations for one kind of storage, in order."""
    files = sorted(resources.files("sens_common").joinpath("schema").iterdir(), key=lambda file: file.name)
    migrations: dict[int, Migration] = {}
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match is None:
            continue
        version, name, variant = match.groups()
        if variant in {None, storage}:
            sql = file.read_text(encoding="utf-8")
            first = migrations.get(int(version))
            migrations[int(version)] = (
                Migration(int(version), name, sql) if first is None else first._replace(sql=f"{first.sql}\n{sql}")
            )
    return sorted(migrations.values())


async def migrate(
    settings: DatabaseSettings, logins: Sequence[Login] = (), *, before: int | None = None
) -> list[Migration]:
    """Bring TimescaleDB's extension, the schema and the logins up to date; return the migrations that were applied.

    Safe to run twice and from several processes at once. Each migration and its record are one transaction, which locks the table of
    records first: one process works while the others wait, and who waited finds done what the other did. Only the owner may take
    that lock (an advisory lock could be held by every login), and reading the records does not hinder it.

    Args:
        settings: The database, as its owner.
        logins: What the API and the telemetry worker log in as, where they have logins of their own.
        before: Leaves out the migration of this version and all later ones, for trials of what these do.

    Raises:
        UnavailableError: The server can't be reached or refuses us.
        SchemaError: The server is too old, a role is missing, a migration fails, or an applied migration's text has changed.
        SettingsError: A login's password can't be used.
    """
    await update_timescaledb(settings)
    connection = await connect(settings, "sens-migrate")
    try:
        return await _migrate(connection, logins, settings, before)
    except DRIVER_ERRORS as error:
        raise _explained(error, settings) from error
    finally:
        await connection.close()


def _explained(error: Exception, settings: DatabaseSettings) -> SensError:
    """Return what an error of the driver means for a migration."""
    match fault_of(error):
        case DatabaseFault.TRANSIENT | DatabaseFault.TOO_SLOW:
            return UnavailableError(f"the migration was interrupted: {words_of(error)}; run it again")
        case DatabaseFault.FORBIDDEN:
            return SchemaError(f"role {settings.user} lacks a right that the migration needs: {words_of(error)}")
        case _:
            return SchemaError(
                f"the schema can't be brought up to date: {words_of(error)}; what was applied before stays, nothing of the failed"
                " step does"
            )


async def _migrate(
    connection: Connection, logins: Sequence[Login], settings: DatabaseSettings, before: int | None
) -> list[Migration]:
    server = connection.get_server_version()
    if server.major < _MINIMUM_SERVER:
        raise SchemaError(f"PostgreSQL {server.major} is too old: 15 or newer is needed")
    storage = await _prepare(connection)
    applied = []
    for migration in load(storage):
        if before is not None and migration.version >= before:
            break
        async with _alone(connection):
            if await _is_applied(connection, migration):
                continue
            await connection.execute(migration.sql, timeout=_MIGRATION_TIMEOUT_SECONDS)
            await connection.execute(
                "INSERT INTO sens.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
        log.info("migration applied", migration=f"{migration.version:04}_{migration.name}", storage=storage)
        applied.append(migration)
    async with _alone(connection):
        await restrict(connection)
        for wanted in logins:
            await make_login(connection, wanted, settings)
    return applied


@contextlib.asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[None]:
    """Give a transaction in which no other migration works."""
    async with connection.transaction():
        await connection.execute(
            "LOCK TABLE sens.schema_migrations IN SHARE ROW EXCLUSIVE MODE", timeout=_MIGRATION_TIMEOUT_SECONDS
        )
        yield


async def _is_applied(connection: Connection, migration: Migration) -> bool:
    checksum = await connection.fetchval(
        "SELECT checksum FROM sens.schema_migrations WHERE version = $1", migration.version
    )
    if checksum is not None and checksum != migration.checksum:
        raise SchemaError(
            f"migration {migration.version:04} ({migration.name}) was applied with another text than this version's;"
            " the schema is not the one this code was written for"
        )
    return checksum is not None


async def _prepare_role(connection: Connection, role: str) -> None:
    """Make a role that holds rights, where it is missing, and be a member of it."""
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        try:
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        except asyncpg.InsufficientPrivilegeError as error:
            user = await connection.fetchval("SELECT current_user")
            raise SchemaError(
                f"the role {role} is missing and {user} may not create roles; as an administrator, run:"
                f' CREATE ROLE {role} NOLOGIN; GRANT {role} TO "{user}";'
            ) from error
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            pass  # another database's migration on the same server made it just now
    # Since PostgreSQL 16 the creator of a role may administer it without being able to become it (GRANT, "WITH SET").
    privilege = "SET" if connection.get_server_version().major >= _SET_OPTION_SINCE else "MEMBER"
    if not await connection.fetchval("SELECT pg_has_role(current_user, $1, $2)", role, privilege):
        try:
            await connection.execute(f"GRANT {role} TO CURRENT_USER")
        except asyncpg.InsufficientPrivilegeError as error:
            user = await connection.fetchval("SELECT current_user")
            raise SchemaError(
                f'{user} is no member of the role {role}; as an administrator, run: GRANT {role} TO "{user}";'
            ) from error


async def _prepare(connection: Connection) -> Storage:
    """Make what the runner itself needs, and return the kind of storage."""
    for role in (API_ROLE, WORKER_ROLE, READER_ROLE):
        await _prepare_role(connection, role)
    if not await connection.fetchval("SELECT to_regclass('sens.schema_migrations') IS NOT NULL"):
        # There is no table to lock yet. A statement that meets another process's waits for that one, and finds everything made.
        with contextlib.suppress(
            asyncpg.UniqueViolationError, asyncpg.DuplicateSchemaError, asyncpg.DuplicateTableError
        ):
            await _make_records(connection)
    kind: Storage = await connection.fetchval("SELECT kind FROM sens.storage")
    return kind


async def _make_records(connection: Connection) -> None:
    """Make the schema, the table of records, and decide on the kind of storage."""
    async with connection.transaction():
        await connection.execute("CREATE SCHEMA IF NOT EXISTS sens", timeout=_MIGRATION_TIMEOUT_SECONDS)
        await connection.execute(
            """
            CREATE TABLE sens.schema_migrations (
                version int PRIMARY KEY,
                name text NOT NULL,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            );
            CREATE TABLE sens.storage (kind text NOT NULL CHECK (kind IN ('timescaledb', 'postgresql')));
            CREATE UNIQUE INDEX ON sens.storage ((true));
            """,
            timeout=_MIGRATION_TIMEOUT_SECONDS,
        )
        storage: Storage = "timescaledb" if await _has_timescaledb(connection) else "postgresql"
        await connection.execute("INSERT INTO sens.storage VALUES ($1)", storage)


async def _has_timescaledb(connection: Connection) -> bool:
    """Create the extension where the server has it and preloads it; tell whether it is there."""
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"):
        return False
    # CREATE EXTENSION ends the connection where the library is not preloaded. shared_preload_libraries is hidden from ordinary
    # roles; the setting that the preloaded part defines is not.
    if await connection.fetchval("SELECT current_setting('timescaledb.disable_load', true)") is None:
        log.warning(
            "timescaledb is installed but not preloaded; plain PostgreSQL partitions instead",
            remedy="add timescaledb to shared_preload_libraries before the first migration to use it",
        )
        return False
    try:
        async with connection.transaction():
            await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except asyncpg.PostgresError as error:
        log.warning("timescaledb is installed but can't be used; plain PostgreSQL partitions instead", error=str(error))
        return False
    return True


async def schema_version(connection: Connection) -> int:
    """Return the newest applied migration's number, 0 for an empty database."""
    if not await connection.fetchval("SELECT to_regclass('sens.schema_migrations') IS NOT NULL"):
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM sens.schema_migrations")
    return version


class MigrationSettings(ServiceSettings):
    """Settings of the migrations."""

    database: DatabaseSettings = DatabaseSettings()
    api_login: ApiLoginSettings = ApiLoginSettings()
    worker_login: WorkerLoginSettings = WorkerLoginSettings()


async def bring_up_to_date(settings: MigrationSettings) -> list[Migration]:
    """Migrate the database of the settings, with the logins that they name; returns and raises as `migrate`."""
    logins = [found for part in (settings.api_login, settings.worker_login) if (found := login(part)) is not None]
    return await migrate(settings.database, logins)


def main() -> None:
    """Run the migrations with the settings of the environment: ``python -m sens_common.migrations``."""
    from sens_common.lifecycle import run  # noqa: PLC0415 - the library part needs no lifecycle

    async def work(settings: MigrationSettings, _stop: asyncio.Event) -> None:
        applied = await bring_up_to_date(settings)
        log.info("schema is up to date", applied=len(applied))

    run("migrate", MigrationSettings, work)


if __name__ == "__main__":
    main()
