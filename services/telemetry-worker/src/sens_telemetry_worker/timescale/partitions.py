"""The partitions of readings: made when a reading needs them, and ahead of time."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sens_common.attempts import Attempts
from sens_common.health import Problems
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database

_AHEAD: Final = "2 months"
_INTERVAL_SECONDS: Final = 3600.0


class Partitions:
    """Knows which months have their partitions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._months: set[int] = set()  # since 1970-01

    async def ensure(self, times: NDArray[np.int64]) -> None:
        """Make the partitions that readings with these times need, microseconds since the epoch."""
        if not len(times):
            return
        months = times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
        earliest = int(months.min())
        needed = {earliest + month for month in np.flatnonzero(np.bincount(months - earliest)).tolist()}
        for month in sorted(needed - self._months):
            moment = datetime(1970 + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            async with self._database.connection() as connection:
                await connection.execute("SELECT sens.ensure_reading_partitions($1, $1)", moment)
            self._months.add(month)

    def forget(self) -> None:
        """Look again which there are: one was dropped."""
        self._months.clear()

    async def keep_ahead(self, problems: Problems) -> None:
        """Make the partitions of the coming months, every hour."""
        attempts = Attempts(
            problems,
            "partitions",
            "partitions can't be made ahead; they are made when a reading needs them",
            retry_on=(StoreUnavailableError, RowsRefusedError),
            interval_seconds=_INTERVAL_SECONDS,
        )
        async for attempt in attempts:
            with attempt:
                async with self._database.connection() as connection:
                    await connection.execute(
                        f"SELECT sens.ensure_reading_partitions(now(), now() + interval '{_AHEAD}')"
                    )
