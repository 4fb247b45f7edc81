"""Whether measurements of an earlier version are still being moved: nothing is stored meanwhile."""

from sens_common.moving.progress import unfinished_move
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database


class FormerRows:
    """Asks until all are moved, and never again: nothing stores in the former form any more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._are_moved = False

    async def raise_unless_moved(self) -> None:
        """Look whether all are moved.

        Raises:
            StoreUnavailableError: They are not; nothing may be stored now.
        """
        if self._are_moved:
            return
        async with self._database.connection() as connection:
            words = await unfinished_move(connection)
        if words is not None:
            raise StoreUnavailableError(words)
        self._are_moved = True

    async def check(self) -> str | None:
        """Readiness check: all are moved."""
        try:
            await self.raise_unless_moved()
        except (StoreUnavailableError, RowsRefusedError) as error:
            return str(error)
        return None
