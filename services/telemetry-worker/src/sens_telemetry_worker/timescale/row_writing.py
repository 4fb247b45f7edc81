"""Writes the readings of a part, in its transaction: prepared, in the sets of their devices, into the table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from sens_common.database import Connection
from sens_telemetry_worker.preparing import PreparedRows, devices_with_additions, prepare
from sens_telemetry_worker.rows import Rows
from sens_telemetry_worker.tenants import MetricSet
from sens_telemetry_worker.timescale import readings
from sens_telemetry_worker.timescale.device_metric_sets import DeviceMetricSets, Learned
from sens_telemetry_worker.timescale.metric_sets import MetricSets
from sens_telemetry_worker.timescale.stored_readings import lock_devices, read_stored

# Where a chunk is in the columnstore, changing one row decompresses a thousand; the server's limit is meant for statements by hand.
_NO_TUPLE_LIMIT: Final = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"


class WriteMode(StrEnum):
    """How rows or letters are written."""

    COPY = "copy"
    """Straight into the table; none of their keys may be stored."""
    MERGE = "merge"
    """Compared with what is stored: what is new is inserted, or added to stored rows."""


class WrittenRows(NamedTuple):
    """What was written of rows.

    Attributes:
        prepared: What became of them.
        set_ids: Ids of the metric sets that were written.
        learned: What to remember when the transaction is committed.
    """

    prepared: PreparedRows
    set_ids: Mapping[MetricSet, int]
    learned: Learned


class RowWriter:
    """The tables of readings and sets, and what is remembered of sets for one generation of ids."""

    def __init__(self) -> None:
        self._sets = MetricSets()
        self._device_sets = DeviceMetricSets(self._sets)

    async def write(self, connection: Connection, rows: Rows, message_count: int, mode: WriteMode) -> WrittenRows:
        """Write rows in a transaction that has passed the gate of the names.

        Raises:
            ReadingExistsError: Write in the mode `MERGE`, in another transaction.
            NoPartitionError: A partition is missing.
            RowsRefusedError: The server refuses a row.
        """
        prepared = (
            await self._merged(connection, rows, message_count)
            if mode is WriteMode.MERGE
            else prepare(rows, message_count)
        )
        return await self.put(connection, prepared)

    async def put(self, connection: Connection, prepared: PreparedRows) -> WrittenRows:
        """Write rows that are prepared; raises as `write`."""
        assigned = await self._device_sets.assign(connection, prepared)
        if assigned.updates:
            await readings.update(connection, assigned.updates, assigned.set_ids)
        if assigned.inserts:
            await readings.copy(connection, assigned.inserts, assigned.set_ids)
        return WrittenRows(prepared, assigned.set_ids, assigned.learned)

    def remember(self, learned: Learned) -> None:
        """Remember what a committed transaction has written."""
        self._device_sets.remember(learned)

    def forget(self) -> None:
        """Forget everything: names were deleted."""
        self._sets.forget()
        self._device_sets.forget()

    async def _merged(self, connection: Connection, rows: Rows, message_count: int) -> PreparedRows:
        """Prepare rows with what is stored for their keys."""
        await connection.execute(_NO_TUPLE_LIMIT)
        stored = await read_stored(connection, rows, self._sets)
        if locked := devices_with_additions(rows, stored):
            # Stored rows will be changed: nobody else may change them meanwhile, and somebody may have until now.
            await lock_devices(connection, locked)
            stored = {key: reading for key, reading in stored.items() if key[0] not in locked}
            stored |= await read_stored(connection, rows.of_devices(locked), self._sets)
        return prepare(rows, message_count, stored)
