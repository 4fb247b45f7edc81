"""Readings that come when their hour is in the rollups already: the transaction that stores them notes the hours."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sens_common.database import Connection
from sens_telemetry_worker.rows import ReadingGroup

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_HOUR_MICROSECONDS: Final = 3_600_000_000
_NOTE: Final = "SELECT sens.note_changes($1, $2, $3)"


async def note_late(connection: Connection, groups: Sequence[ReadingGroup], watermark: datetime) -> None:
    """Note the hours before the watermark in which readings are written; see the schema's migration 0014.

    Args:
        connection: In the transaction that writes them, behind the gate that keeps the watermark where it is.
        groups: What is written.
        watermark: A whole hour.
    """
    late = late_hours(groups, (watermark - _EPOCH) // _HOUR)
    if len(late):
        devices, first, past = late.T.tolist()
        await connection.execute(
            _NOTE, devices, [_EPOCH + hour * _HOUR for hour in first], [_EPOCH + hour * _HOUR for hour in past]
        )


def late_hours(groups: Sequence[ReadingGroup], watermark: int) -> NDArray[np.int64]:
    """Return stretches of hours of devices, n rows of device, first hour and the hour after the last one; hours are those since 1970.

    Consecutive hours of a device are one stretch.
    """
    late = [np.empty((0, 2), np.int64)]
    for group in groups:
        is_late = group.measured_at < watermark * _HOUR_MICROSECONDS
        if is_late.any():
            late.append(np.column_stack((group.device_id[is_late], group.measured_at[is_late] // _HOUR_MICROSECONDS)))
    pairs = np.unique(np.concatenate(late), axis=0)
    begins = np.ones(len(pairs), np.bool_)
    begins[1:] = (pairs[1:, 0] != pairs[:-1, 0]) | (pairs[1:, 1] != pairs[:-1, 1] + 1)
    ends = np.roll(begins, -1)
    return np.column_stack((pairs[begins], pairs[ends, 1] + 1))
