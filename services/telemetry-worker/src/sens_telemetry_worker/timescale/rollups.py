"""Keeps the rollups of hours and days up to date; how they stay exact is in the schema's migration 0014.

Each step is a transaction of its own that holds the lock of one row: one worker works at a time, and another one goes on where it stops,
also in the middle of an hour. A step does about as much as takes a quarter of a second.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from sens_common.attempts import Attempts
from sens_common.health import Problems
from sens_telemetry_worker import metrics
from sens_telemetry_worker.settings import RollupSettings
from sens_telemetry_worker.status import TelemetryStatus
from sens_telemetry_worker.storing import RowsRefusedError, StoreTooSlowError, StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database

_QUICK_SECONDS: Final = 0.15
_SLOW_SECONDS: Final = 0.4
_MOST_DEVICES: Final = 4096
_HOURS_OF_DAY: Final = 24
_OBSERVED: Final = """
    SELECT extract(epoch FROM greatest(
            interval '0', now() - $1::interval - interval '1 hour' - filled_until,
            now() - (SELECT c.noted_at FROM sens.rollup_changes c ORDER BY c.id LIMIT 1)
        ))::float8 AS lag_seconds,
        (SELECT count(*) FROM sens.rollup_changes) AS changes
    FROM sens.rollup_progress
"""


class StepOutcome(StrEnum):
    """What a step did, in the words of the schema's functions."""

    WORKED = "worked"
    IDLE = "idle"
    """There was nothing to do."""
    BUSY = "busy"
    """Another worker is at it, or batches were at the gate for too long."""


@dataclass(slots=True)
class StepSize:
    """How much a step does: more after a quick one, less after a slow one.

    Attributes:
        devices: How many devices, or changes of devices.
        hours: How many of each.
    """

    devices: int = 64
    hours: int = _HOURS_OF_DAY

    def adapt(self, seconds: float) -> None:
        """Take note of how long a step took."""
        if seconds > _SLOW_SECONDS and self.devices > 1:
            self.devices //= 2
        elif seconds > _SLOW_SECONDS:
            self.hours = max(1, self.hours // 2)
        elif seconds < _QUICK_SECONDS:
            self.devices = min(_MOST_DEVICES, self.devices * 2)
            self.hours = min(_HOURS_OF_DAY, self.hours * 2)


class RollupRefresher:
    """Adds hours to the rollups when they are over, and computes again what has changed since."""

    def __init__(
        self,
        database: Database,
        settings: RollupSettings,
        status: TelemetryStatus,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._settings = settings
        self._status = status
        self._clock = clock
        self._to_add = StepSize()
        self._to_apply = StepSize()
        self._one_device_failed = False

    async def keep_refreshed(self, problems: Problems) -> None:
        """Refresh again and again."""
        attempts = Attempts(
            problems,
            "rollups",
            "the rollups can't be refreshed; what they lack is read from the readings",
            retry_on=(StoreUnavailableError, RowsRefusedError),
            interval_seconds=self._settings.interval_seconds,
        )
        async for attempt in attempts:
            with attempt:
                await self.refresh()

    async def refresh(self) -> None:
        """Do all that there is to do, unless another worker is at it; then set the metrics.

        Raises:
            StoreUnavailableError: The database can't be used.
        """
        await self.move_watermark()
        while StepOutcome.WORKED in {await self.add_hours(), await self.apply_changes()}:
            pass
        await self._observe()

    async def move_watermark(self) -> StepOutcome:
        """Let the hours that are over, and settled, be added from now on."""
        async with self._database.connection() as connection:
            outcome = await connection.fetchval(
                "SELECT sens.move_rollup_watermark(now() - $1::interval)", self._settling_time
            )
        return StepOutcome(outcome)

    async def add_hours(self) -> StepOutcome:
        """Add the next hours of some devices.

        Raises:
            StoreTooSlowError: There will be less to do next time.
        """
        size = self._to_add
        again = self._one_device_failed
        try:
            outcome = await self._step("SELECT sens.add_rollups($1, $2, $3)", size, again)
        except StoreTooSlowError:
            self._one_device_failed = size.devices == 1
            size.adapt(float("inf"))
            raise
        self._one_device_failed = False
        return outcome

    async def apply_changes(self) -> StepOutcome:
        """Compute again what some changes concern.

        Raises:
            StoreTooSlowError: There will be less to do next time.
        """
        try:
            return await self._step("SELECT sens.apply_rollup_changes($1, $2)", self._to_apply)
        except StoreTooSlowError:
            self._to_apply.adapt(float("inf"))
            raise

    @property
    def _settling_time(self) -> timedelta:
        return timedelta(seconds=self._settings.settling_seconds)

    async def _step(self, statement: str, size: StepSize, *further: object) -> StepOutcome:
        started = self._clock()
        async with self._database.connection() as connection:
            outcome = StepOutcome(await connection.fetchval(statement, size.devices, size.hours, *further))
        if outcome is StepOutcome.WORKED:
            size.adapt(self._clock() - started)
        return outcome

    async def _observe(self) -> None:
        """Tell metrics and status how far the rollups are behind."""
        async with self._database.connection() as connection:
            observed = await connection.fetchrow(_OBSERVED, self._settling_time)
        if observed is not None:
            metrics.ROLLUP_LAG.set(observed["lag_seconds"])
            metrics.ROLLUP_CHANGES.set(observed["changes"])
            self._status.rollup_lag_seconds = observed["lag_seconds"]
