"""Readings that come when their hour is in the rollups already: the transaction that stores them notes the hours."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sens_common.database import Connection
from sens_telemetry_worker.rows import ReadingGroup

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_HOUR_MICROSECONDS: Final = 3_600_000_000
_NOTE: Final = "SELECT sens.note_hours($1, $2, $3)"
_HOUR_BITS: Final = 32


async def note_late(connection: Connection, groups: Sequence[ReadingGroup], watermark: datetime) -> None:
    """Note the hours before the watermark in which readings are written; see the schema's migration 0014.

    Args:
        connection: In the transaction that writes them, behind the gate that keeps the watermark where it is.
        groups: What is written.
        watermark: A whole hour.
    """
    devices, first, past = late_hours(groups, (watermark - _EPOCH) // _HOUR)
    if len(devices):
        await connection.execute(_NOTE, devices.tolist(), first.tolist(), past.tolist())


class HoursOfDevices(NamedTuple):
    """Stretches of hours of devices; each column has another stretch's, int64.

    Attributes:
        devices: Ids.
        first: The first hour, since 1970.
        past: The hour after the last one.
    """

    devices: NDArray[np.int64]
    first: NDArray[np.int64]
    past: NDArray[np.int64]


def late_hours(groups: Sequence[ReadingGroup], watermark: int) -> HoursOfDevices:
    """Return the hours before a watermark in which there are readings; consecutive hours of a device are one stretch."""
    late = [np.empty(0, np.int64)]
    for group in groups:
        is_late = group.measured_at < watermark * _HOUR_MICROSECONDS
        if is_late.any():
            hours = group.measured_at[is_late] // _HOUR_MICROSECONDS
            late.append((group.device_id[is_late].astype(np.int64) << _HOUR_BITS) + hours)
    keys = np.unique(np.concatenate(late))
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = keys[1:] != keys[:-1] + 1
    first, last = keys[begins], keys[np.roll(begins, -1)]
    devices = (first + (1 << _HOUR_BITS - 1)) >> _HOUR_BITS
    return HoursOfDevices(devices, first - (devices << _HOUR_BITS), last + 1 - (devices << _HOUR_BITS))
