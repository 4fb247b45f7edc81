"""Readings of a query: rows of a device and a time with a column for each metric, read in pages of columns."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Final, Protocol

from sens_platform_api.measurements.columns import Column, Columns
from sens_platform_api.measurements.query import RESOLUTION, Position, QueriedSeries, Query, remaining
from sens_platform_api.measurements.repository import QueriedDevice, ReadingPage
from sens_platform_api.measurements.spans import Order, Span
from sens_platform_api.parameters import EPOCH

PAGE_CELLS: Final = 131_072
"""Numbers that a page has at most, with its times and devices: some MB, and some 20 ms of the database."""
MIN_PAGE_ROWS: Final = 64
PAGE_TEXT_BYTES: Final = 1 << 20
"""Bytes of texts that a page has at most, and those of one reading more."""


class ReadingPages(Protocol):
    """Reads pages of readings."""

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
        """Return the first readings of devices that have any of the metrics, by time and then by device.

        Args:
            devices: At least one.
            columns: The metrics, at least one.
            spans: The time range of each device.
            order: By time.
            limit: How many at most.
            text_bytes: Bytes of texts at most, and those of one reading more.
        """


class OpensPages(Protocol):
    """Gives what reads pages within one transaction."""

    def __call__(self, *, patient: bool) -> AbstractAsyncContextManager[ReadingPages]: ...


class Readings:
    """The readings of a query.

    Attributes:
        devices: By name.
        columns: By name and kind.
        next: The position to go on from, once all were read and the limit ended them.
    """

    def __init__(self, series: Sequence[QueriedSeries], query: Query, open_pages: OpensPages) -> None:
        self.devices = sorted({QueriedDevice(one.device_id, one.device) for one in series}, key=lambda each: each.name)
        self.columns = sorted({Column(*one[2:]) for one in series}, key=lambda each: each[1:])
        self.next: Position | None = None
        self._query = query
        self._open_pages = open_pages

    async def pages(self) -> AsyncGenerator[Columns]:
        """Yield the readings by time, and of equal times by device.

        Between two pages nothing is held: whoever reads slowly takes no connection from others. Each page is a snapshot of its own.

        Raises:
            TenantBusyError: Of the first page: the tenant's other requests use all of its connections.
        """
        query = self._query
        spans = [self._remaining(device) for device in self.devices]
        rows = min(max(MIN_PAGE_ROWS, PAGE_CELLS // (len(self.columns) + 2)), query.limit)
        left, patient, complete = query.limit, False, not self.columns
        last: tuple[datetime, int] | None = None
        while not complete and left:
            page = await self._read(spans, min(rows, left), patient=patient)
            for part in page.parts:
                yield part
                left -= len(part)
                last = EPOCH + timedelta(microseconds=part.times[-1]), part.places[-1]
            patient, complete = True, page.complete
            if last is not None:
                spans = [self._after(*last, place) for place in range(len(self.devices))]
        if last is not None and not complete and (await self._read(spans, 1, patient=True)).parts:
            time, place = last
            self.next = Position(time, (self.devices[place].name, *self.columns[-1][1:]), query.span)

    async def _read(self, spans: Sequence[Span], limit: int, *, patient: bool) -> ReadingPage:
        async with self._open_pages(patient=patient) as pages:
            return await pages.readings(
                self.devices, self.columns, spans, order=self._query.order, limit=limit, text_bytes=PAGE_TEXT_BYTES
            )

    def _remaining(self, device: QueriedDevice) -> Span:
        if not self.columns:
            return self._query.span
        last = self.columns[-1]
        return remaining(self._query, QueriedSeries(device.id, device.name, last.id, last.name, last.kind))

    def _after(self, time: datetime, place: int, device: int) -> Span:
        """Return what is left of a device's range after a reading of the device at a place."""
        start, end = self._query.span
        following = time + RESOLUTION
        if self._query.order == "asc":
            return Span(following if device <= place else time, end)
        return Span(start, time if device <= place else following)
