"""Rows on their way to the database: as they were decoded, and prepared, that is sorted by the table's key with one row a key."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class NumericColumns(NamedTuple):
    """Rows of numbers and booleans; all columns have the same length n.

    Attributes:
        message_index: int32, index of the message a row came from.
        device_id: int32.
        metric_id: int32.
        measured_at: int64, microseconds since the Unix epoch.
        value: float64.
    """

    message_index: NDArray[np.int32]
    device_id: NDArray[np.int32]
    metric_id: NDArray[np.int32]
    measured_at: NDArray[np.int64]
    value: NDArray[np.float64]

    def selected(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> "NumericColumns":
        """Return the rows of a mask (n booleans), or those at indices, in their order."""
        return NumericColumns(
            self.message_index[index],
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
    message_index: int
    value: str


class Rows(NamedTuple):
    """The rows of some messages, as they were decoded."""

    numeric_rows: NumericColumns
    text_rows: list[TextRow]

    def of_messages(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Return the rows of chosen messages: a boolean for each message of the batch."""
        return Rows(
            self.numeric_rows.selected(chosen[self.numeric_rows.message_index]),
            [row for row in self.text_rows if chosen[row.message_index]],
        )

    def none(self) -> "Rows":
        """Return no rows."""
        return Rows(self.numeric_rows.selected(np.zeros(0, np.intp)), [])


class PreparedRows(NamedTuple):
    """Rows with one row per key, sorted by it, and what became of the others.

    Attributes:
        numeric_rows: Sorted, keys are unique.
        text_rows: Likewise.
        conflicting: Messages with a value other than an earlier message's of the same batch for the same key.
    """

    numeric_rows: NumericColumns
    text_rows: list[TextRow]
    conflicting: set[int]

    def device_ids(self) -> list[int]:
        """Return the ids of all devices."""
        return list({*np.unique(self.numeric_rows.device_id).tolist(), *(row.device_id for row in self.text_rows)})

    def metric_ids(self) -> list[int]:
        """Return the ids of all metrics."""
        return list({*np.unique(self.numeric_rows.metric_id).tolist(), *(row.metric_id for row in self.text_rows)})

    def measured_at(self) -> NDArray[np.int64]:
        """Return the time of each row, microseconds since the Unix epoch."""
        texts = np.array([row.measured_at for row in self.text_rows], np.int64)
        return np.concatenate([self.numeric_rows.measured_at, texts])

    def values_per_message(self, message_count: int) -> NDArray[np.int64]:
        """Return the number of values of each message of the batch, n of int64."""
        texts = np.array([row.message_index for row in self.text_rows], np.int64)
        return np.bincount(self.numeric_rows.message_index, minlength=message_count) + np.bincount(
            texts, minlength=message_count
        )


def numeric_columns(
    message_index: Sequence[int],
    device_id: Sequence[int],
    metric_id: Sequence[int],
    measured_at: Sequence[int],
    value: Sequence[float],
) -> NumericColumns:
    """Return the columns as arrays."""
    return NumericColumns(
        np.array(message_index, np.int32),
        np.array(device_id, np.int32),
        np.array(metric_id, np.int32),
        np.array(measured_at, np.int64),
        np.array(value, np.float64),
    )


def joined(parts: Sequence[NumericColumns]) -> NumericColumns:
    """Return the rows of all parts, of which there is at least one."""
    return NumericColumns(*map(np.concatenate, zip(*parts, strict=True)))


def prepare(rows: Rows) -> PreparedRows:
    """Sort by the key and keep the first row of each; the order of messages decides which one is first."""
    conflicting: set[int] = set()
    numeric = rows.numeric_rows
    order = np.lexsort((numeric.message_index, numeric.measured_at, numeric.metric_id, numeric.device_id))
    numeric = numeric.selected(order)
    if len(order) > 1:
        repeated = np.zeros(len(order), np.bool_)
        repeated[1:] = (
            (numeric.device_id[1:] == numeric.device_id[:-1])
            & (numeric.metric_id[1:] == numeric.metric_id[:-1])
            & (numeric.measured_at[1:] == numeric.measured_at[:-1])
        )
        if repeated.any():
            first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(order))))
            differs = repeated & (numeric.value != numeric.value[first])
            conflicting.update(numeric.message_index[differs].tolist())
            numeric = numeric.selected(~repeated)
    unique: list[TextRow] = []
    for row in sorted(rows.text_rows):
        if unique and row[:3] == unique[-1][:3]:
            if row.value != unique[-1].value:
                conflicting.add(row.message_index)
        else:
            unique.append(row)
    return PreparedRows(numeric, unique, conflicting)
