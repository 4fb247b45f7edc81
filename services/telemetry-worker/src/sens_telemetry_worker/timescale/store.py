"""The transaction that stores a part of a batch: measurements, dead letters and accounts, as `storing.Store`."""

from enum import StrEnum
from typing import Final

import asyncpg

from sens_common.database import Connection
from sens_common.database_errors import DatabaseFault, fault_of
from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import WrittenPart, accounts_update
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.letters import Quota, dead_letters
from sens_telemetry_worker.rows import PreparedRows
from sens_telemetry_worker.storing import ProgressMadeElsewhereError, RowsRefusedError, StoreUnavailableError
from sens_telemetry_worker.timescale import measurements
from sens_telemetry_worker.timescale.accounts import OutcomesChangedError, read_changed_outcomes, write_accounts
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.dead_letters import LetterExistsError, write_letters
from sens_telemetry_worker.timescale.measurements import NoPartitionError, RowExistsError, WrittenRows
from sens_telemetry_worker.timescale.partitions import Partitions

_GONE: Final = """
    SELECT EXISTS (SELECT FROM unnest($1::int[]) AS used (id) WHERE NOT EXISTS (SELECT FROM sens.devices d WHERE d.id = used.id))
        OR EXISTS (SELECT FROM unnest($2::int[]) AS used (id) WHERE NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = used.id))
"""


class WritePath(StrEnum):
    """How rows or letters are written."""

    COPY = "copy"
    """Straight into the table; none of their keys may be stored."""
    MERGE = "merge"
    """Row by row: rows that are stored already are compared, the others inserted."""


class TimescaleStore:
    """The database, as `storing.Store`.

    Attributes:
        partitions: Those of the measurements.
    """

    def __init__(self, database: Database, unknown_tenants: Quota) -> None:
        """Begin.

        Args:
            database: Where to write.
            unknown_tenants: The limits of the dead letters of all unknown tenants together; how many there are is asked for.
        """
        self._database = database
        self._unknown_tenants = unknown_tenants
        self.partitions = Partitions(database)

    async def write(self, part: BatchPart) -> WrittenPart:
        """See `storing.Store.write`."""
        await self.partitions.ensure(part.rows.measured_at())
        rows_path = letters_path = WritePath.COPY
        while True:
            try:
                written = await self._write(part, rows_path, letters_path)
            except RowExistsError:
                rows_path = WritePath.MERGE
            except LetterExistsError:
                await self._check_settled(part)
                letters_path = WritePath.MERGE
            except OutcomesChangedError as error:
                await self._check_settled(part)
                raise StoreUnavailableError(
                    "sens.settled was changed by something else than a telemetry worker"
                ) from error
            except NoPartitionError as error:
                self.partitions.forget()
                raise StoreUnavailableError(str(error)) from error
            except RowsRefusedError as error:
                raise RowsRefusedError(str(error), measurements.suspect(error.__cause__, part.rows)) from error
            else:
                metrics.BATCHES.labels(rows_path).inc()
                return written

    async def _write(self, part: BatchPart, rows_path: WritePath, letters_path: WritePath) -> WrittenPart:
        async with self._database.connection() as connection, connection.transaction():
            write_rows = measurements.copy if rows_path is WritePath.COPY else measurements.merge
            rows = await write_rows(connection, part.rows, len(part.batch.messages))
            try:
                return await self._write_accounts(connection, part, rows, letters_path)
            except asyncpg.PostgresError as error:
                if fault_of(error) is DatabaseFault.REFUSED:
                    # No message is to blame for it, and none may be dropped.
                    raise StoreUnavailableError(f"the database refuses dead letters or counts: {error}") from error
                raise

    async def _write_accounts(
        self, connection: Connection, part: BatchPart, rows: WrittenRows, letters_path: WritePath
    ) -> WrittenPart:
        """Write what belongs to the rows that the transaction has written."""
        letters = dead_letters(part, rows.conflicting)
        kept, discarded = await write_letters(
            connection, letters, self._unknown_tenants, are_new=letters_path is WritePath.COPY
        )
        update = accounts_update(
            part, rows.new_values, [each.message_index for each in kept], [each.message_index for each in discarded]
        )
        generation = await write_accounts(connection, update)
        if part.batch.interpreted.generation != generation:
            self._database.name_generation = max(generation, self._database.name_generation)
            await _check_names(connection, part.rows)
        return WrittenPart(rows.new_values, kept, discarded, update)

    async def _check_settled(self, part: BatchPart) -> None:
        """Look, now that nothing is locked, whether another worker was faster.

        Raises:
            ProgressMadeElsewhereError: One was.
        """
        async with self._database.connection() as connection:
            recorded = await read_changed_outcomes(connection, part.batch.undecided)
        if recorded:
            raise ProgressMadeElsewhereError(recorded)


async def _check_names(connection: Connection, rows: PreparedRows) -> None:
    """Look whether all devices and metrics of the rows are there; behind the gate, so that it holds until the end of the transaction.

    Raises:
        StoreUnavailableError: One of them was deleted.
    """
    if await connection.fetchval(_GONE, rows.device_ids(), rows.metric_ids()):
        raise StoreUnavailableError("devices or metrics were deleted meanwhile; their names are looked up again")
