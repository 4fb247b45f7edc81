"""Stored values as CSV, a row each, made of pages of columns.

What has to be done for each value is done for some thousand of them at once, as far as Python has functions for that.
"""

import math
import re
from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from itertools import accumulate, chain
from typing import Final

import orjson

from sens_platform_api import metrics
from sens_platform_api.measurements.columns import Columns, Texts
from sens_platform_api.measurements.query import Position, Query
from sens_platform_api.measurements.readings import ReadableReadings
from sens_platform_api.measurements.rendering import CHUNK_BYTES, CsvStyle, Shape, csv_end, csv_head, csv_unit, harmless
from sens_platform_api.parameters import EPOCH

STRETCH_CELLS: Final = 2048
"""So many values are written at once, about: others are served after a millisecond or two."""

_EPOCH_IN_UTC: Final = EPOCH.replace(tzinfo=None)

type _Lines = list[str]
"""Rows of the values of some readings, by reading and then by column; empty where there is no value."""


async def values_as_csv(
    readings: ReadableReadings, query: Query, shape: Shape, style: CsvStyle
) -> AsyncGenerator[bytes]:
    """Yield what `rendering.as_csv` yields of the same values.

    Args:
        readings: For at least one value more than the query's limit, if there are as many.
        query: For stored values.
        shape: Whether rows name their device.
        style: Of the cells.
    """
    table = _Table(readings, query, shape, style)
    waiting, size = [csv_head(shape, style)], 0
    async with aclosing(readings.pages()) as pages:
        async for page in pages:
            for lines in table.stretches(page):
                waiting += lines
                size += sum(map(len, lines))
                if size >= CHUNK_BYTES:
                    yield "".join(waiting).encode()
                    waiting, size = [], 0
            if table.next is not None:
                break
    yield ("".join(waiting) + csv_end(table.next, style)).encode()


class _Table:
    """Makes rows of readings.

    Attributes:
        next: The position to go on from, once a row more than the limit was met.
    """

    def __init__(self, readings: ReadableReadings, query: Query, shape: Shape, style: CsvStyle) -> None:
        self.next: Position | None = None
        self._columns = readings.columns
        self._device_names = [device.name for device in readings.devices]
        self._names_devices = shape.names_devices
        self._style = style
        self._needs_quotes = re.compile(f'["\r\n{style.delimiter}]')
        part = style.delimiter
        self._heads = [f"{part}{self._text(column.name)}{part}" for column in readings.columns]
        self._tails = [self._units_of(column.id, readings) for column in readings.columns] if shape.with_units else None
        self._span = query.span
        self._given = query.after
        self._left = query.limit
        self._last: Position | None = None

    def stretches(self, page: Columns) -> Iterator[_Lines]:
        """Yield the rows of some readings after the others, up to the limit."""
        for start, lines in self._stretches(page):
            if self._given is not None:
                self._leave_out(lines, page, self._given)
                self._given = None
            count = len(lines) - lines.count("")
            if count >= self._left > 0:
                last = [index for index, line in enumerate(lines) if line][self._left - 1]
                self._last = self._position(page, start, last)
                metrics.MEASUREMENTS.inc(self._left)
                yield lines[: last + 1]
            elif self._left:
                metrics.MEASUREMENTS.inc(count)
                yield lines
            if count > self._left:
                self.next = self._last
                return
            self._left -= count

    def _stretches(self, page: Columns) -> Iterator[tuple[int, _Lines]]:
        """Yield the rows of some readings after the others, with the index of the first one."""
        ends = [list(accumulate((max(size, 0) for size in texts.sizes), initial=0)) for texts in page.texts]
        step = max(1, STRETCH_CELLS // len(self._columns))
        for start in range(0, len(page), step):
            stretch = slice(start, start + step)
            numbers = iter(page.numbers)
            texts = zip(page.texts, ends, strict=True)
            beginnings = self._beginnings(page, stretch)
            lines = []
            for index, (column, head) in enumerate(zip(self._columns, self._heads, strict=True)):
                if column.kind == "text":
                    values = self._texts(*next(texts), stretch)
                else:
                    of_kind = self._numbers if column.kind == "number" else _booleans
                    values = of_kind(next(numbers)[stretch])
                if self._tails is not None:
                    tails = map(self._tails[index].__getitem__, page.device_indexes[stretch])
                    values = [
                        None if value is None else value + tail for value, tail in zip(values, tails, strict=True)
                    ]
                lines.append(
                    [
                        "" if value is None else f"{beginning}{head}{value}\r\n"
                        for beginning, value in zip(beginnings, values, strict=True)
                    ]
                )
            yield start, list(chain.from_iterable(zip(*lines, strict=True)))

    def _units_of(self, metric_id: int, readings: ReadableReadings) -> list[str]:
        """Return the last cell of a metric's rows, by the device's index."""
        units = [readings.units.get((device.name, metric_id)) for device in readings.devices]
        return [f"{self._style.delimiter}{self._text(csv_unit(unit))}" for unit in units]

    def _leave_out(self, lines: _Lines, page: Columns, given: Position) -> None:
        """Leave those values of the first reading out that the page of the answer before has given."""
        if _time(page.times[0]) == given.time.replace(tzinfo=None):
            device = self._device_names[page.device_indexes[0]]
            for index, column in enumerate(self._columns):
                if (device, column.name, column.kind) <= given.series:
                    lines[index] = ""

    def _position(self, page: Columns, start: int, value_index: int) -> Position:
        """Return the position of the row with an index in a stretch."""
        reading, index = divmod(value_index, len(self._columns))
        reading += start
        time = EPOCH + timedelta(microseconds=page.times[reading])
        return Position(time, (self._device_names[page.device_indexes[reading]], *self._columns[index][1:]), self._span)

    def _beginnings(self, page: Columns, stretch: slice) -> list[str]:
        """Return the first cells of the rows of each reading: its time, and its device."""
        separator, end = ("T", "Z") if self._style.spreadsheet is None else (" ", "")
        times = [_time(time).isoformat(separator) for time in page.times[stretch]]
        if not self._names_devices:
            return [f"{time}{end}" for time in times]
        ends = [f"{end}{self._style.delimiter}{name}" for name in self._device_names]
        return [f"{time}{ends[index]}" for time, index in zip(times, page.device_indexes[stretch], strict=True)]

    def _numbers(self, values: "array[float]") -> Sequence[str | None]:
        texts = _number_texts(values)
        if self._style.spreadsheet == "comma":
            return [None if text is None else text.replace(".", ",") for text in texts]
        return texts

    def _texts(self, texts: Texts, ends: Sequence[int], stretch: slice) -> Sequence[str | None]:
        return [
            None if size < 0 else self._text(texts.data[end : end + size].decode())
            for size, end in zip(texts.sizes[stretch], ends[stretch], strict=False)
        ]

    def _text(self, text: str) -> str:
        """Return the cell of a text (RFC 4180, section 2, 6 and 7)."""
        if self._style.spreadsheet is not None:
            text = harmless(text)
        if self._needs_quotes.search(text):
            return '"' + text.replace('"', '""') + '"'
        return text


def _time(microseconds: int) -> datetime:
    return _EPOCH_IN_UTC + timedelta(0, 0, microseconds)


def _booleans(values: "array[float]") -> Sequence[str | None]:
    words = {0.0: "false", 1.0: "true"}
    return list(map(words.get, values))


def _number_texts(values: "array[float]") -> Sequence[str | None]:
    """Return numbers as `repr` writes them; None for NaN.

    Both write the shortest digits that read as the same number. orjson is four times as fast, but writes an exponent in another way, and
    other numbers with one.
    """
    joined = orjson.dumps(values.tolist())[1:-1].decode()
    missing = "null" in joined
    if "e" in joined or "0.0000" in joined or (missing and any(map(math.isinf, values))):
        return [repr(value) if value == value else None for value in values]  # noqa: PLR0124 - NaN is unlike itself
    texts = joined.split(",")
    return [None if text == "null" else text for text in texts] if missing else texts
