"""What the worker writes: measurements and counts, as `pipeline.Store`."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import asyncpg
import numpy as np
import structlog
from numpy.typing import NDArray

from sens_telemetry_worker import metrics
from sens_telemetry_worker.pipeline import RowsRefusedError, StoreUnavailableError, Written
from sens_telemetry_worker.rows import Prepared, copy_bytes, text_copy_bytes
from sens_telemetry_worker.timescale.database import Connection, Database

log = structlog.get_logger()

_COLUMNS: Final = ["device_id", "metric_id", "ts", "value"]
_NUMBERS: Final = "measurements"
_TEXTS: Final = "text_measurements"
_COPY_LINE: Final = re.compile(rf"^COPY ({_NUMBERS}|{_TEXTS}), line ([0-9]+)", re.MULTILINE)
_PARTITIONS_AHEAD: Final = "2 months"
_COUNT: Final = """
    INSERT INTO sens.message_counts AS c (tenant_id, day, backend, stored, duplicate)
    SELECT tenant_id, (now() AT TIME ZONE 'UTC')::date, pg_backend_pid(), stored, duplicate
    FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS batch (tenant_id, stored, duplicate)
    ON CONFLICT (tenant_id, day, backend)
    DO UPDATE SET stored = c.stored + excluded.stored, duplicate = c.duplicate + excluded.duplicate
"""


class TimescaleStore:
    """The measurements, as `pipeline.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._months: set[int] = set()  # months since 1970-01 that are known to have their partitions

    async def write(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written:
        """See `pipeline.Store.write`."""
        await self._ensure_partitions(rows)
        try:
            written = await self._copy(rows, tenants)
        except _NoPartitionError as error:
            # Somebody has dropped one that was known.
            self._months.clear()
            raise StoreUnavailableError(str(error)) from error
        except RowsRefusedError as error:
            raise RowsRefusedError(str(error), _suspect(error.__cause__, rows)) from error
        if written is not None:
            metrics.BATCHES.labels("copy").inc()
            return written
        metrics.BATCHES.labels("merge").inc()
        return await self._merge(rows, tenants)

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

    async def _copy(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written | None:
        """Copy straight into the tables; None, and nothing stored, when a key is there already."""
        written = Written(_values_per_message(rows, len(tenants)), set())
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    if len(rows.numbers.message):
                        await _copy_to(connection, _NUMBERS, _COLUMNS, copy_bytes(rows.numbers), schema="sens")
                    if rows.texts:
                        await _copy_to(connection, _TEXTS, _COLUMNS, text_copy_bytes(rows.texts), schema="sens")
                    await _count(connection, rows, tenants, written)
            except asyncpg.UniqueViolationError:
                return None
            except asyncpg.CheckViolationError as error:
                if "no partition of relation" in str(error):
                    raise _NoPartitionError(str(error)) from error
                raise
        return written

    async def _merge(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written:
        """Insert what is not there yet, and compare the rest with what is."""
        written = Written(_values_per_message(rows, len(tenants)), set())
        async with self._database.connection() as connection, connection.transaction():
            for table, value_type, data in (
                (
                    _NUMBERS,
                    "float8",
                    copy_bytes(rows.numbers, with_message=True) if len(rows.numbers.message) else None,
                ),
                (_TEXTS, "text", text_copy_bytes(rows.texts, with_message=True) if rows.texts else None),
            ):
                if data is None:
                    continue
                for message, differs in await _merge_table(connection, table, value_type, data):
                    written.new_values[message] -= 1
                    if differs:
                        written.conflicting.add(message)
            await _count(connection, rows, tenants, written)
        return written


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


async def _copy_to(
    connection: Connection, table: str, columns: list[str], data: bytes, *, schema: str | None = None
) -> None:
    await connection.copy_to_table(table, source=_whole(data), columns=columns, schema_name=schema, format="binary")


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    """Give the driver everything at once; a file it would read through a thread."""
    yield data


async def _count(connection: Connection, rows: Prepared, tenants: NDArray[np.int32], written: Written) -> None:
    """Add the messages that are stored, and those that were stored before, to their tenants' counts."""
    settled = tenants.copy()
    settled[[*rows.conflicting, *written.conflicting]] = 0  # they become dead letters
    ids = sorted(set(settled.tolist()) - {0})
    new = written.new_values > 0
    counts = [(np.count_nonzero(new & (settled == id_)), np.count_nonzero(~new & (settled == id_))) for id_ in ids]
    if ids:
        await connection.execute(_COUNT, ids, *zip(*counts, strict=True))


async def _merge_table(connection: Connection, table: str, value_type: str, data: bytes) -> list[tuple[int, bool]]:
    """Return, for each row that was there already, its message and whether the stored value is another one."""
    staged = f"staged_{table}"
    await connection.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged}"
        f" (device_id int, metric_id int, ts timestamptz, value {value_type}, message int) ON COMMIT DELETE ROWS"
    )
    await _copy_to(connection, staged, [*_COLUMNS, "message"], data)
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
