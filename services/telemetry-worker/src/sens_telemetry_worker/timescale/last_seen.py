"""When the platform last received a message of each device, up to a minute old."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sens_common.database import Connection
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.topic_resolving import MAX_CACHED_TOPICS

_INTERVAL_MICROSECONDS: Final = 60_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
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
    newest: dict[int, int] = {}
    devices, messages = part.batch.interpreted.devices, part.batch.messages
    for index in part.message_indexes.tolist():
        device = devices[index]
        if device is not None:
            received_at = messages[index].received_at
            if received_at > newest.get(device.id, -_LATEST):
                newest[device.id] = received_at
    return newest
