"""Rows as the bytes of a binary COPY of ``(device_id, metric_id, ts, value)``, with the message's index as a fifth column if asked for."""

import struct
from typing import Final

import numpy as np

from sens_telemetry_worker.rows import NumericColumns, TextRow
from sens_telemetry_worker.timescale.binary_copy import POSTGRES_EPOCH_MICROSECONDS, SIGNATURE, TRAILER

_ROW: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("device_bytes", ">i4"),
        ("device_id", ">i4"),
        ("metric_bytes", ">i4"),
        ("metric_id", ">i4"),
        ("ts_bytes", ">i4"),
        ("ts", ">i8"),
        ("value_bytes", ">i4"),
        ("value", ">f8"),
    ]
)
_STAGED_ROW: Final = np.dtype([*_ROW.descr, ("message_bytes", ">i4"), ("message", ">i4")])
_TEXT_ROW: Final = struct.Struct(">hiiiiiqi")  # as above, up to the value's length
_TEXT_MESSAGE: Final = struct.Struct(">ii")


def numeric_copy_bytes(rows: NumericColumns, *, with_message: bool = False) -> bytes:
    """Return numeric rows as a binary COPY."""
    table = np.empty(len(rows.device_id), _STAGED_ROW if with_message else _ROW)
    table["fields"] = 5 if with_message else 4
    table["device_bytes"] = table["metric_bytes"] = 4
    table["ts_bytes"] = table["value_bytes"] = 8
    table["device_id"] = rows.device_id
    table["metric_id"] = rows.metric_id
    table["ts"] = rows.measured_at - POSTGRES_EPOCH_MICROSECONDS
    table["value"] = rows.value
    if with_message:
        table["message_bytes"] = 4
        table["message"] = rows.message_index
    return SIGNATURE + table.tobytes() + TRAILER


def text_copy_bytes(rows: list[TextRow], *, with_message: bool = False) -> bytes:
    """Return rows of text as a binary COPY."""
    parts = [SIGNATURE]
    fields = 5 if with_message else 4
    for device_id, metric_id, measured_at, message_index, text in rows:
        value = text.encode()
        at = measured_at - POSTGRES_EPOCH_MICROSECONDS
        parts += (_TEXT_ROW.pack(fields, 4, device_id, 4, metric_id, 8, at, len(value)), value)
        if with_message:
            parts.append(_TEXT_MESSAGE.pack(4, message_index))
    parts.append(TRAILER)
    return b"".join(parts)
