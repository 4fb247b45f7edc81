"""Tenants in the database; the administration command works as the owning role."""

from datetime import datetime
from typing import NamedTuple

from sens_platform_api.database import Connection
from sens_platform_api.errors import AlreadyExistsError, NotFoundError


class Tenant(NamedTuple):
    """Whom devices, keys and dead letters belong to."""

    id: int
    name: str
    device_limit: int
    metric_limit: int
    created_at: datetime


_COLUMNS = "id, name, device_limit, metric_limit, created_at"


async def create(connection: Connection, name: str) -> Tenant:
    """Make a tenant.

    Raises:
        AlreadyExistsError: There is one with this name.
    """
    row = await connection.fetchrow(
        f"INSERT INTO sens.tenants (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",  # noqa: S608 - constant text
        name,
    )
    if row is None:
        raise AlreadyExistsError(f"the tenant {name} already exists")
    return Tenant(*row)


async def find(connection: Connection, name: str) -> Tenant:
    """Return a tenant.

    Raises:
        NotFoundError: There is none with this name.
    """
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM sens.tenants WHERE name = $1",  # noqa: S608 - constant text
        name,
    )
    if row is None:
        raise NotFoundError(f"there is no tenant {name}; tenants list shows those that exist")
    return Tenant(*row)


async def list_all(connection: Connection) -> list[Tenant]:
    """Return all tenants, by name."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM sens.tenants ORDER BY name")  # noqa: S608 - constant text
    return [Tenant(*row) for row in rows]
