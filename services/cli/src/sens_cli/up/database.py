"""The embedded PostgreSQL's role and database, as an operator makes them before the platform's first start elsewhere."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from sens_cli.up.postgres import SUPERUSER
from sens_common.command_line.local_settings import DATABASE_OWNER
from sens_common.errors import SensError
from sens_common.privileges import ADVISORY_LOCKS, TENANT_LOGINS

SUPERUSER_SECRET: Final = "postgres-superuser-password"  # noqa: S105 - a file's name
_TIMEOUT_SECONDS: Final = 5

type Connection = asyncpg.Connection[asyncpg.Record]


@contextlib.asynccontextmanager
async def _superuser(host: str, port: int, password: str, database: str = "postgres") -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(
        host=host,
        port=port,
        user=SUPERUSER,
        password=password,
        database=database,
        ssl=False,
        timeout=_TIMEOUT_SECONDS,
        command_timeout=_TIMEOUT_SECONDS,
    )
    try:
        yield connection
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            await connection.close(timeout=_TIMEOUT_SECONDS)


async def server_answers(host: str, port: int, password: str) -> str | None:
    """Return None when the server takes our login, else why not.

    Raises:
        SensError: The password is wrong: waiting does not help.
    """
    try:
        async with _superuser(host, port, password):
            return None
    except asyncpg.InvalidPasswordError as error:
        raise SensError(
            "the embedded PostgreSQL refuses the password in secrets/postgres-superuser-password: the file is not the one"
            " that the data folder was made with; put the old one back, or start with another --data-dir"
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return str(error) or type(error).__name__


async def ensure_database(host: str, port: int, superuser: str, owner: str) -> str:
    """Make the owning role and its database where they are missing; give the role its password.

    What every login may by default and none of the platform's needs is taken away: see `sens_common.privileges`.

    Raises:
        SensError: The server refuses.
    """
    try:
        async with _superuser(host, port, superuser) as connection:
            role = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", DATABASE_OWNER)
            verb = "ALTER" if role else "CREATE"
            quoted = await connection.fetchval("SELECT quote_literal($1::text)", owner)
            # CREATEROLE: the migrations make the roles and logins of the API and of the telemetry worker.
            await connection.execute(f"{verb} ROLE {DATABASE_OWNER} LOGIN NOSUPERUSER CREATEROLE PASSWORD {quoted}")
            made = not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE_OWNER)
            if made:
                await connection.execute(
                    f"CREATE DATABASE {DATABASE_OWNER} OWNER {DATABASE_OWNER} TEMPLATE template0 STRATEGY file_copy"
                )
        async with _superuser(host, port, superuser, DATABASE_OWNER) as connection:
            await connection.execute(ADVISORY_LOCKS)
            await connection.execute(TENANT_LOGINS)
            return "made" if made else ""
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise SensError(f"PostgreSQL on port {port} does not let us make the database: {error}") from error
