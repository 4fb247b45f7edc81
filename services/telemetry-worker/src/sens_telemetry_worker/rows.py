"""Rows on their way to the database: columns, sorted by the table's key, as the bytes of a binary COPY.

PostgreSQL documentation, "COPY", section "Binary Format": a signature, then for each row the number of fields and for each field
its length in bytes and its value, big-endian, then -1. A timestamptz is the number of microseconds since 2000-01-01T00:00:00Z.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

POSTGRES_EPOCH_MICROSECONDS: Final = 946_684_800_000_000

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
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


class NumberRows(NamedTuple):
    """Rows of numbers and booleans; all columns have the same length n.

    Attributes:
        message: int32, index of the message a row came from.
        device_id: int32.
        metric_id: int32.
        measured_at: int64, microseconds since the Unix epoch.
        value: float64.
    """

    message: NDArray[np.int32]
    device_id: NDArray[np.int32]
    metric_id: NDArray[np.int32]
    measured_at: NDArray[np.int64]
    value: NDArray[np.float64]

    def taken(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> "NumberRows":
        """Return the rows of a mask (n booleans), or those at indices, in their order."""
        return NumberRows(
            self.message[index],
            self.device_id[index],
            self.metric_id[index],
            self.measured_at[index],
            self.value[index],
        )


class TextRow(NamedTuple):
    """One row of text; sorts by the table's key, then by message."""

    device_id: int
    metric_id: int
    measured_at: int
    message: int
    value: str


class Prepared(NamedTuple):
    """Rows with one row per key, sorted by it, and what became of the others.

    Attributes:
        numbers: Sorted, keys are unique.
        texts: Likewise.
        conflicting: Messages with a value other than an earlier message's of the same batch for the same key.
    """

    numbers: NumberRows
    texts: list[TextRow]
    conflicting: set[int]


def number_rows(
    message: Sequence[int],
    device_id: Sequence[int],
    metric_id: Sequence[int],
    measured_at: Sequence[int],
    value: Sequence[float],
) -> NumberRows:
    """Return the columns as arrays."""
    return NumberRows(
        np.array(message, np.int32),
        np.array(device_id, np.int32),
        np.array(metric_id, np.int32),
        np.array(measured_at, np.int64),
        np.array(value, np.float64),
    )


def joined(parts: Sequence[NumberRows]) -> NumberRows:
    """Return the rows of all parts, of which there is at least one."""
    return NumberRows(*map(np.concatenate, zip(*parts, strict=True)))


def prepare(numbers: NumberRows, texts: list[TextRow]) -> Prepared:
    """Sort by the key and keep the first row of each; the order of messages decides which one is first."""
    conflicting: set[int] = set()
    order = np.lexsort((numbers.message, numbers.measured_at, numbers.metric_id, numbers.device_id))
    numbers = numbers.taken(order)
    if len(order) > 1:
        repeated = np.zeros(len(order), np.bool_)
        repeated[1:] = (
            (numbers.device_id[1:] == numbers.device_id[:-1])
            & (numbers.metric_id[1:] == numbers.metric_id[:-1])
            & (numbers.measured_at[1:] == numbers.measured_at[:-1])
        )
        if repeated.any():
            first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(order))))
            differs = repeated & (numbers.value != numbers.value[first])
            conflicting.update(numbers.message[differs].tolist())
            numbers = numbers.taken(~repeated)
    unique: list[TextRow] = []
    for row in sorted(texts):
        if unique and row[:3] == unique[-1][:3]:
            if row.value != unique[-1].value:
                conflicting.add(row.message)
        else:
            unique.append(row)
    return Prepared(numbers, unique, conflicting)


def copy_bytes(rows: NumberRows, *, with_message: bool = False) -> bytes:
    """Return the rows as a binary COPY of ``(device_id, metric_id, ts, value)``, with ``message`` as a fifth column if asked for."""
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
        table["message"] = rows.message
    return SIGNATURE + table.tobytes() + TRAILER


def text_copy_bytes(rows: list[TextRow], *, with_message: bool = False) -> bytes:
    """Return rows of text as a binary COPY, in the same columns as `copy_bytes`."""
    parts = [SIGNATURE]
    fields = 5 if with_message else 4
    for device_id, metric_id, measured_at, message, text in rows:
        value = text.encode()
        at = measured_at - POSTGRES_EPOCH_MICROSECONDS
        parts += (_TEXT_ROW.pack(fields, 4, device_id, 4, metric_id, 8, at, len(value)), value)
        if with_message:
            parts.append(_TEXT_MESSAGE.pack(4, message))
    parts.append(TRAILER)
    return b"".join(parts)
