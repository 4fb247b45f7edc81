"""Keeps the messages of sources that want it, in the transaction that stores their readings: a row for each reading, see migration 0022."""

import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import numpy as np

from sens_common.database import Connection
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.rows import ReadingGroup
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.readings import NoPartitionError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MICROSECONDS: Final = 86_400_000_000
_WEEK_MICROSECONDS: Final = 7 * _DAY_MICROSECONDS
_AHEAD_MICROSECONDS: Final = _DAY_MICROSECONDS
"""A message whose receipt lies further in the future is not kept: its clock is wrong."""
_INSERT: Final = """
    INSERT INTO sens.frames (
        device_id, ts, received_at, stream, sequence, number, source_id, codec, metric_ids, multiple, topic, payload
    )
    SELECT device_id, ts, received_at, stream, sequence, number, source_id, codec, string_to_array(metric_ids, ',')::int[], multiple, topic, payload
    FROM unnest(
        $1::int[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::int[], $7::int[], $8::text[], $9::text[], $10::boolean[],
        $11::text[], $12::bytea[]
    ) AS new (device_id, ts, received_at, stream, sequence, number, source_id, codec, metric_ids, multiple, topic, payload)
    ORDER BY device_id, ts
    ON CONFLICT DO NOTHING
"""


type _Key = tuple[int, int, int]
"""A message's index, a device's id, and the time of a reading of it, microseconds since the epoch."""


class FrameWriter:
    """The table of kept messages."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._weeks: set[int] = set()  # since 1970

    async def ensure_partitions(self, part: BatchPart) -> None:
        """Make the partitions that a part's messages need."""
        for week in sorted({part.batch.messages[index].received_at // _WEEK_MICROSECONDS for index in _kept(part)}):
            if week not in self._weeks:
                starts = _moment(week * _WEEK_MICROSECONDS)
                async with self._database.connection() as connection:
                    await connection.execute(
                        "SELECT sens.ensure_frame_partitions($1, $2)", starts, starts + timedelta(days=7)
                    )
                self._weeks.add(week)

    async def write(self, connection: Connection, part: BatchPart, conflicting: Collection[int]) -> None:
        """Write the messages of a part that are kept and have readings, in the transaction that stores these.

        Args:
            connection: In the transaction.
            part: What it stores.
            conflicting: Indexes of messages of which it stores nothing.

        Raises:
            NoPartitionError: A partition is missing.
        """
        kept = {index for index in _kept(part) if index not in conflicting}
        if not kept:
            return
        metrics: dict[_Key, set[int]] = {}
        for group in part.rows.groups:
            _add_metrics(metrics, group, kept)
        keys = sorted(metrics)
        records = [
            _record(part, key, metrics[key], before, after)
            for before, key, after in zip([None, *keys], keys, [*keys[1:], None], strict=False)
        ]
        if not records:
            return
        try:
            await connection.execute(_INSERT, *(list(column) for column in zip(*records, strict=True)))
        except asyncpg.CheckViolationError as error:
            if "no partition of relation" not in str(error):
                raise
            self._weeks.clear()  # one was dropped
            raise NoPartitionError(str(error)) from error


def _kept(part: BatchPart) -> list[int]:
    """Return the indexes of the part's messages that are kept."""
    kept = part.batch.interpreted.kept
    if not kept:
        return []
    now = time.time_ns() // 1000
    messages = part.batch.messages
    return [
        index
        for index in part.message_indexes.tolist()
        if index in kept
        and now - kept[index].keep_days * _DAY_MICROSECONDS < messages[index].received_at < now + _AHEAD_MICROSECONDS
    ]


def _add_metrics(metrics: dict[_Key, set[int]], group: ReadingGroup, kept: Collection[int]) -> None:
    """Add which metrics the readings of kept messages have values of."""
    chosen = np.flatnonzero(np.isin(group.message_index, np.fromiter(kept, np.int32)))
    ids = np.array(group.metric_set.metric_ids)
    for index in chosen.tolist():
        has_value = np.concatenate([~np.isnan(group.numbers[index]), group.texts[index] != None])  # noqa: E711 - of each element
        key = int(group.message_index[index]), int(group.device_id[index]), int(group.measured_at[index])
        metrics.setdefault(key, set()).update(ids[has_value].tolist())


def _record(
    part: BatchPart, key: _Key, metric_ids: Collection[int], before: _Key | None, after: _Key | None
) -> tuple[object, ...]:
    """Return the values of a row; the first one of a message has its topic and payload."""
    message_index, device_id, measured_at = key
    message, kept = part.batch.messages[message_index], part.batch.interpreted.kept[message_index]
    is_first = before is None or before[0] != message_index
    is_last = after is None or after[0] != message_index
    return (
        device_id,
        _moment(measured_at),
        _moment(message.received_at),
        *part.batch.origin(message_index),
        kept.source_id,
        kept.codecs.get(device_id),
        ",".join(map(str, sorted(metric_ids))),
        not (is_first and is_last),
        message.topic if is_first else None,
        message.payload if is_first else None,
    )


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
