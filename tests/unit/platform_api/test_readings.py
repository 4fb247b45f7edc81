"""Pages of readings: when the next one is read, and that nothing goes on when nobody takes them."""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from sens_platform_api.errors import TooSlowError
from sens_platform_api.measurements.columns import Column, Columns
from sens_platform_api.measurements.query import QueriedSeries, Query
from sens_platform_api.measurements.readings import Readings
from sens_platform_api.measurements.repository import QueriedDevice, ReadingPage
from sens_platform_api.measurements.spans import Order, Span

START = datetime(2026, 11, 24, tzinfo=UTC)
SERIES = [QueriedSeries(1, "d", 1, "t", "number")]
QUERY = Query([], Span(START, START + timedelta(days=9)), None, [], None, "asc", 10_000_000, None)


class Database:
    """Has a reading a page, without an end; counts pages that were begun, and notes that one was broken off."""

    def __init__(self) -> None:
        self.begun = 0
        self.broken_off = False
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.began = asyncio.Condition()
        self.error: Exception | None = None

    @contextlib.asynccontextmanager
    async def open_pages(self, *, patient: bool) -> AsyncIterator["Database"]:
        assert patient == (self.begun > 0)
        yield self

    async def readings(
        self,
        devices: Sequence[QueriedDevice],
        columns: Sequence[Column],
        spans: Sequence[Span],
        *,
        order: Order,
        limit: int,
        text_bytes: int,
    ) -> ReadingPage:
        del devices, columns, order, limit, text_bytes
        self.begun += 1
        async with self.began:
            self.began.notify_all()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.broken_off = True
            raise
        if self.error is not None:
            raise self.error
        time = round(spans[0].start.timestamp() * 1e6)
        return ReadingPage([Columns(array("q", [time]), array("i", [0]), [array("d", [1.0])], [])], complete=False)

    async def has_begun(self, pages: int) -> None:
        async with self.began:
            await self.began.wait_for(lambda: self.begun == pages)


class TestReadingAhead:
    async def test_begins_with_the_third_page_and_goes_one_page_far(self) -> None:
        database = Database()
        async with aclosing(Readings(SERIES, QUERY, database.open_pages).pages()) as pages:
            await anext(pages)
            assert database.begun == 1
            await anext(pages)
            await database.has_begun(3)
            for _ in range(5):  # whatever is ready to run does
                await asyncio.sleep(0)
            assert database.begun == 3
            times = [(await anext(pages)).times[0], (await anext(pages)).times[0]]
            assert times[1] == times[0] + 1
            await database.has_begun(5)

    async def test_is_broken_off_when_nobody_takes_the_page(self) -> None:
        database = Database()
        async with aclosing(Readings(SERIES, QUERY, database.open_pages).pages()) as pages:
            await anext(pages)
            await anext(pages)
            database.go_on.clear()
            await database.has_begun(3)
        assert database.broken_off
        assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"read the next page of an answer"})

    async def test_tells_its_errors_when_the_page_is_asked_for(self) -> None:
        database = Database()
        async with aclosing(Readings(SERIES, QUERY, database.open_pages).pages()) as pages:
            await anext(pages)
            await anext(pages)
            database.error = TooSlowError("it takes too long")
            await database.has_begun(3)
            with pytest.raises(TooSlowError):
                await anext(pages)
