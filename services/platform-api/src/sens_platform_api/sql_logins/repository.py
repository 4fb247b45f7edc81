"""Tenants' logins: a role of the database and a row of ``sens.tenant_logins`` each, made and removed by the owning role.

A role can lift what `_settings` sets for it, but neither its connection limit nor the limit of its temporary files. What it can't lift
either: the API ends what goes on for too long (`StoredSessions`).
"""

import re
import secrets
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from sens_common.logins import READER_ROLE, scram_verifier
from sens_platform_api.errors import RefusedError
from sens_platform_api.postgresql import Connection, Pool, transaction

_NAME: Final = re.compile(r"sens_sql_[a-z0-9]{10}")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_SALT_BYTES: Final = 16
_TRANSACTION_TIMEOUT_SINCE: Final = 17
_OPTIONS_OF_MEMBERS_SINCE: Final = 16
_TEMPORARY_FILES: Final = "1GB"


class Login(NamedTuple):
    """A login without its password.

    Attributes:
        login: Name of the role.
        tenant: Whose data it sees.
        name: What it is for.
        connections: How many it may have at the same time.
        statement_seconds: How long a statement may take; a transaction twice as long.
        created_at: When it was made.
        password_changed_at: When it got its password.
        sessions: How many it has now.
    """

    login: str
    tenant: str
    name: str
    connections: int
    statement_seconds: int
    created_at: datetime
    password_changed_at: datetime
    sessions: int


_SELECT: Final = """
    SELECT l.login, t.name AS tenant, l.name, l.connections, l.statement_seconds, l.created_at, l.password_changed_at,
        (SELECT count(*) FROM pg_stat_activity a WHERE a.usename = l.login)::int AS sessions
    FROM sens.tenant_logins l JOIN sens.tenants t ON t.id = l.tenant_id
"""


def new_name() -> str:
    """Return a role's name that says nothing of its tenant: every login of a server sees the names of all."""
    return "sens_sql_" + "".join(secrets.choice(_LETTERS) for _ in range(10))


def _role(login: str) -> str:
    """Return the name as SQL has it.

    Raises:
        ValueError: It is not one of `new_name`.
    """
    if not _NAME.fullmatch(login):
        raise ValueError(f"{login!r} is no login of a tenant")
    return f'"{login}"'


async def insert(
    connection: Connection, *, tenant_id: int, name: str, password: str, connections: int, statement_seconds: int
) -> Login:
    """Make a login.

    Raises:
        RefusedError: The owner may make no roles.
    """
    login = new_name()
    role = _role(login)
    await connection.execute(
        "INSERT INTO sens.tenant_logins (login, tenant_id, name, connections, statement_seconds) VALUES ($1, $2, $3, $4, $5)",
        login,
        tenant_id,
        name,
        connections,
        statement_seconds,
    )
    with_options = connection.get_server_version().major >= _OPTIONS_OF_MEMBERS_SINCE
    try:
        await connection.execute(f"CREATE ROLE {role} LOGIN NOCREATEROLE NOCREATEDB CONNECTION LIMIT {connections:d}")
        await connection.execute(f"GRANT {READER_ROLE} TO {role}{' WITH SET FALSE' if with_options else ''}")
        # Who has a role's rights may see its sessions, and end them.
        await connection.execute(
            f"GRANT {role} TO CURRENT_USER{' WITH INHERIT TRUE, SET FALSE' if with_options else ''}"
        )
    except asyncpg.InsufficientPrivilegeError as error:
        raise RefusedError(
            f"the database's owner may not make a login ({error}): it needs CREATEROLE, and {READER_ROLE} WITH ADMIN OPTION"
        ) from error
    await set_password(connection, login, password)
    return await get(connection, login)


async def set_password(connection: Connection, login: str, password: str) -> None:
    """Give a login another password, and its settings again, whatever it has made of them."""
    role = _role(login)
    found = await get(connection, login)
    verifier = scram_verifier(password, secrets.token_bytes(_SALT_BYTES))
    # The server gets what it would store, so that no password appears in its log.
    await connection.execute(f"ALTER ROLE {role} PASSWORD '{verifier}'")
    await connection.execute(f"ALTER ROLE {role} RESET ALL")
    for setting, value in _settings(found.statement_seconds, connection.get_server_version().major).items():
        await connection.execute(f"ALTER ROLE {role} SET {setting} = {value}")
    if await connection.fetchval("SELECT has_parameter_privilege('temp_file_limit', 'SET')"):
        await connection.execute(f"ALTER ROLE {role} SET temp_file_limit = '{_TEMPORARY_FILES}'")
    await connection.execute("UPDATE sens.tenant_logins SET password_changed_at = now() WHERE login = $1", login)


def _settings(statement_seconds: int, server: int) -> dict[str, str]:
    settings = {
        "statement_timeout": f"'{statement_seconds:d}s'",
        "idle_in_transaction_session_timeout": f"'{statement_seconds:d}s'",
        "default_transaction_read_only": "on",
        "work_mem": "'16MB'",
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
        "search_path": "sens",
    }
    if server >= _TRANSACTION_TIMEOUT_SINCE:
        settings["transaction_timeout"] = f"'{2 * statement_seconds:d}s'"
    return settings


async def get(connection: Connection, login: str) -> Login:
    """Return a login that there is."""
    row = await connection.fetchrow(_SELECT + "WHERE l.login = $1", login)
    assert row is not None  # noqa: S101 - for the type checker: the caller has found it
    return Login(*row)


async def list_all(connection: Connection, tenant_id: int | None) -> list[Login]:
    """Return all logins, or those of one tenant."""
    rows = await connection.fetch(
        _SELECT + "WHERE $1::int IS NULL OR l.tenant_id = $1 ORDER BY t.name, l.created_at, l.login", tenant_id
    )
    return [Login(*row) for row in rows]


async def find(connection: Connection, login: str) -> tuple[Login, int] | None:
    """Return a login and the id of its tenant, None when there is none; it is locked until the end of the transaction."""
    tenant_id = await connection.fetchval("SELECT tenant_id FROM sens.tenant_logins WHERE login = $1 FOR UPDATE", login)
    return None if tenant_id is None else (await get(connection, login), tenant_id)


async def lock_out(connection: Connection, login: str) -> None:
    """Let nobody log in with it any more; sessions go on."""
    await connection.execute(f"ALTER ROLE {_role(login)} NOLOGIN")


async def end_sessions(connection: Connection, login: str) -> None:
    """End the sessions of a login."""
    await connection.execute("SELECT sens.end_sessions_of_login($1)", login)


async def delete(connection: Connection, login: str) -> None:
    """Delete a login: its sessions and the role go with the row."""
    await connection.execute("DELETE FROM sens.tenant_logins WHERE login = $1", login)


async def connections(connection: Connection) -> tuple[int, int]:
    """Return how many connections all logins may have together, and how many the server gives ordinary roles."""
    row = await connection.fetchrow(
        """
        SELECT (SELECT coalesce(sum(connections), 0) FROM sens.tenant_logins)::int,
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true), '0')::int
        """
    )
    assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
    return row[0], row[1]


class EndedSession(NamedTuple):
    """A session that was ended because its statement or transaction went on for too long."""

    login: str
    tenant_id: int
    seconds: float


class StoredSessions:
    """The sessions of all logins, as the API's role may end them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def end_long(self) -> list[EndedSession]:
        """End those whose statement or transaction goes on for longer than it may."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch("SELECT login, tenant_id, seconds FROM sens.end_long_transactions()")
        return [EndedSession(*row) for row in rows]
