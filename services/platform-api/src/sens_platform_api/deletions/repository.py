"""Deletions of one tenant in the database, by the functions of the migrations 0016 and 0021."""

from datetime import datetime
from typing import Literal, NamedTuple

import asyncpg

from sens_platform_api.caller import Caller
from sens_platform_api.errors import StillMovingError
from sens_platform_api.postgresql import TenantDatabase

type RollupKind = Literal["rollup_1h", "rollup_1d"]


class Deletion(NamedTuple):
    """What is being deleted, or was.

    Attributes:
        id: Its number.
        subject: What, for people.
        requested_at: When somebody asked for it.
        finished_at: When nothing was left, None while there is.
        readings: Readings that went as a whole so far.
        values: Values that went so far.
        dead_letters: Dead letters that went so far.
    """

    id: int
    subject: str
    requested_at: datetime
    finished_at: datetime | None
    readings: int
    values: int
    dead_letters: int


class KeptRollup(NamedTuple):
    """Aggregates of an hour (``rollup_1h``) or a day (``rollup_1d``) that lies partly in a range, and stays: what it is made of is gone."""

    kind: RollupKind
    starts_at: datetime


class RequestedDeletion(NamedTuple):
    """A deletion that was asked for: its id, and what stays although it lies partly in the range."""

    id: int
    kept: list[KeptRollup]


class TenantDeletions:
    """The deletions of one tenant, asked for in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def delete_range(
        self, device: str, metric: str | None, first: datetime, past: datetime
    ) -> RequestedDeletion | None:
        """See `service.Deletions.delete_range`."""
        async with self._database.transaction(readonly=False) as connection:
            try:
                deletion: int | None = await connection.fetchval(
                    "SELECT sens.delete_range($1, $2, $3, $4, $5, $6, $7)",
                    device,
                    metric,
                    first,
                    past,
                    self._caller.actor,
                    self._caller.address,
                    self._caller.request_id,
                )
            except asyncpg.ObjectInUseError as error:
                raise StillMovingError(
                    f"the history of {device} is still coming from another tenant; delete readings once its move is finished"
                ) from error
            rows = await connection.fetch(
                "SELECT kind, starts FROM sens.uncut_rollups($1, $2, $3, $4)", device, metric, first, past
            )
        return None if deletion is None else RequestedDeletion(deletion, [KeptRollup(*row) for row in rows])

    async def newest(self, *, before: int | None, limit: int) -> list[Deletion]:
        """Return deletions with ids below one, the newest first."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """
                SELECT id, subject, requested_at, NULL::timestamptz, readings, deleted, letters FROM sens.deletions
                WHERE id < coalesce($1, 9223372036854775807)
                UNION ALL
                (
                    SELECT id, subject, requested_at, finished_at, readings, "values", letters FROM sens.finished_deletions
                    WHERE id < coalesce($1, 9223372036854775807) ORDER BY id DESC LIMIT $2
                )
                ORDER BY id DESC LIMIT $2
                """,
                before,
                limit,
            )
        return [Deletion(*row) for row in rows]
