"""Erasures in the database, by the functions of migration 0016."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from sens_common.control import Erasure
from sens_platform_api.between_batches import LOCK_MILLISECONDS, StillStoringError
from sens_platform_api.caller import Caller
from sens_platform_api.erasures.service import ErasedName, Position, StoredErasure
from sens_platform_api.postgresql import Connection, Pool, QueryKind, TenantDatabase, transaction

_SELECT: Final = """
    SELECT e.id, e.device_hash, e.erased_at, f.finished_at,
        coalesce(f.readings, d.readings, 0), coalesce(f."values", d.deleted, 0), coalesce(f.letters, d.letters, 0),
        coalesce(f.frames, d.frames, 0)
    FROM sens.erasures e
        LEFT JOIN sens.deletions d ON d.id = e.deletion_id LEFT JOIN sens.finished_deletions f ON f.id = e.deletion_id
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TenantErasures:
    """The erasures of one tenant, in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    @property
    def tenant_id(self) -> int:
        """Id of the tenant."""
        return self._caller.tenant_id

    async def names(self, hash_: bytes) -> list[ErasedName]:
        """See `service.Erasures.names`."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch("SELECT tenant_id, device_hash, until FROM sens.erased_names($1)", hash_)
        return sorted((ErasedName(*row) for row in rows), key=lambda name: name.until is not None)

    async def erase(self, hash_: bytes, at: datetime) -> int:
        """See `service.Erasures.erase`."""
        async with self._database.transaction(readonly=False) as connection, _not_waiting_for_long(connection):
            erasure: int = await connection.fetchval(
                "SELECT sens.erase_device($1, $2, $3, $4, $5)",
                hash_,
                at,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return erasure

    async def erase_elsewhere(self, hash_: bytes, name: ErasedName) -> None:
        """See `service.Erasures.erase_elsewhere`."""
        async with self._database.transaction(readonly=False) as connection, _not_waiting_for_long(connection):
            await connection.execute(
                "SELECT sens.erase_former_name($1, $2, $3, $4, $5, $6, $7)",
                hash_,
                name.tenant_id,
                name.device_hash,
                name.until,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )

    async def find(self, erasure: int) -> StoredErasure | None:
        """See `service.Erasures.find`."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(f"{_SELECT} WHERE e.id = $1", erasure)
        return None if row is None else StoredErasure(*row)

    async def newest(self, limit: int) -> list[StoredErasure]:
        """See `service.Erasures.newest`."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(f"{_SELECT} ORDER BY e.id DESC LIMIT $1", limit)
        return [StoredErasure(*row) for row in rows]


class StoredControl:
    """How far the stream ``CONTROL`` was carried out."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def position(self) -> Position:
        """See `service.AppliedControl.position`."""
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow("SELECT stream, sequence FROM sens.control_progress")
        assert row is not None  # noqa: S101 - for the type checker: the migration has made it
        return Position(*row)

    async def apply(self, position: Position, erasure: Erasure) -> None:
        """See `service.AppliedControl.apply`."""
        async with (
            transaction(self._pool, QueryKind.LOOKUP, readonly=False) as connection,
            _not_waiting_for_long(connection),
        ):
            await connection.execute(
                "SELECT sens.apply_control($1, $2, $3, $4, $5)",
                position.stream,
                position.sequence,
                erasure.tenant_id,
                bytes.fromhex(erasure.device_hash),
                _EPOCH + timedelta(microseconds=erasure.erased_at),
            )


@contextlib.asynccontextmanager
async def _not_waiting_for_long(connection: Connection) -> AsyncIterator[None]:
    await connection.execute("SELECT set_config('lock_timeout', $1, true)", str(LOCK_MILLISECONDS))
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise StillStoringError from error
