"""Stored values as CSV: how numbers and texts are written, and in what chunks."""

import csv
import io
from array import array
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_platform_api.measurements.columns import Column, Columns, Texts
from sens_platform_api.measurements.query import Position, Query
from sens_platform_api.measurements.rendering import PLAIN_CSV, Shape
from sens_platform_api.measurements.repository import QueriedDevice
from sens_platform_api.measurements.spans import Span
from sens_platform_api.measurements.value_rows import STRETCH_CELLS, values_as_csv

START = datetime(2026, 11, 24, tzinfo=UTC)
QUERY = Query([], Span(START, START + timedelta(days=9)), None, [], None, "asc", 10_000_000, None)


class Stored:
    """Readings of a device that are in memory, in one page."""

    devices = (QueriedDevice(1, "d"),)
    units: Mapping[tuple[str, int], str] = {("d", 1): "Cel"}
    next: Position | None = None

    def __init__(self, columns: Sequence[Column], page: Columns) -> None:
        self.columns = columns
        self._page = page

    async def pages(self) -> AsyncGenerator[Columns]:
        yield self._page


async def chunks_of(columns: Sequence[Column], numbers: Sequence[list[float]], texts: Sequence[Texts]) -> list[bytes]:
    count = len(numbers[0] if numbers else texts[0].sizes)
    begin = int(START.timestamp() * 1e6)
    times = array("q", range(begin, begin + count))
    page = Columns(times, array("i", bytes(4 * count)), [array("d", each) for each in numbers], texts)
    return [chunk async for chunk in values_as_csv(Stored(columns, page), QUERY, Shape(), PLAIN_CSV)]


async def cells_of(column: Column, numbers: list[float] | None = None, texts: list[str] | None = None) -> str:
    """Return what stands in the last column, in lines."""
    encoded = [text.encode() for text in texts or []]
    of_texts = [Texts(array("i", map(len, encoded)), b"".join(encoded))] if texts is not None else []
    data = b"".join(await chunks_of([column], [numbers] if numbers is not None else [], of_texts))
    return data.decode().partition("\r\n")[2]


class TestNumbers:
    @given(st.lists(st.floats(), min_size=1), st.data())
    async def test_are_written_as_python_writes_them(self, numbers: list[float], data: st.DataObject) -> None:
        short = st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 12)).map(lambda pair: pair[0] / 10 ** pair[1])
        numbers += data.draw(st.lists(short))
        lines = (await cells_of(Column(1, "t", "number"), numbers)).split("\r\n")
        assert [line.rpartition(",")[2] for line in lines[:-1]] == [repr(each) for each in numbers if each == each]  # noqa: PLR0124

    @pytest.mark.parametrize("number", [5e-5, -1.25e-5, 9.999e-5, 1e-4, 1e-9, 1e15, 1e16, -1.5e300, 5e-324, -0.0])
    async def test_with_and_without_exponents_are_written_as_python_writes_them(self, number: float) -> None:
        assert await cells_of(Column(1, "t", "number"), [number]) == f"2026-11-24T00:00:00Z,t,{number!r}\r\n"

    async def test_that_are_infinite_are_written_beside_missing_ones(self) -> None:
        lines = await cells_of(Column(1, "t", "number"), [1.0, float("nan"), float("-inf")])
        assert [line.rpartition(",")[2] for line in lines.splitlines()] == ["1.0", "-inf"]


class TestTexts:
    @given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1), st.text(min_size=1))
    async def test_are_quoted_as_the_csv_writer_quotes_them(self, texts: list[str], name: str) -> None:
        name = name.encode(errors="replace").decode()
        expected = io.StringIO()
        writer = csv.writer(expected)
        times = ((START + timedelta(microseconds=n)).isoformat().replace("+00:00", "Z") for n in range(len(texts)))
        writer.writerows([time, name, text] for time, text in zip(times, texts, strict=True))
        assert await cells_of(Column(1, name, "text"), texts=texts) == expected.getvalue()


class TestUnits:
    async def test_are_in_a_last_column_where_they_are_wanted(self) -> None:
        columns = [Column(1, "t", "number"), Column(2, "n", "number")]
        page = Columns(array("q", [0]), array("i", [0]), [array("d", [21.5]), array("d", [3])], [])
        shape = Shape(with_units=True)
        data = b"".join([chunk async for chunk in values_as_csv(Stored(columns, page), QUERY, shape, PLAIN_CSV)])
        assert data.decode() == (
            "time,metric,value,unit\r\n1970-01-01T00:00:00Z,t,21.5,°C\r\n1970-01-01T00:00:00Z,n,3.0,\r\n"
        )


class TestChunks:
    @pytest.mark.parametrize("count", [1, 3, 100])
    async def test_are_of_a_stretch_of_values_each(self, count: int) -> None:
        columns = [Column(n, f"m{n}", "number") for n in range(count)]
        chunks = await chunks_of(columns, [[0.1 + 0.2] * (20_000 // count)] * count, [])
        most = STRETCH_CELLS * len("2026-11-24T00:00:00.000001Z,m10,0.30000000000000004\r\n")
        assert len(chunks) >= 9
        assert max(map(len, chunks)) <= most + len("time,metric,value\r\n")
