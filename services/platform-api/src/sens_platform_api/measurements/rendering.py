"""Measurements as bytes: JSON and CSV (RFC 4180), in chunks of about `CHUNK_BYTES`."""

import csv
import io
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol

import orjson

from sens_common.units import unit_text
from sens_platform_api import metrics
from sens_platform_api.devices.repository import Value
from sens_platform_api.fields import unit_members
from sens_platform_api.measurements.cursors import render_position
from sens_platform_api.measurements.query import Aggregate, Position, QueriedSeries, Source
from sens_platform_api.measurements.repository import Row
from sens_platform_api.parameters import time_text

CHUNK_BYTES: Final = 32_768
JSON_TYPE: Final = "application/json"
CSV_TYPE: Final = "text/csv"
ARROW_TYPE: Final = "application/vnd.apache.arrow.stream"
PARQUET_TYPE: Final = "application/vnd.apache.parquet"

END_LINE: Final = "# end"
"""Last line of CSV over HTTP/1.0, whose body ends with the connection: without it, a broken-off answer looks complete."""
END_HEADER: Final = "Sens-Last-Line"
"""Header of an answer whose last line has to be `END_LINE`."""


class Renderable(Protocol):
    """The devices' canonical names, their series, their rows by time, and after the last of them where to go on, their sources, and notes."""

    @property
    def devices(self) -> Sequence[str]: ...

    @property
    def series(self) -> Sequence[QueriedSeries]: ...

    @property
    def next(self) -> Position | None: ...

    @property
    def sources(self) -> Sequence[Source]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def rows(self) -> AsyncGenerator[Row]: ...


class Shape(NamedTuple):
    """What the rows of an answer have.

    Attributes:
        aggregates: Of buckets; none for stored values.
        names_devices: Whether each says whose it is.
        with_units: Whether rows of CSV say their unit.
    """

    aggregates: Sequence[Aggregate] = ()
    names_devices: bool = False
    with_units: bool = False


class CsvStyle(NamedTuple):
    """A style of CSV.

    Attributes:
        spreadsheet: None for the plain form, which is exact. Else the sign before decimals in the form for spreadsheets: with a byte order
            mark, times without T and Z, and texts that a spreadsheet would calculate made harmless.
        end_line: Whether a last line says that the answer is complete.
    """

    spreadsheet: Literal["point", "comma"] | None = None
    end_line: bool = False

    @property
    def delimiter(self) -> str:
        """What parts cells: where the comma stands before decimals, spreadsheets expect semicolons."""
        return ";" if self.spreadsheet == "comma" else ","


PLAIN_CSV: Final = CsvStyle()


async def as_json(answer: Renderable, shape: Shape) -> AsyncGenerator[bytes]:
    """Yield a document of the form of `schemas.MeasurementList`, or of `schemas.MeasurementsOfDevices`."""
    head = {"devices": answer.devices} if shape.names_devices else {"device": answer.devices[0]}
    buffer = bytearray(orjson.dumps(head)[:-1] + b',"measurements":[')
    separator = b""
    count = 0
    async with aclosing(answer.rows()) as rows:
        async for row in rows:
            buffer += separator + orjson.dumps(_document(row, shape))
            separator = b","
            count += 1
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer = bytearray()
                metrics.MEASUREMENTS.inc(count)
                count = 0
    metrics.MEASUREMENTS.inc(count)
    cursor = None if answer.next is None else render_position(answer.next)
    sources = b',"sources":' + orjson.dumps(answer.sources) if shape.aggregates else b""
    notes = b',"notes":' + orjson.dumps(answer.notes) if answer.notes else b""
    known = _units(answer.series, shape)
    units = b',"units":' + orjson.dumps(known) if known else b""
    yield bytes(buffer) + b'],"next":' + orjson.dumps(cursor) + sources + notes + units + b"}"


def _units(series: Sequence[QueriedSeries], shape: Shape) -> list[dict[str, str]]:
    """Return the units of those series that have one."""
    return [
        ({"device": one.device} if shape.names_devices else {}) | {"metric": one.name} | unit_members(one.unit)
        for one in series
        if one.unit is not None
    ]


def _document(row: Row, shape: Shape) -> dict[str, object]:
    document: dict[str, object] = {"time": time_text(row.time)}
    if shape.names_devices:
        document["device"] = row.series.device
    document["metric"] = row.series.name
    if not shape.aggregates:
        return document | {"value": row.values[0]}
    return document | {"kind": row.series.kind} | dict(zip(shape.aggregates, row.values, strict=True))


async def as_csv(answer: Renderable, shape: Shape, style: CsvStyle = PLAIN_CSV) -> AsyncGenerator[bytes]:
    """Yield a header line and a line per row; where the limit ended the rows, the last line is ``# next: <cursor>``."""
    text = io.StringIO(csv_head(shape, style), newline="")
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, delimiter=style.delimiter)
    cell = _exact if style.spreadsheet is None else partial(_for_spreadsheets, comma=style.spreadsheet == "comma")
    count = 0
    async with aclosing(answer.rows()) as rows:
        async for row in rows:
            device = [row.series.device] if shape.names_devices else []
            kind = [row.series.kind] if shape.aggregates else []
            unit = [cell(csv_unit(row.series.unit))] if shape.with_units else []
            writer.writerow([cell(row.time), *device, cell(row.series.name), *kind, *map(cell, row.values), *unit])
            count += 1
            if text.tell() >= CHUNK_BYTES:
                yield text.getvalue().encode()
                text.seek(0)
                text.truncate()
                metrics.MEASUREMENTS.inc(count)
                count = 0
    metrics.MEASUREMENTS.inc(count)
    yield (text.getvalue() + csv_end(answer.next, style)).encode()


def csv_head(shape: Shape, style: CsvStyle) -> str:
    """Return what CSV begins with."""
    mark = "" if style.spreadsheet is None else "\ufeff"
    return f"{mark}{style.delimiter.join(column_names(shape))}\r\n"


def csv_end(following: Position | None, style: CsvStyle) -> str:
    """Return what CSV ends with, given where to go on."""
    cursor = "" if following is None else f"# next: {render_position(following)}\r\n"
    return cursor + (f"{END_LINE}\r\n" if style.end_line else "")


def column_names(shape: Shape) -> list[str]:
    """Return the names of the columns of a table."""
    device = ["device"] if shape.names_devices else []
    values = ["kind", *shape.aggregates] if shape.aggregates else ["value"]
    return ["time", *device, "metric", *values, *(["unit"] if shape.with_units else [])]


def csv_unit(unit: str | None) -> str:
    """Return the cell of a unit: as people write it, empty where none is known."""
    return "" if unit is None else unit_text(unit)


def _exact(value: Value | datetime | None) -> str:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _for_spreadsheets(value: Value | datetime | None, *, comma: bool) -> str:
    if isinstance(value, datetime):
        return time_text(value).replace("T", " ").removesuffix("Z")
    if isinstance(value, str):
        return harmless(value)
    text = _exact(value)
    return text.replace(".", ",") if comma else text


def harmless(text: str) -> str:
    """Return a text as no formula (OWASP, "CSV Injection": a spreadsheet takes what begins like this for one)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
