"""Measurements: a query is read series by series, and its rows are merged by time."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from sens_platform_api.devices.repository import Series
from sens_platform_api.errors import InvalidRequestError, NotFoundError, NumberTooLargeError
from sens_platform_api.measurements.merging import merged
from sens_platform_api.measurements.query import Position, Query, Source
from sens_platform_api.measurements.repository import DeviceSeries, PageKind, Row
from sens_platform_api.measurements.series import Pages, SeriesReader
from sens_platform_api.parameters import canonical_device

MAX_SERIES: Final = 100
"""Series that one answer may be merged of."""
MAX_NAMES_TOLD: Final = 20
"""Metrics that an error names."""


class Measurements(Protocol):
    """The measurements of one tenant."""

    async def series(self, device: str) -> DeviceSeries | None:
        """Return the series of a device, None when the tenant has none with this name."""

    def pages(self, kind: PageKind, *, patient: bool) -> AbstractAsyncContextManager[Pages]:
        """Give what reads pages within one transaction; a patient one waits for the tenant's turn for as long as it takes."""


class Answer:
    """The answer to a query.

    Attributes:
        device: The device's canonical name.
        next: The position to go on from, once all rows were read and the limit ended them.
    """

    def __init__(self, device: str, query: Query, readers: Sequence[SeriesReader], measurements: Measurements) -> None:
        self.device = device
        self.next: Position | None = None
        self._query = query
        self._readers = readers
        self._measurements = measurements

    @property
    def sources(self) -> list[Source]:
        """What the aggregates that were read so far are made of, the coarsest first."""
        return sorted({source for reader in self._readers for source in reader.sources})

    @property
    def notes(self) -> list[str]:
        """What to know about the rows that were read so far."""
        if any(reader.too_large for reader in self._readers):
            return ["null stands for aggregates that are larger than a number can be, about 1.8e308"]
        return []

    async def rows(self) -> AsyncGenerator[Row]:
        """Yield the rows by time.

        They are read in pages, and between two pages nothing is held: whoever reads slowly takes no connection from others. Each page is a
        snapshot of its own, so values that are stored meanwhile may or may not be in the answer.

        Raises:
            TenantBusyError: Of the first page: the tenant's other requests use all of its connections.
        """
        query = self._query
        await self._fill(self._readers, patient=False)
        count = 0
        previous: Row | None = None
        async for row in merged(self._readers, self._fill, descending=query.order == "desc"):
            if count == query.limit and previous is not None:
                self.next = Position(previous.time, (previous.series.name, previous.series.kind), query.span)
                return
            yield row
            previous = row
            count += 1

    async def _fill(self, readers: Sequence[SeriesReader], *, patient: bool = True) -> None:
        """Read a page of each series that runs low, in one transaction."""
        low = [reader for reader in readers if reader.runs_low]
        while low:
            try:
                kind: PageKind = "raw" if self._query.buckets is None else "aggregates"
                async with self._measurements.pages(kind, patient=patient) as pages:
                    while low:
                        await low[-1].fill(pages)
                        low.pop()
            except NumberTooLargeError:
                if low[-1].exact:
                    raise
                low[-1].exact = True


async def read(measurements: Measurements, device: str, query: Query) -> Answer:
    """Return the answer to a query.

    Raises:
        NotFoundError: The tenant has no such device, or the device no such metric.
        InvalidRequestError: The aggregates do not fit the metrics, or there are too many series.
        TenantBusyError: The tenant's other requests use all of its connections.
    """
    name = canonical_device(device)
    found = await measurements.series(name)
    if found is None:
        raise NotFoundError(f"there is no device {name}")
    series = selected(name, found.series, query)
    readers = [SeriesReader(found.device_id, each, query, len(series)) for each in series]
    return Answer(name, query, readers, measurements)


def selected(device: str, series: list[Series], query: Query) -> list[Series]:
    """Return the series that a query selects.

    Raises:
        NotFoundError: The device has no such metric.
        InvalidRequestError: There are too many series, or an aggregate other than count of texts.
    """
    names = {one.name for one in series}
    unknown = [metric for metric in query.metrics if metric not in names]
    if unknown:
        known = ", ".join(sorted(names)[:MAX_NAMES_TOLD]) + (", …" if len(names) > MAX_NAMES_TOLD else "")
        raise NotFoundError(
            f"the device {device} has no metric {', '.join(unknown[:MAX_NAMES_TOLD])}; it has {known or 'none'}"
        )
    wanted = [one for one in series if not query.metrics or one.name in query.metrics]
    if query.aggregates and "count" not in query.aggregates:
        # Texts can only be counted. A metric that also has numbers is averaged without its texts.
        calculable = {one.name for one in wanted if one.kind != "text"}
        texts = [metric for metric in query.metrics if metric not in calculable]
        if texts:
            raise InvalidRequestError.in_query(
                "aggregate", f"{texts[0]} has texts, which can only be counted: aggregate=count"
            )
        wanted = [one for one in wanted if one.kind != "text"]
    if len(wanted) > MAX_SERIES:
        raise InvalidRequestError.in_query(
            "metric", f"the device has more than {MAX_SERIES} metrics; name those that you want"
        )
    return wanted
