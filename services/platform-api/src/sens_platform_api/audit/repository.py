"""The audit's rows in the database: each is written in the transaction of its change, and none is changed or deleted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from sens_platform_api.postgresql import Connection, TenantDatabase

ADMINISTRATOR: Final = "administrator"
"""The actor of a command that logs in to the database itself."""


class StoredEvent(NamedTuple):
    """A change."""

    id: int
    at: datetime
    tenant: str | None
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    address: str | None
    request_id: str | None


async def record(
    connection: Connection,
    *,
    tenant_id: int | None,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object] | None = None,
    address: str | None = None,
    request_id: str | None = None,
) -> None:
    """Add a row, in the transaction of the change.

    Args:
        connection: In that transaction.
        tenant_id: Id of the tenant that it concerns, None for all.
        actor: `ADMINISTRATOR`, or a key (`Caller.actor`).
        action: The kind of change, for example ``key.created``.
        subject: The thing that was changed.
        details: More, for programs.
        address: The address that the request came from.
        request_id: Names the request in the log.
    """
    await connection.execute(
        "SELECT sens.record_audit($1, $2, $3, $4, $5::text::jsonb, $6, $7)",
        tenant_id,
        actor,
        action,
        subject,
        orjson.dumps(details or {}).decode(),
        address,
        request_id,
    )


async def list_events(
    connection: Connection, *, before: int | None, limit: int, tenant: str | None
) -> list[StoredEvent]:
    """Return events with ids below one, the newest first: those of one tenant, or all that the connection sees."""
    rows = await connection.fetch(
        """
        SELECT id, at, tenant, actor, action, subject, details::text AS details, address, request_id FROM sens.audit_events
        WHERE ($1::bigint IS NULL OR id < $1) AND ($2::text IS NULL OR tenant = $2)
        ORDER BY id DESC LIMIT $3
        """,
        before,
        tenant,
        limit,
    )
    return [StoredEvent(**{**row, "details": orjson.loads(row["details"])}) for row in rows]


class TenantEvents:
    """A tenant's own events."""

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database

    async def newest(self, *, before: int | None, limit: int) -> list[StoredEvent]:
        """Return events with ids below one, the newest first."""
        async with self._database.transaction() as connection:
            return await list_events(connection, before=before, limit=limit, tenant=None)
