"""The table of readings: how rows get into it, how stored ones are changed, and which row a refusal names."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Row by row, with constants: a join would read a columnstore chunk from end to end.
_UPDATE: Final = """
    UPDATE sens.readings SET metric_set_id = $3, numbers = $4, texts = $5 WHERE device_id = $1 AND ts = $2 RETURNING device_id
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
    if not groups:
        return
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
    rows = [row for group in groups for row in _update_arguments(group, set_ids[group.metric_set])]
    if not rows:
        return
    changed = await connection.fetchmany(_UPDATE, sorted(rows, key=lambda row: row[:2]))
    if len(changed) != len(rows):
        raise ReadingExistsError


def _update_arguments(
    group: ReadingGroup, set_id: int
) -> list[tuple[int, datetime, int, list[float | None] | None, list[str | None] | None]]:
    return [
        (
            device_id,
            _EPOCH + timedelta(microseconds=measured_at),
            set_id,
            [None if value != value else value for value in numbers] if numbers else None,  # noqa: PLR0124 - NaN is no value
            texts or None,
        )
        for device_id, measured_at, numbers, texts in zip(
            group.device_id.tolist(),
            group.measured_at.tolist(),
            group.numbers.tolist(),
            group.texts.tolist(),
            strict=True,
        )
    ]


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
