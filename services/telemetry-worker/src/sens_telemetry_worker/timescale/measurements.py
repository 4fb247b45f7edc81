"""The tables of measurements: how rows get into them, and which row a refusal names."""

import re
from typing import Final, NamedTuple

import asyncpg
import numpy as np
from numpy.typing import NDArray

from sens_common.database import Connection
from sens_telemetry_worker.rows import PreparedRows
from sens_telemetry_worker.timescale.binary_copy import copy_to
from sens_telemetry_worker.timescale.measurement_copy import numeric_copy_bytes, text_copy_bytes

_COLUMNS: Final = ["device_id", "metric_id", "ts", "value"]
_NUMBERS: Final = "measurements"
_TEXTS: Final = "text_measurements"
_COPY_LINE: Final = re.compile(rf"^COPY ({_NUMBERS}|{_TEXTS}), line ([0-9]+)", re.MULTILINE)


class NoPartitionError(Exception):
    """There is no partition for a row."""


class RowExistsError(Exception):
    """A row with the key of another one is stored already; the transaction has to be rolled back."""


class WrittenRows(NamedTuple):
    """What became of rows.

    Attributes:
        new_values: int64, for each message of the batch the number of its values that were not stored before.
        conflicting: Messages with a value other than the stored one.
    """

    new_values: NDArray[np.int64]
    conflicting: set[int]


async def copy(connection: Connection, rows: PreparedRows, message_count: int) -> WrittenRows:
    """Copy straight into the tables.

    Raises:
        RowExistsError: A key is there already.
        NoPartitionError: A partition is missing.
    """
    try:
        if len(rows.numeric_rows.message_index):
            await copy_to(connection, _NUMBERS, _COLUMNS, numeric_copy_bytes(rows.numeric_rows), schema="sens")
        if rows.text_rows:
            await copy_to(connection, _TEXTS, _COLUMNS, text_copy_bytes(rows.text_rows), schema="sens")
    except asyncpg.UniqueViolationError as error:
        raise RowExistsError from error
    except asyncpg.CheckViolationError as error:
        if "no partition of relation" in str(error):
            raise NoPartitionError(str(error)) from error
        raise
    return WrittenRows(rows.values_per_message(message_count), set())


async def merge(connection: Connection, rows: PreparedRows, message_count: int) -> WrittenRows:
    """Insert what is not there yet, and compare the rest with what is."""
    existing: list[tuple[int, bool]] = []
    if len(rows.numeric_rows.message_index):
        data = numeric_copy_bytes(rows.numeric_rows, with_message=True)
        existing += await _merge_table(connection, _NUMBERS, "float8", data)
    if rows.text_rows:
        data = text_copy_bytes(rows.text_rows, with_message=True)
        existing += await _merge_table(connection, _TEXTS, "text", data)
    new_values = rows.values_per_message(message_count)
    for message_index, _ in existing:
        new_values[message_index] -= 1
    return WrittenRows(new_values, {message_index for message_index, differs in existing if differs})


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


def suspect(refusal: BaseException | None, rows: PreparedRows) -> int | None:
    """Return the message of the row that a COPY was at when it was refused, None when the server does not say.

    The server counts a binary COPY's rows as lines, from 1.
    """
    line = _COPY_LINE.search(getattr(refusal, "context", None) or "")
    if line is None:
        return None
    indexes = (
        rows.numeric_rows.message_index.tolist()
        if line[1] == _NUMBERS
        else [row.message_index for row in rows.text_rows]
    )
    position = int(line[2]) - 1
    return indexes[position] if position < len(indexes) else None
