"""What the worker writes: measurements, dead letters and accounts, as `storing.Store`."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Final

import asyncpg
import numpy as np
import structlog
from numpy.typing import NDArray

from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import Part
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.rows import Prepared, copy_bytes, text_copy_bytes
from sens_telemetry_worker.storing import RowsRefusedError, SettledElsewhereError, StoreUnavailableError, Written
from sens_telemetry_worker.timescale.accounts import Accounts, LetterExistsError
from sens_telemetry_worker.timescale.copying import copy_to
from sens_telemetry_worker.timescale.database import Connection, Database

log = structlog.get_logger()

_COLUMNS: Final = ["device_id", "metric_id", "ts", "value"]
_NUMBERS: Final = "measurements"
_TEXTS: Final = "text_measurements"
_COPY_LINE: Final = re.compile(rf"^COPY ({_NUMBERS}|{_TEXTS}), line ([0-9]+)", re.MULTILINE)
_PARTITIONS_AHEAD: Final = "2 months"


class TimescaleStore:
    """The measurements, the dead letters and the accounts, as `storing.Store`."""

    def __init__(self, database: Database, unknown_tenants: Quota) -> None:
        """Begin.

        Args:
            database: Where to write.
            unknown_tenants: What all unknown tenants together may have of dead letters; what they have is asked for.
        """
        self._database = database
        self._accounts = Accounts(database, unknown_tenants)
        self._months: set[int] = set()  # months since 1970-01 that are known to have their partitions

    async def write(self, part: Part) -> Written:
        """See `storing.Store.write`."""
        await self._ensure_partitions(part.rows)
        try:
            return await self._write(part)
        except _NoPartitionError as error:
            # Somebody has dropped one that was known.
            self._months.clear()
            raise StoreUnavailableError(str(error)) from error
        except RowsRefusedError as error:
            raise RowsRefusedError(str(error), _suspect(error.__cause__, part.rows)) from error

    async def _write(self, part: Part) -> Written:
        copied = letters_are_new = True
        while True:
            settled_elsewhere = False
            try:
                async with self._database.connection() as connection, connection.transaction():
                    write_rows = _copy if copied else _merge
                    new_values, conflicting = await write_rows(connection, part)
                    written = await self._accounts.write(
                        connection, part, new_values, conflicting, letters_are_new=letters_are_new
                    )
            except _RowExistsError:
                copied = False
                continue
            except LetterExistsError:
                letters_are_new = False
            except SettledElsewhereError:
                settled_elsewhere = True
            else:
                metrics.BATCHES.labels("copy" if copied else "merge").inc()
                return written
            # Somebody was faster, or it comes again; what the database knows of it can be read once nothing is locked.
            async with self._database.connection() as connection:
                recorded = await self._accounts.recorded(connection, part)
            if recorded:
                raise SettledElsewhereError(recorded)
            if settled_elsewhere:
                raise StoreUnavailableError("sens.settled was changed by somebody who is no telemetry worker")

    async def keep_partitions_ahead(self, interval_seconds: float = 3600) -> None:
        """Make the partitions of the coming months, now and then again."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await connection.execute(
                        f"SELECT sens.ensure_partitions(now(), now() + interval '{_PARTITIONS_AHEAD}')"
                    )
            except (StoreUnavailableError, RowsRefusedError) as error:
                log.warning("partitions can't be made ahead; they are made when a reading needs them", error=str(error))
            await asyncio.sleep(interval_seconds)

    async def _ensure_partitions(self, rows: Prepared) -> None:
        times = np.concatenate([rows.numbers.measured_at, np.array([row.measured_at for row in rows.texts], np.int64)])
        if not len(times):
            return
        all_months = times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
        earliest = int(all_months.min())
        months = {earliest + month for month in np.flatnonzero(np.bincount(all_months - earliest)).tolist()}
        for month in sorted(months - self._months):
            moment = datetime(1970 + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            async with self._database.connection() as connection:
                await connection.execute("SELECT sens.ensure_partitions($1, $1)", moment)
            self._months.add(month)


async def _copy(connection: Connection, part: Part) -> tuple[NDArray[np.int64], set[int]]:
    """Copy straight into the tables.

    Raises:
        _RowExistsError: A key is there already; the transaction has to be rolled back.
    """
    rows = part.rows
    try:
        if len(rows.numbers.message):
            await copy_to(connection, _NUMBERS, _COLUMNS, copy_bytes(rows.numbers), schema="sens")
        if rows.texts:
            await copy_to(connection, _TEXTS, _COLUMNS, text_copy_bytes(rows.texts), schema="sens")
    except asyncpg.UniqueViolationError as error:
        raise _RowExistsError from error
    except asyncpg.CheckViolationError as error:
        if "no partition of relation" in str(error):
            raise _NoPartitionError(str(error)) from error
        raise
    return _values_per_message(rows, len(part.batch.messages)), set()


async def _merge(connection: Connection, part: Part) -> tuple[NDArray[np.int64], set[int]]:
    """Insert what is not there yet, and compare the rest with what is."""
    rows = part.rows
    new_values = _values_per_message(rows, len(part.batch.messages))
    conflicting = set()
    for table, value_type, data in (
        (_NUMBERS, "float8", copy_bytes(rows.numbers, with_message=True) if len(rows.numbers.message) else None),
        (_TEXTS, "text", text_copy_bytes(rows.texts, with_message=True) if rows.texts else None),
    ):
        if data is None:
            continue
        for message, differs in await _merge_table(connection, table, value_type, data):
            new_values[message] -= 1
            if differs:
                conflicting.add(message)
    return new_values, conflicting


def _suspect(refusal: BaseException | None, rows: Prepared) -> int | None:
    """Return the message of the row that a COPY was at when it was refused, None when the server does not say.

    The server counts a binary COPY's rows as lines, from 1.
    """
    line = _COPY_LINE.search(getattr(refusal, "context", None) or "")
    if line is None:
        return None
    messages = rows.numbers.message.tolist() if line[1] == _NUMBERS else [row.message for row in rows.texts]
    position = int(line[2]) - 1
    return messages[position] if position < len(messages) else None


class _NoPartitionError(Exception):
    """A row has no partition to go to."""


class _RowExistsError(Exception):
    """A row with the key of another one is stored already."""


async def _merge_table(connection: Connection, table: str, value_type: str, data: bytes) -> list[tuple[int, bool]]:
    """Return, for each row that was there already, its message and whether the stored value is another one."""
    staged = f"staged_{table}"
    await connection.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged}"
        f" (device_id int, metric_id int, ts timestamptz, value {value_type}, message int) ON COMMIT DELETE ROWS"
    )
    await copy_to(connection, staged, [*_COLUMNS, "message"], data)
    await connection.execute(
        f"""
        WITH inserted AS (
            INSERT INTO sens.{table} (device_id, metric_id, ts, value)
            SELECT device_id, metric_id, ts, value FROM {staged} ORDER BY device_id, metric_id, ts
            ON CONFLICT DO NOTHING
            RETURNING device_id, metric_id, ts
        )
        DELETE FROM {staged} s USING inserted i
        WHERE s.device_id = i.device_id AND s.metric_id = i.metric_id AND s.ts = i.ts
        """  # noqa: S608 - the table's name is one of two constants
    )
    weeks = await connection.fetch(
        f"SELECT min(ts), max(ts) FROM {staged} GROUP BY date_bin('7 days', ts, 'epoch')"  # noqa: S608 - same
    )
    left: list[tuple[int, bool]] = []
    for week in weeks:
        # The planner knows nothing of the temporary table's size. One look-up by the key for each row is always right, which OFFSET
        # makes it do: a join would read a columnstore chunk from end to end for each row. The week leaves it one chunk or two, which
        # TimescaleDB would else choose for each row among all.
        rows = await connection.fetch(
            f"""
            SELECT s.message, m.value IS DISTINCT FROM s.value
            FROM {staged} s LEFT JOIN LATERAL (
                SELECT value FROM sens.{table} m
                WHERE m.device_id = s.device_id AND m.metric_id = s.metric_id AND m.ts = s.ts AND m.ts BETWEEN $1 AND $2
                OFFSET 0
            ) m ON true
            WHERE s.ts BETWEEN $1 AND $2
            """,  # noqa: S608 - same
            *week,
        )
        left += [(row[0], row[1]) for row in rows]
    return left


def _values_per_message(rows: Prepared, message_count: int) -> NDArray[np.int64]:
    texts = np.array([row.message for row in rows.texts], np.int64)
    return np.bincount(rows.numbers.message, minlength=message_count) + np.bincount(texts, minlength=message_count)
