"""Readings of a query: rows of a device and a time with a column for each metric, read in pages of columns."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
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
VALUES_SHARE: Final = 4
"""Pages are so many times smaller where values are counted: many more of such answers are sent at the same time."""


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


class ReadableReadings(Protocol):
    """Readings of a query."""

    @property
    def devices(self) -> Sequence[QueriedDevice]: ...

    @property
    def columns(self) -> Sequence[Column]: ...

    @property
    def next(self) -> Position | None: ...

    @property
    def units(self) -> Mapping[tuple[str, int], str]: ...

    def pages(self) -> AsyncGenerator[Columns]: ...


class Readings:
    """The readings of a query.

    Attributes:
        devices: By name.
        columns: By name and kind.
        units: UCUM codes by the names of devices and the ids of metrics; those that are known.
        next: The position to go on from, once all were read and the limit ended them.
    """

    def __init__(
        self, series: Sequence[QueriedSeries], query: Query, open_pages: OpensPages, *, of_values: bool = False
    ) -> None:
        """Store what to read.

        Args:
            series: Of all devices.
            query: With a limit of readings, or of values.
            open_pages: Gives what reads pages.
            of_values: Whether the query's limit counts values. There are readings for at least one value more, and whoever takes them counts.
        """
        self.devices = sorted({QueriedDevice(one.device_id, one.device) for one in series}, key=lambda each: each.name)
        self.columns = sorted({Column(one.id, one.name, one.kind) for one in series}, key=lambda each: each[1:])
        self.units = {(one.device, one.id): one.unit for one in series if one.unit is not None}
        self.next: Position | None = None
        self._query = query
        self._open_pages = open_pages
        # The values of the first reading may have been given before, and one value more than the limit tells whether there are more.
        self._limit = query.limit + 2 if of_values else query.limit
        # Where each reading has all values, the first page has all that are asked for.
        self._first = -(-query.limit // max(1, len(self.columns))) + 2 if of_values else query.limit
        self._share = VALUES_SHARE if of_values else 1

    async def pages(self) -> AsyncGenerator[Columns]:
        """Yield the readings by time, and of equal times by device.

        An answer of more than two pages reads the next page while one is taken, and no further: whoever reads slowly takes no connection from
        others. Each page is a snapshot of its own.

        Raises:
            TenantBusyError: Of the first page: the tenant's other requests use all of its connections.
        """
        if not self.columns:
            return
        rows = max(MIN_PAGE_ROWS, PAGE_CELLS // self._share // (len(self.columns) + 2))
        left = self._limit
        spans = [self._remaining(device) for device in self.devices]
        page = await self._read(spans, min(rows, left, self._first), patient=False)
        ahead: asyncio.Task[ReadingPage] | None = None
        reads_ahead = False
        try:
            while page.parts:
                left -= sum(map(len, page.parts))
                time, index = (
                    EPOCH + timedelta(microseconds=page.parts[-1].times[-1]),
                    page.parts[-1].device_indexes[-1],
                )
                spans = [self._after(time, index, device) for device in range(len(self.devices))]
                # After the limit, one reading tells whether there are more.
                following = partial(self._read, spans, min(rows, left) or 1, patient=True)
                if reads_ahead and not page.complete:
                    ahead = asyncio.create_task(following(), name="read the next page of an answer")
                for part in page.parts:
                    yield part
                if page.complete:
                    return
                page = await (ahead or following())
                ahead, reads_ahead = None, True
                if not left:
                    if page.parts:
                        self.next = Position(time, (self.devices[index].name, *self.columns[-1][1:]), self._query.span)
                    return
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _read(self, spans: Sequence[Span], limit: int, *, patient: bool) -> ReadingPage:
        async with self._open_pages(patient=patient) as pages:
            return await pages.readings(
                self.devices,
                self.columns,
                spans,
                order=self._query.order,
                limit=limit,
                text_bytes=PAGE_TEXT_BYTES // self._share or 1,
            )

    def _remaining(self, device: QueriedDevice) -> Span:
        if not self.columns:
            return self._query.span
        last = self.columns[-1]
        return remaining(self._query, QueriedSeries(device.id, device.name, last.id, last.name, last.kind))

    def _after(self, time: datetime, index: int, device: int) -> Span:
        """Return what is left of a device's range after a reading of the device with an index."""
        start, end = self._query.span
        following = time + RESOLUTION
        if self._query.order == "asc":
            return Span(following if device <= index else time, end)
        return Span(start, time if device <= index else following)
