"""The table of readings: how rows get into it, how stored ones are changed, and which row a refusal names."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import numpy as np

from sens_common.database import Connection
from sens_common.database_errors import DatabaseFault, fault_of
from sens_telemetry_worker.rows import ReadingGroup
from sens_telemetry_worker.storing import RowsRefusedError
from sens_telemetry_worker.tenants import MetricSet
from sens_telemetry_worker.timescale.binary_copy import copy_to
from sens_telemetry_worker.timescale.database import words_of_refusal
from sens_telemetry_worker.timescale.reading_copy import COLUMNS, copy_bytes, key_order

_TABLE: Final = "readings"
_COPY_LINE: Final = re.compile(rf"^COPY {_TABLE}, line ([0-9]+)", re.MULTILINE)
_STAGE: Final = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_readings ON COMMIT DELETE ROWS AS
    SELECT {", ".join(COLUMNS)} FROM sens.readings WITH NO DATA
"""  # noqa: S608 - our own names
# The columnstore is entered with few partitions or chunks at once.
_WEEKS: Final = """
    SELECT first, last, sens.readings_in_columnstore(first, last) AS in_columnstore
    FROM (SELECT min(ts) AS first, max(ts) AS last FROM staged_readings GROUP BY date_bin('7 days', ts, 'epoch')) weeks
"""
# One look-up by the key for each row, whatever the planner thinks of the temporary table, of which it knows nothing.
_BY_KEY: Final = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
_UPDATE: Final = """
    UPDATE sens.readings r SET metric_set_id = s.metric_set_id, numbers = s.numbers, texts = s.texts
    FROM staged_readings s
    WHERE r.device_id = s.device_id AND r.ts = s.ts AND r.ts BETWEEN $1 AND $2 AND s.ts BETWEEN $1 AND $2
"""
# In the columnstore a join would decompress all that lies in the week, and where the planner knows no constants it may do the same.
_CONSTANTS: Final = "SET LOCAL plan_cache_mode = force_custom_plan"
_STAGED: Final = f"SELECT {', '.join(COLUMNS)} FROM staged_readings WHERE ts BETWEEN $1 AND $2 ORDER BY device_id, ts"  # noqa: S608 - same
_UPDATE_ROW: Final = """
    UPDATE sens.readings SET metric_set_id = $2, numbers = $4, texts = $5 WHERE device_id = $1 AND ts = $3 RETURNING 1
"""


class NoPartitionError(Exception):
    """There is no partition for a row."""


class ReadingExistsError(Exception):
    """A reading with the key of another one was stored meanwhile, or one that was there is not; the transaction has to be rolled back."""


async def copy(connection: Connection, groups: Sequence[ReadingGroup], set_ids: Mapping[MetricSet, int]) -> None:
    """Copy rows straight into the table.

    Raises:
        ReadingExistsError: A key is there already.
        NoPartitionError: A partition is missing.
        RowsRefusedError: The server refuses a row.
    """
    try:
        await copy_to(connection, _TABLE, COLUMNS, copy_bytes(groups, set_ids), schema="sens")
    except asyncpg.UniqueViolationError as error:
        raise ReadingExistsError from error
    except asyncpg.PostgresError as error:
        if isinstance(error, asyncpg.CheckViolationError) and "no partition of relation" in str(error):
            raise NoPartitionError(str(error)) from error
        if fault_of(error) is DatabaseFault.REFUSED:
            raise RowsRefusedError(words_of_refusal(error), _suspect(error, groups)) from error
        raise


async def update(connection: Connection, groups: Sequence[ReadingGroup], set_ids: Mapping[MetricSet, int]) -> None:
    """Put rows in the place of stored ones; their devices are locked.

    Raises:
        ReadingExistsError: One of them is not there any more.
    """
    await connection.execute(_STAGE)
    await copy_to(connection, "staged_readings", COLUMNS, copy_bytes(groups, set_ids))
    await connection.execute(_BY_KEY)
    changed = 0
    for first, last, in_columnstore in await connection.fetch(_WEEKS):
        if in_columnstore:
            await connection.execute(_CONSTANTS)
            changed += len(await connection.fetchmany(_UPDATE_ROW, await connection.fetch(_STAGED, first, last)))
        else:
            changed += int((await connection.execute(_UPDATE, first, last)).removeprefix("UPDATE "))
    if changed != sum(group.size for group in groups):
        raise ReadingExistsError


def _suspect(refusal: asyncpg.PostgresError, groups: Sequence[ReadingGroup]) -> int | None:
    """Return the first message of the row that a COPY was at when it was refused, None when the server does not say.

    The server counts a binary COPY's rows as lines, from 1.
    """
    line = _COPY_LINE.search(getattr(refusal, "context", None) or "")
    if line is None:
        return None
    messages = np.concatenate([group.message_index for group in groups])[key_order(groups)].tolist()
    position = int(line[1]) - 1
    return messages[position] if position < len(messages) else None
