"""Metrics in the database, and the deletion of metrics and devices by the functions of the migrations 0008, 0016 and 0021, which see the tenant's names only."""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import asyncpg

from sens_platform_api.between_batches import LOCK_MILLISECONDS, StillStoringError
from sens_platform_api.caller import Caller
from sens_platform_api.devices.repository import Kind
from sens_platform_api.postgresql import Connection, Pool, QueryKind, TenantDatabase, transaction


class Renaming(StrEnum):
    """What became of the renaming of a device."""

    RENAMED = "renamed"
    UNKNOWN_DEVICE = "unknown_device"
    TAKEN = "taken"


class Moving(StrEnum):
    """What became of the move of a device to another tenant."""

    MOVED = "moved"
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_KEY = "unknown_key"
    READ_ONLY_KEY = "read_only_key"
    SAME_TENANT = "same_tenant"
    TAKEN = "taken"
    STILL_MOVING = "still_moving"
    TOO_MANY_DEVICES = "too_many_devices"
    TOO_MANY_METRICS = "too_many_metrics"


class Move(NamedTuple):
    """The move of a device.

    Attributes:
        outcome: What became of it.
        deletion: The deletion that tells how far its history is, None where it is not moved.
        tenant: The name of the other tenant, None where that is not known.
    """

    outcome: Moving
    deletion: int | None
    tenant: str | None


class Metric(NamedTuple):
    """A metric of a tenant."""

    name: str
    kind: Kind
    created_at: datetime


class DeletionStep(NamedTuple):
    """The result of a step of a deletion: its id, the number of measurements that were deleted, and whether none is left."""

    deletion: int
    deleted: int
    finished: bool


class TenantNames:
    """The metrics and devices of one tenant, and their deletion in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def metrics(self, *, after: tuple[str, str], prefix: str, limit: int) -> list[Metric]:
        """Return metrics by name and kind: those after a name and kind, whose names begin with the prefix."""
        async with self._database.transaction() as connection:
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

    async def delete_device(self, name: str) -> bool:
        """Delete a device, whose measurements go in steps; return False when there is none with this name.

        Raises:
            StillStoringError: Try again.
        """
        async with self._deletion() as connection:
            found: bool = await connection.fetchval(
                "SELECT sens.delete_device($1, $2, $3, $4)",
                name,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return found

    async def rename_device(self, name: str, new_name: str) -> Renaming:
        """Give a device another name. Raises as `delete_device`."""
        async with self._deletion() as connection:
            return Renaming(
                await connection.fetchval(
                    "SELECT sens.rename_device($1, $2, $3, $4, $5)",
                    name,
                    new_name,
                    self._caller.actor,
                    self._caller.address,
                    self._caller.request_id,
                )
            )

    async def move_device(self, name: str, new_name: str, target_key_hash: bytes) -> Move:
        """Move a device to the tenant of another key. Raises as `delete_device`."""
        async with self._deletion() as connection:
            row = await connection.fetchrow(
                "SELECT outcome, deletion, to_tenant FROM sens.move_device($1, $2, $3, $4, $5, $6)",
                name,
                new_name,
                target_key_hash,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
        return Move(Moving(row["outcome"]), row["deletion"], row["to_tenant"])

    async def delete_metric(self, name: str, kind: Kind | None) -> list[Kind]:
        """Delete a metric of all devices, one kind of it or all; return the kinds that there were. Raises as `delete_device`."""
        async with self._deletion() as connection:
            kinds: list[Kind] = await connection.fetchval(
                "SELECT sens.delete_metric($1, $2, $3, $4, $5)",
                name,
                kind,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return kinds

    @contextlib.asynccontextmanager
    async def _deletion(self) -> AsyncIterator[Connection]:
        async with self._database.transaction(readonly=False) as connection:
            await connection.execute("SELECT set_config('lock_timeout', $1, true)", str(LOCK_MILLISECONDS))
            try:
                yield connection
            except asyncpg.LockNotAvailableError as error:
                raise StillStoringError from error


class StoredDeletions:
    """The deletions of all tenants whose measurements are not all gone yet."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def step(self, most: int) -> DeletionStep | None:
        """Delete about so many measurements of one deletion; return None when there is no deletion."""
        async with transaction(self._pool, QueryKind.MEASUREMENTS, readonly=False) as connection:
            row = await connection.fetchrow("SELECT deletion, deleted, finished FROM sens.continue_deletion($1)", most)
        return None if row is None else DeletionStep(*row)
