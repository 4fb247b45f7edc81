"""Measurements: parameters, continuation, JSON and CSV."""

import csv
import io
import json
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from sens_platform_api.devices.repository import Kind, Value
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.measurements.cursors import render_position
from sens_platform_api.measurements.merging import merged
from sens_platform_api.measurements.query import Position, QueriedSeries, Query, Source, remaining
from sens_platform_api.measurements.rendering import CHUNK_BYTES, CsvStyle, Shape, as_csv, as_json
from sens_platform_api.measurements.repository import Row
from sens_platform_api.measurements.schemas import MeasurementParameters
from sens_platform_api.measurements.service import selected
from sens_platform_api.measurements.spans import Span
from sens_platform_api.settings import LimitSettings

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NUMBER = QueriedSeries(1, "d", 1, "t", "number")
TEXT = QueriedSeries(1, "d", 2, "text", "text")


def query(**parameters: object) -> Query:
    return MeasurementParameters.model_validate(parameters).query(LimitSettings(), NOON)


def rows(series: QueriedSeries, minutes: list[int], value: Value = 1.0) -> list[Row]:
    return [Row(NOON + minute * MINUTE, series, (value,)) for minute in minutes]


class TestParameters:
    def test_default_to_the_last_day_of_all_metrics(self) -> None:
        asked = query()
        assert asked.span == Span(NOON - timedelta(days=1), NOON)
        assert asked.metrics == []
        assert asked.buckets is None

    def test_name_buckets_and_aggregates(self) -> None:
        asked = query(bucket="2w", aggregate="max,avg,max")
        assert asked.buckets is not None
        assert asked.buckets.typical == timedelta(weeks=2)
        assert asked.aggregates == ["max", "avg"]
        assert query(bucket="5m").aggregates == ["avg"]

    def test_bound_the_time_range(self) -> None:
        with pytest.raises(InvalidRequestError, match="3660 days"):
            query(**{"from": "2000-01-01", "to": "2026-01-01"})

    def test_go_on_in_the_range_of_the_first_page(self) -> None:
        span = Span(NOON - timedelta(hours=3), NOON - timedelta(hours=1))
        position = Position(NOON - timedelta(hours=2), ("d", "ü", "text"), span)
        asked = query(cursor=render_position(position))
        assert asked.span == span
        assert asked.after == position

    def test_go_on_after_a_bucket_that_begins_before_the_range(self) -> None:
        span = Span(NOON + MINUTE, NOON + timedelta(hours=1))
        position = Position(NOON, ("d", "t", "number"), span)
        assert query(bucket="5m", cursor=render_position(position)).after == position


class TestContinuation:
    SPAN = Span(NOON, NOON + timedelta(hours=1))

    def asked(self, order: str, bucket: str | None = None) -> Query:
        parameters = {"order": order} | ({"bucket": bucket} if bucket else {})
        after = Position(NOON + 10 * MINUTE, ("d", "m", "number"), self.SPAN)
        return query(**parameters)._replace(span=self.SPAN, after=after)

    @pytest.mark.parametrize(("name", "kind"), [("a", "text"), ("m", "number")])
    def test_leaves_out_the_last_row_of_series_that_have_given_it(self, name: str, kind: Kind) -> None:
        series = QueriedSeries(1, "d", 1, name, kind)
        step = timedelta(microseconds=1)
        assert remaining(self.asked("asc"), series).start == NOON + 10 * MINUTE + step
        assert remaining(self.asked("desc"), series).end == NOON + 10 * MINUTE
        assert remaining(self.asked("asc", "5m"), series).start == NOON + 15 * MINUTE
        assert remaining(self.asked("desc", "5m"), series).end == NOON + 10 * MINUTE

    def test_begins_with_the_last_row_in_series_that_have_not(self) -> None:
        series = QueriedSeries(1, "d", 1, "m", "text")
        assert remaining(self.asked("asc"), series).start == NOON + 10 * MINUTE
        assert remaining(self.asked("desc"), series).end == NOON + 10 * MINUTE + timedelta(microseconds=1)
        assert remaining(self.asked("desc", "5m"), series).end == NOON + 15 * MINUTE


class InMemory:
    """A source whose pages have two rows."""

    def __init__(self, items: list[Row]) -> None:
        self.rows: deque[Row] = deque()
        self._rest = items
        self.read_page()

    @property
    def complete(self) -> bool:
        return not self._rest

    def read_page(self) -> None:
        self.rows.extend(self._rest[:2])
        self._rest = self._rest[2:]


class TestMerging:
    @pytest.mark.parametrize("descending", [False, True])
    async def test_is_by_time_and_then_by_series(self, descending: bool) -> None:
        async def fill(sources: Sequence[InMemory]) -> None:
            for source in sources:
                if len(source.rows) < 2:
                    source.read_page()

        async def run() -> list[Row]:
            step = -1 if descending else 1
            sources = [
                InMemory(rows(NUMBER, [0, 2, 3, 4, 5][::step])),
                InMemory(rows(TEXT, [0, 1, 3][::step])),
                InMemory([]),
            ]
            return [row async for row in merged(sources, fill, descending=descending)]

        found = [((row.time - NOON) // MINUTE, row.series.name) for row in await run()]
        expected = [(0, "t"), (0, "text"), (1, "text"), (2, "t"), (3, "t"), (3, "text"), (4, "t"), (5, "t")]
        assert found == (sorted(expected, key=lambda item: (-item[0], item[1])) if descending else expected)

    async def test_of_one_series_is_all_of_its_rows(self) -> None:
        async def fill(sources: Sequence[InMemory]) -> None:
            sources[0].read_page()

        stored = rows(NUMBER, [0, 2, 3, 4, 5])
        assert [row async for row in merged([InMemory(stored)], fill, descending=False)] == stored
        assert [row async for row in merged([InMemory([])], fill, descending=False)] == []


class TestSelection:
    SERIES = (
        QueriedSeries(1, "d", 1, "t", "number"),
        QueriedSeries(1, "d", 2, "t", "text"),
        QueriedSeries(1, "d", 3, "firmware", "text"),
    )

    def test_of_an_unknown_metric_says_which_ones_there_are(self) -> None:
        with pytest.raises(NotFoundError, match=r"no metric temp; it has firmware, t$"):
            selected(["d"], list(self.SERIES), query(metric=["t", "temp"]))

    def test_of_averages_leaves_the_texts_of_a_metric_with_numbers_out(self) -> None:
        asked = query(metric=["t"], bucket="1h", aggregate="avg")
        assert selected(["d"], list(self.SERIES), asked) == [self.SERIES[0]]
        assert selected(["d"], list(self.SERIES), query(bucket="1h", aggregate="avg")) == [self.SERIES[0]]

    def test_of_averages_of_texts_alone_is_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match="firmware has texts"):
            selected(["d"], list(self.SERIES), query(metric=["firmware"], bucket="1h", aggregate="avg"))


class Stored:
    """An answer whose rows are in memory."""

    devices = ("d",)
    series: Sequence[QueriedSeries] = ()
    sources: Sequence[Source] = ("1d", "raw")
    notes: Sequence[str] = ()

    def __init__(self, items: list[Row], position: Position | None = None) -> None:
        self.next: Position | None = None
        self._items = items
        self._position = position

    async def rows(self) -> AsyncGenerator[Row]:
        for item in self._items:
            yield item
        self.next = self._position


async def _chunks(body: AsyncGenerator[bytes]) -> list[bytes]:
    return [chunk async for chunk in body]


class TestRendering:
    async def test_gives_one_json_document(self) -> None:
        items = rows(NUMBER, [0]) + rows(TEXT, [1], 'ü"')
        document = json.loads(b"".join(await _chunks(as_json(Stored(items), Shape()))))
        assert document == {
            "device": "d",
            "measurements": [
                {"time": "2026-11-24T12:00:00Z", "metric": "t", "value": 1.0},
                {"time": "2026-11-24T12:01:00Z", "metric": "text", "value": 'ü"'},
            ],
            "next": None,
        }

    async def test_tells_units(self) -> None:
        series = NUMBER._replace(unit="Cel")
        answer = Stored(rows(series, [0]) + rows(TEXT, [1], "x"))
        answer.series = (series, TEXT)
        document = json.loads(b"".join(await _chunks(as_json(answer, Shape()))))
        assert document["units"] == [{"metric": "t", "unit": "Cel", "unit_text": "°C"}]
        text = b"".join(await _chunks(as_csv(answer, Shape(with_units=True)))).decode()
        assert text.splitlines() == [
            "time,metric,value,unit",
            "2026-11-24T12:00:00Z,t,1.0,°C",
            "2026-11-24T12:01:00Z,text,x,",
        ]

    async def test_gives_csv_that_a_reader_understands(self) -> None:
        items = rows(TEXT, [0], 'a,"b"\r\nc') + rows(NUMBER, [1], 0.1)
        text = b"".join(await _chunks(as_csv(Stored(items), Shape()))).decode()
        assert list(csv.reader(io.StringIO(text, newline=""))) == [
            ["time", "metric", "value"],
            ["2026-11-24T12:00:00Z", "text", 'a,"b"\r\nc'],
            ["2026-11-24T12:01:00Z", "t", "0.1"],
        ]

    @pytest.mark.parametrize("name", ["t", "a,b", 'say "x"', "ü\u2028z", " t "])
    @pytest.mark.parametrize("value", [1.5, 1e-7, 2e300, True, "a,b"])
    async def test_as_csv_reads_as_what_was_written(self, name: str, value: Value) -> None:
        kind: Kind = "text" if isinstance(value, str) else "number"
        stored = Stored(rows(QueriedSeries(1, "d", 3, name, kind), [0, 1], value))
        text = b"".join(await _chunks(as_csv(stored, Shape(names_devices=True)))).decode()
        written = str(value).lower() if isinstance(value, bool) else str(value)
        assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [
            ["2026-11-24T12:00:00Z", "d", name, written],
            ["2026-11-24T12:01:00Z", "d", name, written],
        ]

    async def test_of_aggregates_names_them(self) -> None:
        items = [Row(NOON, TEXT, (None, 3))]
        document = json.loads(b"".join(await _chunks(as_json(Stored(items), Shape(["avg", "count"])))))
        assert document["sources"] == ["1d", "raw"]
        [line] = document["measurements"]
        assert line == {"time": "2026-11-24T12:00:00Z", "metric": "text", "kind": "text", "avg": None, "count": 3}

    @pytest.mark.parametrize("render", [as_json, as_csv])
    async def test_comes_in_bounded_chunks(self, render: object) -> None:
        assert callable(render)
        chunks = await _chunks(render(Stored(rows(NUMBER, list(range(5000)))), Shape()))
        assert len(chunks) >= 5
        assert max(len(chunk) for chunk in chunks) < 2 * CHUNK_BYTES

    @pytest.mark.parametrize(
        ("style", "expected"),
        [
            (CsvStyle(), "2026-11-24T12:00:00Z,text,=1+1\r\n2026-11-24T12:01:00Z,t,-1.5\r\n"),
            (CsvStyle("point"), "2026-11-24 12:00:00,text,'=1+1\r\n2026-11-24 12:01:00,t,-1.5\r\n"),
            (CsvStyle("comma"), "2026-11-24 12:00:00;text;'=1+1\r\n2026-11-24 12:01:00;t;-1,5\r\n"),
        ],
    )
    async def test_gives_csv_exactly_or_for_spreadsheets(self, style: CsvStyle, expected: str) -> None:
        items = rows(TEXT, [0], "=1+1") + rows(NUMBER, [1], -1.5)
        text = b"".join(await _chunks(as_csv(Stored(items), Shape(), style))).decode()
        header, _, body = text.partition("\r\n")
        assert header.startswith("\ufeff") == (style.spreadsheet is not None)
        assert body == expected

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
    async def test_for_spreadsheets_makes_texts_harmless_that_begin_like_a_formula(self, start: str) -> None:
        items = rows(QueriedSeries(1, "d", 3, f"{start}name", "text"), [0], f"{start}x")
        text = b"".join(await _chunks(as_csv(Stored(items), Shape(), CsvStyle("point")))).decode()
        [_, cells] = list(csv.reader(io.StringIO(text, newline="")))
        assert cells[1:] == [f"'{start}name", f"'{start}x"]

    async def test_ends_with_a_line_where_the_protocol_has_no_end(self) -> None:
        span = Span(NOON, NOON + MINUTE)
        items = Stored(rows(NUMBER, [0]), Position(NOON, ("d", "t", "number"), span))
        lines = b"".join(await _chunks(as_csv(items, Shape(), CsvStyle(end_line=True)))).split(b"\r\n")
        assert lines[-3].startswith(b"# next: ")
        assert lines[-2:] == [b"# end", b""]
