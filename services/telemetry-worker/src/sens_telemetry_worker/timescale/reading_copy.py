"""Readings as the bytes of a binary COPY of ``(device_id, metric_set_id, ts, numbers, texts)``.

PostgreSQL's source, ``array_send``: an array is the number of its dimensions, whether it has NULLs, the id of its elements' type; for each
dimension its length and lower bound; then each element's length and value, where NULL is the length -1 alone.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sens_telemetry_worker.rows import ReadingGroup
from sens_telemetry_worker.tenants import MetricSet
from sens_telemetry_worker.timescale.binary_copy import POSTGRES_EPOCH_MICROSECONDS, SIGNATURE, TRAILER

COLUMNS: Final = ("device_id", "metric_set_id", "ts", "numbers", "texts")
_FLOAT8: Final = 701
_TEXT: Final = 25
_NULL: Final = -1
_ARRAY_HEADER_BYTES: Final = 20
_TEXTS_HEADER: Final = struct.Struct(">iiiiii")  # the field's length, then the array's header
_LENGTH: Final = struct.Struct(">i")


def copy_bytes(groups: Sequence[ReadingGroup], set_ids: Mapping[MetricSet, int]) -> bytes:
    """Return readings as a binary COPY in the order of device and time; each group is sorted by these."""
    if len(groups) == 1:
        rows = _rows(groups[0], set_ids[groups[0].metric_set])
        return b"".join((SIGNATURE, rows if isinstance(rows, bytes) else b"".join(rows), TRAILER))
    sliced = [row for group in groups for row in _sliced(group, set_ids[group.metric_set])]
    return b"".join((SIGNATURE, *(sliced[index] for index in key_order(groups).tolist()), TRAILER))


def key_order(groups: Sequence[ReadingGroup]) -> NDArray[np.intp]:
    """Return the order of device and time of the readings of all groups, one group after the other."""
    times = np.concatenate([group.measured_at for group in groups])
    return np.lexsort((times, np.concatenate([group.device_id for group in groups])))


@lru_cache(maxsize=256)
def _row_type(width: int, *, has_texts: bool) -> "np.dtype[np.void]":
    """Return the type of a row with so many numbers; where it has texts, they follow."""
    fields: list[tuple[object, ...]] = [
        ("fields", ">i2"),
        ("device_bytes", ">i4"),
        ("device_id", ">i4"),
        ("set_bytes", ">i4"),
        ("set_id", ">i4"),
        ("ts_bytes", ">i4"),
        ("ts", ">i8"),
        ("numbers_bytes", ">i4"),
    ]
    if width:
        fields += [(name, ">i4") for name in ("dimensions", "has_null", "element_type", "length", "lower_bound")]
        fields.append(("elements", [("bytes", ">i4"), ("value", ">f8")], (width,)))
    if not has_texts:
        fields.append(("texts_bytes", ">i4"))
    return np.dtype(fields)


def _table(group: ReadingGroup, set_id: int) -> NDArray[np.void]:
    """Return the readings as rows of equal size, as if each of their numbers had a value."""
    width = len(group.metric_set.number_ids)
    table = np.empty(group.size, _row_type(width, has_texts=bool(group.metric_set.text_ids)))
    table["fields"] = len(COLUMNS)
    table["device_bytes"] = table["set_bytes"] = 4
    table["ts_bytes"] = 8
    table["device_id"] = group.device_id
    table["set_id"] = set_id
    table["ts"] = group.measured_at - POSTGRES_EPOCH_MICROSECONDS
    table["numbers_bytes"] = _ARRAY_HEADER_BYTES + 12 * width if width else _NULL
    if width:
        table["dimensions"] = table["lower_bound"] = 1
        table["has_null"] = 0
        table["element_type"] = _FLOAT8
        table["length"] = width
        table["elements"]["bytes"] = 8
        table["elements"]["value"] = group.numbers
    if not group.metric_set.text_ids:
        table["texts_bytes"] = _NULL
    return table


def _rows(group: ReadingGroup, set_id: int) -> bytes | list[bytes]:
    """Return all rows, as one where they are of equal size."""
    if not group.metric_set.text_ids and not np.isnan(group.numbers).any():
        return _table(group, set_id).tobytes()
    return _sliced(group, set_id)


def _sliced(group: ReadingGroup, set_id: int) -> list[bytes]:
    """Return each row."""
    table = _table(group, set_id)
    missing = np.isnan(group.numbers)
    if missing.any():
        fixed = _without_missing(table, missing)
    else:
        everything, size = table.tobytes(), table.dtype.itemsize
        fixed = [everything[start : start + size] for start in range(0, size * group.size, size)]
    if not group.metric_set.text_ids:
        return fixed
    return [row + texts for row, texts in zip(fixed, _text_arrays(group), strict=True)]


def _without_missing(table: NDArray[np.void], missing: NDArray[np.bool_]) -> list[bytes]:
    """Return each row, with NULL for the missing numbers: n times w booleans."""
    count, width = missing.shape
    missing_counts = np.count_nonzero(missing, axis=1)
    table["numbers_bytes"] -= (8 * missing_counts).astype(table["numbers_bytes"].dtype)
    table["has_null"] = missing_counts > 0
    table["elements"]["bytes"][missing] = _NULL
    size = table.dtype.itemsize
    start = table.dtype.fields["elements"][1] if table.dtype.fields is not None else 0
    kept = np.ones((count, size), np.bool_)
    kept[:, start : start + 12 * width].reshape(count, width, 12)[missing, 4:] = False
    everything = table.view(np.uint8).reshape(count, size)[kept].tobytes()
    ends = np.cumsum(size - 8 * missing_counts).tolist()
    return [everything[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _text_arrays(group: ReadingGroup) -> Iterator[bytes]:
    width = len(group.metric_set.text_ids)
    if width == 1:
        for (text,) in group.texts.tolist():
            yield _text_array((text,), 1)
    else:
        for texts in group.texts.tolist():
            yield _text_array(texts, width)


def _text_array(texts: Sequence[str | None], width: int) -> bytes:
    parts: list[bytes] = []
    has_null = 0
    for text in texts:
        if text is None:
            has_null = 1
            parts.append(_LENGTH.pack(_NULL))
        else:
            value = text.encode()
            parts += (_LENGTH.pack(len(value)), value)
    elements = b"".join(parts)
    return _TEXTS_HEADER.pack(_ARRAY_HEADER_BYTES + len(elements), 1, has_null, _TEXT, width, 1) + elements
