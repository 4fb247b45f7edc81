"""When the platform last received a message of each device, up to a minute old."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final

import numpy as np

from sens_common.database import Connection
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.topic_resolving import MAX_CACHED_TOPICS

_INTERVAL_MICROSECONDS: Final = 60_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_received_at: Final = attrgetter("received_at")
_LATEST: Final = 253_402_300_799_999_999  # the year 9999, with which dates of other programs end
# Who locks a device writes the same, or merges; it is not waited for, so that no two transactions wait for each other.
_UPDATE: Final = """
    WITH due AS (
        SELECT * FROM unnest($1::int[], $2::timestamptz[]) AS each (id, at)
    ), locked AS (
        SELECT d.id, due.at FROM due JOIN sens.devices d USING (id)
        WHERE d.last_seen IS NULL OR d.last_seen <= due.at - interval '1 minute'
        ORDER BY d.id FOR NO KEY UPDATE OF d SKIP LOCKED
    ), updated AS (
        UPDATE sens.devices d SET last_seen = locked.at FROM locked WHERE d.id = locked.id RETURNING d.id
    )
    SELECT id FROM updated
    UNION ALL
    SELECT d.id FROM due JOIN sens.devices d USING (id) WHERE d.last_seen > due.at - interval '1 minute'
"""


class LastSeen:
    """What is remembered of the devices' receipt times."""

    def __init__(self) -> None:
        self._received_at: dict[int, int] = {}

    async def write(self, connection: Connection, part: BatchPart) -> dict[int, int]:
        """Write the newest receipt times of a part's devices where the written ones are older than a minute.

        Returns:
            What to remember when the transaction is committed.
        """
        due = {
            device_id: received_at
            for device_id, received_at in _newest(part).items()
            if received_at - self._received_at.get(device_id, -_LATEST) >= _INTERVAL_MICROSECONDS
        }
        if not due:
            return {}
        moments = [_EPOCH + timedelta(microseconds=min(max(at, 0), _LATEST)) for at in due.values()]
        written = await connection.fetch(_UPDATE, list(due), moments)
        return {row["id"]: due[row["id"]] for row in written}

    def remember(self, written: Mapping[int, int]) -> None:
        """Remember what a committed transaction has written."""
        if len(self._received_at) + len(written) > MAX_CACHED_TOPICS:
            self._received_at.clear()
        self._received_at |= written


def _newest(part: BatchPart) -> dict[int, int]:
    """Return the newest receipt time of each device."""
    devices, messages, groups = part.batch.interpreted.devices, part.batch.messages, part.rows.groups
    newest: dict[int, int] = {}
    if groups:
        of_rows = np.concatenate([group.message_index for group in groups]).tolist()
        received_at = np.fromiter(map(_received_at, map(messages.__getitem__, of_rows)), np.int64, len(of_rows))
        device_ids = np.concatenate([group.device_id for group in groups])
        order = np.lexsort((received_at, device_ids))
        # Of equal keys a dictionary keeps the last value.
        newest = dict(zip(device_ids[order].tolist(), received_at[order].tolist(), strict=True))
    for rejection in part.rejections:  # the receipt time of such a message may be any number
        device = devices[rejection.message_index]
        if device is not None:
            received = messages[rejection.message_index].received_at
            newest[device.id] = max(received, newest.get(device.id, -_LATEST))
    return newest
