"""The transaction that stores a part of a batch: readings, dead letters and accounts, as `storing.Store`.

Its locks come in this order, whoever takes them: the gate of the names, devices in the order of their ids, metric sets, `device_metric_sets` in
the order of its key, readings in the order of theirs, holds of latest values in the order of theirs, edge nodes in the order of their ids, kept messages, then dead letters, counts and settled envelopes, and the gate of the rollups. `last_seen`
waits for no lock.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import numpy as np

from sens_common.database import Connection
from sens_common.database_errors import DatabaseFault, fault_of
from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import WrittenPart, accounts_update
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.letters import Quota, dead_letters
from sens_telemetry_worker.preparing import PreparedRows
from sens_telemetry_worker.storing import ProgressMadeElsewhereError, StoreUnavailableError
from sens_telemetry_worker.tenants import MetricSet
from sens_telemetry_worker.timescale.accounts import OutcomesChangedError, read_changed_outcomes, write_accounts
from sens_telemetry_worker.timescale.birth_writing import write_births
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.dead_letters import LetterExistsError, write_letters
from sens_telemetry_worker.timescale.device_metric_sets import Learned
from sens_telemetry_worker.timescale.former_rows import FormerRows
from sens_telemetry_worker.timescale.frames import FrameWriter
from sens_telemetry_worker.timescale.last_seen import LastSeen
from sens_telemetry_worker.timescale.late_readings import note_late
from sens_telemetry_worker.timescale.latest_holds import read_holds, write_holds
from sens_telemetry_worker.timescale.partitions import Partitions
from sens_telemetry_worker.timescale.readings import NoPartitionError, ReadingExistsError
from sens_telemetry_worker.timescale.row_writing import RowWriter, WriteMode

# Reading the generation takes a shared lock: a deletion of devices or metrics waits for it, and it waits for such a deletion. It comes before
# all other locks of the transaction, as it does where names are deleted.
_GATE: Final = "SELECT generation FROM sens.name_generation"
_GONE: Final = """
    SELECT EXISTS (
        SELECT FROM unnest($1::int[]) AS used (id)
        WHERE NOT EXISTS (
            SELECT FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id
            WHERE d.id = used.id AND d.named_generation <= $4 AND t.named_generation <= $4
        )
    )
        OR EXISTS (SELECT FROM unnest($2::int[]) AS used (id) WHERE NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = used.id))
        OR EXISTS (SELECT FROM unnest($3::int[]) AS used (id) WHERE NOT EXISTS (SELECT FROM sens.metric_sets s WHERE s.id = used.id))
"""


class _OutdatedCacheError(Exception):
    """What is remembered of sets and devices is of an older generation than the gate's; the transaction has to be rolled back."""

    def __init__(self, generation: int) -> None:
        super().__init__(f"names were deleted; the generation of ids is {generation}")
        self.generation = generation


class _Written(NamedTuple):
    """A part that is written but not committed yet, and what to remember then."""

    part: WrittenPart
    generation: int
    learned: Learned
    last_seen: dict[int, int]


class TimescaleStore:
    """The database, as `storing.Store`.

    Attributes:
        partitions: Those of the readings.
        former_rows: What stores nothing until all measurements have the form of this version.
    """

    def __init__(self, database: Database, unknown_tenants: Quota) -> None:
        """Begin.

        Args:
            database: Where to write.
            unknown_tenants: The limits of the dead letters of all unknown tenants together; how many there are is asked for.
        """
        self._database = database
        self._unknown_tenants = unknown_tenants
        self._rows = RowWriter()
        self._last_seen = LastSeen()
        self._frames = FrameWriter(database)
        self._generation: int | None = None
        self.partitions = Partitions(database)
        self.former_rows = FormerRows(database)

    async def write(self, part: BatchPart) -> WrittenPart:
        """See `storing.Store.write`."""
        await self.former_rows.raise_unless_moved()
        await self.partitions.ensure(part.rows.measured_at())
        await self._frames.ensure_partitions(part)
        rows_mode = letters_mode = WriteMode.COPY
        while True:
            try:
                written = await self._write(part, rows_mode, letters_mode)
            except _OutdatedCacheError as error:
                self._forget(error.generation)
            except ReadingExistsError:
                rows_mode = WriteMode.MERGE
            except LetterExistsError:
                await self._check_settled(part)
                letters_mode = WriteMode.MERGE
            except OutcomesChangedError as error:
                await self._check_settled(part)
                raise StoreUnavailableError(
                    "sens.settled was changed by something else than a telemetry worker"
                ) from error
            except NoPartitionError as error:
                self.partitions.forget()
                raise StoreUnavailableError(str(error)) from error
            else:
                if written.generation == self._generation:  # else names were deleted since the commit
                    self._rows.remember(written.learned)
                self._last_seen.remember(written.last_seen)
                metrics.BATCHES.labels(rows_mode).inc()
                return written.part

    def _forget(self, generation: int) -> None:
        """Forget what was remembered under another generation of ids."""
        self._database.name_generation = max(generation, self._database.name_generation)
        self._generation = generation
        self._rows.forget()

    async def _write(self, part: BatchPart, rows_mode: WriteMode, letters_mode: WriteMode) -> _Written:
        async with self._database.connection() as connection, connection.transaction():
            generation = await self._pass_gate(connection)
            holds = await read_holds(connection, part)
            rows = await self._rows.write(connection, part.rows, len(part.batch.messages), rows_mode)
            await write_holds(connection, holds, rows.prepared.conflicts)
            await self._frames.write(connection, part, rows.prepared.conflicts)
            last_seen = await self._last_seen.write(connection, part)
            try:
                await write_births(connection, part)
                written, watermark = await self._write_accounts(connection, part, rows.prepared, letters_mode)
                await note_late(connection, [*rows.prepared.inserts, *rows.prepared.updates], watermark)
            except asyncpg.PostgresError as error:
                if fault_of(error) is DatabaseFault.REFUSED:
                    # No message is to blame for it, and none may be dropped.
                    raise StoreUnavailableError(f"the database refuses dead letters or counts: {error}") from error
                raise
            if part.batch.interpreted.generation != generation:
                await _check_ids_still_valid(connection, part, rows.set_ids)
            return _Written(written, generation, rows.learned, last_seen)

    async def _pass_gate(self, connection: Connection) -> int:
        """Return the generation of ids, which stays until the end of the transaction.

        Raises:
            _OutdatedCacheError: It is another one than that of what is remembered.
        """
        generation = int(await connection.fetchval(_GATE))
        if self._generation is None:
            self._generation = generation
        elif generation != self._generation:
            raise _OutdatedCacheError(generation)
        return generation

    async def _write_accounts(
        self, connection: Connection, part: BatchPart, prepared: PreparedRows, letters_mode: WriteMode
    ) -> tuple[WrittenPart, datetime]:
        """Write what belongs to the rows that the transaction has written; return it with the watermark of the rollups."""
        letters = dead_letters(part, prepared.conflicts)
        kept, discarded = await write_letters(
            connection, letters, self._unknown_tenants, are_new=letters_mode is WriteMode.COPY
        )
        update = accounts_update(
            part, prepared.new_values, [each.message_index for each in kept], [each.message_index for each in discarded]
        )
        watermark = await write_accounts(connection, update)
        return WrittenPart(prepared.new_values, kept, discarded, update), watermark

    async def _check_settled(self, part: BatchPart) -> None:
        """Look, now that nothing is locked, whether another worker was faster.

        Raises:
            ProgressMadeElsewhereError: One was.
        """
        async with self._database.connection() as connection:
            recorded = await read_changed_outcomes(connection, part.batch.undecided)
        if recorded:
            raise ProgressMadeElsewhereError(recorded)


async def _check_ids_still_valid(connection: Connection, part: BatchPart, set_ids: Mapping[MetricSet, int]) -> None:
    """Look whether all devices, metrics and sets are there, and have the names under which they were looked up.

    It happens behind the gate, so that it holds until the end of the transaction.

    Args:
        connection: In the transaction.
        part: With all of its rows: what conflicts with what was stored under an id that is gone may not conflict under another one.
        set_ids: Of the rows that are written.

    Raises:
        StoreUnavailableError: One of them was deleted or renamed.
    """
    rows, generation = part.rows, part.batch.interpreted.generation
    devices = {device_id for group in rows.groups for device_id in np.unique(group.device_id).tolist()}
    sets = {*set_ids, *(group.metric_set for group in rows.groups)}
    used = {metric_id for each in sets for metric_id in (*each.number_ids, *each.text_ids)}
    if await connection.fetchval(_GONE, list(devices), list(used), list(set_ids.values()), generation):
        raise StoreUnavailableError(
            "devices or metrics were deleted or renamed meanwhile; their names are looked up again"
        )
