"""A tenant's calibrations in the database, changed by the functions of migration 0022."""

from datetime import datetime
from typing import Final, NamedTuple

from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import TenantDatabase

MOST_SHOWN: Final = 10_000
"""Calibrations of a device that are read at once."""


class NewCalibration(NamedTuple):
    """A calibration as it should be.

    Attributes:
        metric: Name of a metric of numbers.
        valid_from: From when on values are calibrated.
        scale: By which what is stored is multiplied.
        offset: What is added after that.
        reason: Why, for people.
    """

    metric: str
    valid_from: datetime
    scale: float
    offset: float
    reason: str


class Calibration(NamedTuple):
    """A calibration of a device.

    Attributes:
        id: Its id.
        what: What it says.
        added_at: When it was added.
        added_by: By whom.
        removed_at: When it was removed or replaced, None while it holds.
        removed_by: By whom.
    """

    id: int
    what: NewCalibration
    added_at: datetime
    added_by: str
    removed_at: datetime | None
    removed_by: str | None


class Added(NamedTuple):
    """What became of a new calibration: an outcome of ``sens.add_calibration``, and its id where it holds now."""

    outcome: str
    id: int | None


class TenantCalibrations:
    """The calibrations of one tenant, changed in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def of_device(self, device: str, *, with_removed: bool) -> list[Calibration] | None:
        """Return the calibrations of a device by metric and time, None when the tenant has no such device."""
        async with self._database.transaction() as connection:
            device_id = await connection.fetchval("SELECT id FROM sens.devices WHERE name = $1", device)
            if device_id is None:
                return None
            rows = await connection.fetch(
                """
                SELECT c.id, m.name, c.valid_from, c.scale, c.addend, c.reason, c.added_at, c.added_by, c.removed_at, c.removed_by
                FROM sens.calibrations c JOIN sens.metrics m ON m.id = c.metric_id
                WHERE c.device_id = $1 AND (c.removed_at IS NULL OR $2) ORDER BY m.name COLLATE "C", c.valid_from, c.added_at LIMIT $3
                """,
                device_id,
                with_removed,
                MOST_SHOWN,
            )
        return [Calibration(row[0], NewCalibration(*row[1:6]), *row[6:]) for row in rows]

    async def add(self, device: str, new: NewCalibration) -> Added:
        """Add a calibration, in the place of one that is valid from the same time."""
        async with self._database.transaction(readonly=False) as connection:
            row = await connection.fetchrow(
                "SELECT outcome, id FROM sens.add_calibration($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                device,
                *new,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        assert row is not None  # noqa: S101 - for the type checker: a function without a table has one row
        return Added(*row)

    async def remove(self, device: str, calibration: int) -> str:
        """Remove a calibration; return ``removed``, ``unknown_device``, or ``unknown``."""
        async with self._database.transaction(readonly=False) as connection:
            outcome: str = await connection.fetchval(
                "SELECT sens.remove_calibration($1, $2, $3, $4, $5)",
                device,
                calibration,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return outcome
