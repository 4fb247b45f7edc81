"""Tenants in the database; the administration command works as the owning role."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import msgspec

from sens_common.errors import UnavailableError
from sens_common.tenant_limits import IngestKey, MqttSource, TenantLimits
from sens_platform_api.errors import AlreadyExistsError, NotFoundError
from sens_platform_api.postgresql import Connection, Pool, transaction
from sens_platform_api.tenants.limits import LIMITS, Limit

_LOCK_SECONDS: Final = 5
"""How long the deletion of a tenant waits for batches that are being stored; new batches wait behind it meanwhile."""


_sources: Final = msgspec.json.Decoder(tuple[MqttSource, ...])


class Tenant(NamedTuple):
    """A customer of the installation: devices, metrics, keys and dead letters each belong to one."""

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
        f"SELECT {_COLUMNS} FROM sens.tenants WHERE name = $1 AND deleted_at IS NULL",  # noqa: S608 - constant text
        name,
    )
    if row is None:
        raise NotFoundError(f"there is no tenant {name}; tenants list shows those that exist")
    return Tenant(*row)


async def delete(connection: Connection, name: str, actor: str) -> int:
    """Delete a tenant that there is, with a row of the audit; return how many devices it had (as the owning role).

    Raises:
        UnavailableError: Batches are stored for longer than it waits; nothing is deleted.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    try:
        devices: int = await connection.fetchval("SELECT sens.delete_tenant($1, $2)", name, actor)
    except asyncpg.LockNotAvailableError as error:
        raise UnavailableError("messages are being stored all the time; try again") from error
    return devices


async def rename(connection: Connection, name: str, new_name: str, actor: str) -> None:
    """Give a tenant that there is another name, with a row of the audit (as the owning role).

    Raises:
        AlreadyExistsError: There is one with the new name.
        UnavailableError: Batches are stored for longer than it waits; nothing is changed.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    try:
        renamed = await connection.fetchval("SELECT sens.rename_tenant($1, $2, $3)", name, new_name, actor)
    except asyncpg.LockNotAvailableError as error:
        raise UnavailableError("messages are being stored all the time; try again") from error
    if not renamed:
        raise AlreadyExistsError(f"the tenant {new_name} already exists")


async def list_all(connection: Connection) -> list[Tenant]:
    """Return all tenants, by name."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM sens.tenants WHERE deleted_at IS NULL ORDER BY name")  # noqa: S608 - constant text
    return [Tenant(*row) for row in rows]


async def limits(connection: Connection, tenant_id: int, *, lock: bool = False) -> dict[str, int | None]:
    """Return a tenant's limits by name; None where there is no limit.

    Args:
        connection: As the owning role.
        tenant_id: Id of the tenant.
        lock: Whether nobody else may change them until the end of the transaction.
    """
    columns = ", ".join(limit.column for limit in LIMITS)
    row = await connection.fetchrow(
        f"SELECT {columns} FROM sens.tenants WHERE id = $1{' FOR UPDATE' if lock else ''}",  # noqa: S608 - constants
        tenant_id,
    )
    assert row is not None  # noqa: S101 - for the type checker: the caller has found the tenant
    return {limit.name: row[limit.column] for limit in LIMITS}


async def set_limits(connection: Connection, tenant_id: int, changes: Mapping[Limit, int | None]) -> None:
    """Change some of a tenant's limits, at least one (as the owning role)."""
    assignments = ", ".join(f"{limit.column} = ${number}" for number, limit in enumerate(changes, 2))
    await connection.execute(
        f"UPDATE sens.tenants SET {assignments} WHERE id = $1",  # noqa: S608 - names of columns from a constant
        tenant_id,
        *changes.values(),
    )


async def usage(connection: Connection, tenant_id: int) -> dict[str, int]:
    """Return how much of its limits a tenant has used, by the limits' names, where that is counted (as the owning role)."""
    row = await connection.fetchrow(
        """
        SELECT
            coalesce(r.devices, 0) AS devices,
            CASE WHEN r.hour = date_trunc('hour', now(), 'UTC') THEN r.new_devices ELSE 0 END AS new_devices_per_hour,
            coalesce(r.metrics, 0) AS metrics,
            CASE WHEN r.hour = date_trunc('hour', now(), 'UTC') THEN r.new_metrics ELSE 0 END AS new_metrics_per_hour,
            coalesce(u.letters, 0) AS dead_letters,
            coalesce(u.bytes, 0) AS dead_letter_bytes,
            (SELECT s.readings + s.rollups FROM sens.sizes_of(tenant.id) s) AS stored_bytes
        FROM (VALUES ($1::int)) AS tenant (id)
        LEFT JOIN sens.registrations r ON r.tenant_id = tenant.id
        LEFT JOIN LATERAL (
            SELECT sum(letters)::bigint AS letters, sum(bytes)::bigint AS bytes FROM sens.dead_letter_usage
            WHERE tenant_id = tenant.id
        ) u ON true
        """,
        tenant_id,
    )
    assert row is not None  # noqa: S101 - for the type checker: there is one row in any case
    return dict(row)


class IngestionLimits:
    """The limits that the ingestion workers have to know, as the API's role sees them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def limits(self) -> dict[str, TenantLimits]:
        """See `tenants.service.StoredLimits.limits`."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT tenant, messages_per_second, mqtt_sources FROM sens.ingestion_tenants()"
            )
            key_rows = await connection.fetch(
                "SELECT tenant, hash, source, device, expires_at FROM sens.ingestion_keys()"
            )
        keys: dict[str, list[IngestKey]] = {}
        for tenant, *key in key_rows:
            keys.setdefault(tenant, []).append(IngestKey(*key))
        limits = {tenant: TenantLimits(rate, _sources.decode(sources)) for tenant, rate, sources in rows}
        for tenant, of_tenant in keys.items():
            limits[tenant] = msgspec.structs.replace(limits.get(tenant, TenantLimits()), ingest_keys=tuple(of_tenant))
        return limits


async def shortest_raw_retention(connection: Connection, tenant_id: int) -> int | None:
    """Return for how many days readings of a tenant are kept at least, None if for ever."""
    days: int | None = await connection.fetchval(
        "SELECT min(days) FROM sens.retention WHERE tenant_id = $1 AND kind = 'raw'", tenant_id
    )
    return days
