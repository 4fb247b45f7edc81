"""Measurements as tables of Apache Arrow, and as its IPC streams.

Format: https://arrow.apache.org/docs/format/Columnar.html. Importing this module takes a tenth
of a second and some 60 MB, so whoever needs it imports it when it is asked for (`loading`).
"""

import io
import json
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import accumulate, chain
from typing import Final, Protocol

import pyarrow as pa
from pyarrow import ipc

from sens_common.units import unit_text
from sens_platform_api import metrics
from sens_platform_api.devices.repository import Value
from sens_platform_api.measurements.columns import Column, Columns, Texts
from sens_platform_api.measurements.cursors import render_position
from sens_platform_api.measurements.query import Position
from sens_platform_api.measurements.readings import ReadableReadings
from sens_platform_api.measurements.rendering import Renderable, Shape
from sens_platform_api.measurements.repository import Row
from sens_platform_api.parameters import EPOCH

NEXT: Final = b"sens.next"
"""Where the cursor is of what is over the limit: in the metadata of a stream's last batch, and of a file."""
CHUNK_BYTES: Final = 131_072
BATCH_ROWS: Final = 4096
"""Of aggregates, which are made row by row."""

_TIME: Final = pa.timestamp("us", tz="UTC")
_NAME: Final = pa.dictionary(pa.int32(), pa.string())
_TYPES: Final = {"number": pa.float64(), "boolean": pa.bool_(), "text": pa.string()}
_MICROSECOND: Final = EPOCH.resolution


def _digits(ones: range) -> bytes:
    """Return the table that makes bytes the digits of a binary number: those in the range are ones."""
    return bytes(ord("1" if byte in ones else "0") for byte in range(256))


# What the numbers of a column begin with (IEEE 754, binary64): NaN with 7F F8 or more, 1 with 3F.
_BEGINS_NAN: Final = _digits(range(0x7F, 0x80))
_GOES_ON_AS_NAN: Final = _digits(range(0xF8, 0x100))
_BEGINS_ONE: Final = _digits(range(0x3F, 0x40))


class Table(Protocol):
    """Rows that are made batch by batch; after the last of them the position is known to go on from."""

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def next(self) -> Position | None: ...

    def batches(self) -> AsyncGenerator[pa.RecordBatch]: ...


class ReadingTable:
    """Readings as rows: device, time, and a column for each metric.

    A column has the metric's name. Where another column has it too, the kind is added: ``state (text)``. The field's metadata say both, and the
    unit: ``sens.unit`` (UCUM code) and ``sens.unit_text`` where all devices that have one agree, else ``sens.units``, a JSON object by device.
    """

    def __init__(self, readings: ReadableReadings) -> None:
        self._readings = readings
        self._devices = pa.array([device.name for device in readings.devices], pa.string())
        names = column_names(readings.columns)
        self.schema = pa.schema(
            [
                pa.field("device", _NAME, nullable=False),
                pa.field("time", _TIME, nullable=False),
                *(
                    pa.field(
                        name,
                        _TYPES[column.kind],
                        metadata={"sens.metric": column.name, "sens.kind": column.kind} | _unit(readings, column),
                    )
                    for name, column in zip(names, readings.columns, strict=True)
                ),
            ]
        )

    @property
    def next(self) -> Position | None:
        """The position to go on from, once all rows were made and the limit ended them."""
        return self._readings.next

    async def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """Yield the rows by time, and of equal times by device."""
        async with aclosing(self._readings.pages()) as pages:
            async for page in pages:
                yield self._batch(page)

    def _batch(self, page: Columns) -> pa.RecordBatch:
        indexes = pa.Array.from_buffers(pa.int32(), len(page), [None, pa.py_buffer(page.device_indexes)])
        numbers, texts = iter(page.numbers), iter(page.texts)
        of_kind = {"number": lambda: _numbers(next(numbers)), "boolean": lambda: _booleans(next(numbers))}
        columns = [of_kind.get(column.kind, lambda: _texts(next(texts)))() for column in self._readings.columns]
        return pa.RecordBatch.from_arrays(
            [
                pa.DictionaryArray.from_arrays(indexes, self._devices),
                pa.Array.from_buffers(_TIME, len(page), [None, pa.py_buffer(page.times)]),
                *columns,
            ],
            schema=self.schema,
        )


def _unit(readings: ReadableReadings, column: Column) -> dict[str, str]:
    """Return what the metadata of a column say of its unit."""
    units = {device: unit for (device, metric_id), unit in readings.units.items() if metric_id == column.id}
    match list(set(units.values())):
        case []:
            return {}
        case [unit]:
            return {"sens.unit": unit, "sens.unit_text": unit_text(unit)}
        case _:
            return {"sens.units": json.dumps(units)}


class RowTable:
    """Rows of an answer, with the columns that CSV has of them; the last one is the unit (UCUM code) where a metric has one."""

    def __init__(self, answer: Renderable, shape: Shape) -> None:
        self._answer = answer
        self._shape = shape
        self._with_units = any(one.unit is not None for one in answer.series)
        values = (
            [pa.field(name, pa.int64() if name == "count" else pa.float64()) for name in shape.aggregates]
            if shape.aggregates
            else [pa.field("value", pa.float64())]
        )
        self.schema = pa.schema(
            [
                pa.field("time", _TIME, nullable=False),
                *(pa.field(name, pa.string(), nullable=False) for name in ("device", "metric", "kind")),
                *values,
                *([pa.field("unit", pa.string())] if self._with_units else []),
            ]
        )

    @property
    def next(self) -> Position | None:
        """The position to go on from, once all rows were made and the limit ended them."""
        return self._answer.next

    async def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """Yield the rows by time."""
        rows: list[Row] = []
        async with aclosing(self._answer.rows()) as found:
            async for row in found:
                rows.append(row)
                if len(rows) == BATCH_ROWS:
                    yield self._batch(rows)
                    rows = []
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        names = [row.series for row in rows]
        return pa.RecordBatch.from_arrays(
            [
                pa.array([(row.time - EPOCH) // _MICROSECOND for row in rows], pa.int64()).view(_TIME),
                *(pa.array([getattr(one, name) for one in names], pa.string()) for name in ("device", "name", "kind")),
                *(
                    pa.array([_number(row.values[index]) for row in rows], self.schema.field(index + 4).type)
                    for index in range(len(self._shape.aggregates) or 1)
                ),
                *([pa.array([one.unit for one in names], pa.string())] if self._with_units else []),
            ],
            schema=self.schema,
        )


async def as_arrow(table: Table) -> AsyncGenerator[bytes]:
    """Yield an Arrow IPC stream; where the limit ended the rows, the metadata of an empty last batch have the cursor."""
    sink = Sink()
    async with aclosing(table.batches()) as batches:
        first = await anext(batches, None)
        with ipc.new_stream(sink, table.schema) as writer:
            async for batch in chained(first, batches):
                writer.write_batch(batch)
                metrics.MEASUREMENTS.inc(batch.num_rows)
                for chunk in sink.taken():
                    yield chunk
            if table.next is not None:
                empty = pa.RecordBatch.from_pylist([], schema=table.schema)
                writer.write_batch(empty, custom_metadata={NEXT: render_position(table.next).encode()})
    for chunk in sink.taken(last=True):
        yield chunk


async def chained(
    first: pa.RecordBatch | None, others: AsyncGenerator[pa.RecordBatch]
) -> AsyncGenerator[pa.RecordBatch]:
    if first is not None:
        yield first
        async for batch in others:
            yield batch


class Sink(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: bytes) -> int:  # type: ignore[override] # Arrow writes bytes
        self._parts.append(bytes(data))
        self._size += len(data)
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Do nothing: what was written is still to be taken."""

    def taken(self, *, last: bool = False) -> list[bytes]:
        """Take what was written, in chunks; a small rest stays until it is the last."""
        if self._size < CHUNK_BYTES and not last:
            return []
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def column_names(columns: Sequence[Column]) -> list[str]:
    """Return the names of the columns of some metrics: each once, and none of them device or time."""
    names: list[str] = []
    taken = {"device", "time"}
    often = [column.name for column in columns]
    for column in columns:
        name = column.name if often.count(column.name) == 1 else f"{column.name} ({column.kind})"
        while name in taken or (name != column.name and name in often):
            name += f" ({column.kind})"
        taken.add(name)
        names.append(name)
    return names


def _number(value: Value | None) -> Value | None:
    return float(value) if isinstance(value, bool) else value


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


def _numbers(values: "array[float]") -> pa.Array:
    return pa.Array.from_buffers(pa.float64(), len(values), [_present(values), pa.py_buffer(values)])


def _booleans(values: "array[float]") -> pa.Array:
    begins = _leading(values)[0].translate(_BEGINS_ONE)
    return pa.Array.from_buffers(pa.bool_(), len(values), [_present(values), _bits(begins)])


def _present(values: "array[float]") -> pa.Buffer | None:
    """Return which numbers are not NaN, as bits; None where all are."""
    first, second = _leading(values)
    if b"\x7f" not in first:
        return None
    missing = int(first.translate(_BEGINS_NAN)[::-1], 2) & int(second.translate(_GOES_ON_AS_NAN)[::-1], 2)
    return _packed(~missing & ((1 << len(values)) - 1), len(values))


def _leading(values: "array[float]") -> tuple[bytes, bytes]:
    """Return the two bytes with sign and exponent of each number (IEEE 754): all the first ones, and all the second ones."""
    data = values.tobytes()
    return data[7::8], data[6::8]


def _bits(digits: bytes) -> pa.Buffer:
    return _packed(int(digits[::-1], 2), len(digits))


def _packed(bits: int, count: int) -> pa.Buffer:
    return pa.py_buffer(bits.to_bytes((count + 7) // 8, "little"))


def _texts(texts: Texts) -> pa.Array:
    sizes = texts.sizes
    present = bytes(ord("0" if size < 0 else "1") for size in sizes) if -1 in sizes else None
    offsets = array("i", chain((0,), accumulate(max(size, 0) for size in sizes)))
    return pa.Array.from_buffers(
        pa.string(),
        len(sizes),
        [None if present is None else _bits(present), pa.py_buffer(offsets), pa.py_buffer(texts.data)],
    )
