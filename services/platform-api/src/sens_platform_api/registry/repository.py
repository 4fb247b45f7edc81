"""Names in the database, and their deletion: the functions of migration 0008, which see the current tenant's names only."""

from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from sens_platform_api.database import Connection
from sens_platform_api.devices.repository import Kind

LOCK_MILLISECONDS: Final = 200
"""How long a deletion waits for batches that are being stored; so long, others wait behind it."""


class StillStoringError(Exception):
    """Batches were being stored all the time that a deletion waits; it can be tried again."""


class Metric(NamedTuple):
    """A metric of a tenant."""

    name: str
    kind: Kind
    created_at: datetime


class Step(NamedTuple):
    """What a step of a deletion has done."""

    deletion: int
    deleted: int
    finished: bool


async def list_metrics(connection: Connection, *, after: tuple[str, str], prefix: str, limit: int) -> list[Metric]:
    """Return metrics by name and kind, those after a name and kind, whose names begin like this."""
    rows = await connection.fetch(
        """
        SELECT name, kind, created_at FROM sens.metrics
        WHERE (name COLLATE "C", kind COLLATE "C") > ($1, $2) AND starts_with(name, $3)
        ORDER BY name COLLATE "C", kind COLLATE "C" LIMIT $4
        """,
        *after,
        prefix,
        limit,
    )
    return [Metric(*row) for row in rows]


async def delete_device(
    connection: Connection, name: str, *, actor: str, address: str | None, request_id: str | None
) -> bool:
    """Delete a device; its measurements go in steps. False when there is none of this name.

    Raises:
        StillStoringError: Try again in a new transaction.
    """
    try:
        await _wait_briefly(connection)
        found: bool = await connection.fetchval(
            "SELECT sens.delete_device($1, $2, $3, $4)", name, actor, address, request_id
        )
    except asyncpg.LockNotAvailableError as error:
        raise StillStoringError from error
    return found


async def delete_metric(
    connection: Connection, name: str, kind: Kind | None, *, actor: str, address: str | None, request_id: str | None
) -> list[Kind]:
    """Delete a metric of all devices, one kind of it or all; return the kinds that there were. Raises as `delete_device`."""
    try:
        await _wait_briefly(connection)
        kinds: list[Kind] = await connection.fetchval(
            "SELECT sens.delete_metric($1, $2, $3, $4, $5)", name, kind, actor, address, request_id
        )
    except asyncpg.LockNotAvailableError as error:
        raise StillStoringError from error
    return kinds


async def _wait_briefly(connection: Connection) -> None:
    await connection.execute("SELECT set_config('lock_timeout', $1, true)", str(LOCK_MILLISECONDS))


async def continue_deletion(connection: Connection, most: int) -> Step | None:
    """Delete so many measurements of what is deleted, of whichever tenant; None when there is nothing to do."""
    row = await connection.fetchrow("SELECT deletion, deleted, finished FROM sens.continue_deletion($1)", most)
    return None if row is None else Step(*row)
