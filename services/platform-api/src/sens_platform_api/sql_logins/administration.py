"""Logins as an administrator makes and removes them (as the owning role); every change is in the audit."""

import secrets
from typing import Final, NamedTuple

from sens_common.privileges import shortcomings_of_login
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.errors import NotFoundError, RefusedError
from sens_platform_api.postgresql import Connection
from sens_platform_api.sql_logins import repository
from sens_platform_api.sql_logins.repository import Login
from sens_platform_api.tenants import repository as tenants

_RANDOM_BYTES: Final = 24


class NewLogin(NamedTuple):
    """A login whose password is new.

    Attributes:
        login: The login.
        password: Its password, which can't be shown again.
        shortcomings: What it could do on this server that it need not.
    """

    login: Login
    password: str
    shortcomings: list[str]


async def create(
    connection: Connection, *, tenant: str, name: str, connections: int, statement_seconds: int
) -> NewLogin:
    """Make a login of a tenant.

    Raises:
        NotFoundError: There is no such tenant.
        RefusedError: All logins together could take more than half of the server's connections, or the owner may make no roles.
    """
    owner = await tenants.find(connection, tenant)
    taken, available = await repository.connections(connection)
    if taken + connections > available // 2:
        raise RefusedError(
            f"the server gives {available} connections, and half of them are for logins: {taken} are given away already;"
            " ask for fewer with --connections, delete a login, or raise max_connections of the server"
        )
    password = secrets.token_urlsafe(_RANDOM_BYTES)
    made = await repository.insert(
        connection,
        tenant_id=owner.id,
        name=name,
        password=password,
        connections=connections,
        statement_seconds=statement_seconds,
    )
    await audit.record(
        connection,
        tenant_id=owner.id,
        actor=ADMINISTRATOR,
        action="login.created",
        subject=f"login {made.login} ({made.name})",
        details={"connections": connections, "statement_seconds": statement_seconds},
    )
    return NewLogin(made, password, await shortcomings_of_login(connection, made.login))


async def rotate(connection: Connection, login: str) -> NewLogin:
    """Give a login another password, and end its sessions then.

    Raises:
        NotFoundError: There is no such login.
    """
    password = secrets.token_urlsafe(_RANDOM_BYTES)
    async with connection.transaction():
        found, tenant_id = await _find(connection, login)
        await repository.set_password(connection, login, password)
        await audit.record(
            connection,
            tenant_id=tenant_id,
            actor=ADMINISTRATOR,
            action="login.rotated",
            subject=f"login {found.login} ({found.name})",
        )
    await repository.end_sessions(connection, login)
    return NewLogin(await repository.get(connection, login), password, await shortcomings_of_login(connection, login))


async def delete(connection: Connection, login: str) -> Login:
    """Delete a login and end its sessions; first it can't be used any more, so that no session begins meanwhile.

    Raises:
        NotFoundError: There is no such login.
    """
    async with connection.transaction():
        await _find(connection, login)
        await repository.lock_out(connection, login)
    async with connection.transaction():
        found, tenant_id = await _find(connection, login)
        await repository.delete(connection, login)
        await audit.record(
            connection,
            tenant_id=tenant_id,
            actor=ADMINISTRATOR,
            action="login.deleted",
            subject=f"login {found.login} ({found.name})",
        )
    return found


async def _find(connection: Connection, login: str) -> tuple[Login, int]:
    found = await repository.find(connection, login)
    if found is None:
        raise NotFoundError(f"there is no login {login}; logins list shows those that exist")
    return found
