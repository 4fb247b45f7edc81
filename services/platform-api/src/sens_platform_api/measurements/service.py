"""Measurements: a query is read series by series, and its rows are merged by time."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, Protocol

from sens_platform_api.errors import InvalidRequestError, NotFoundError, NumberTooLargeError
from sens_platform_api.measurements.merging import merged
from sens_platform_api.measurements.query import Position, QueriedSeries, Query, Source
from sens_platform_api.measurements.readings import ReadingPages, Readings
from sens_platform_api.measurements.repository import PageKind, Row
from sens_platform_api.measurements.series import Pages, SeriesReader
from sens_platform_api.measurements.shapes import MOST_SHAPE_VALUES, ShapeReader
from sens_platform_api.parameters import canonical_device

MAX_SERIES: Final = 100
"""Series that one answer may be merged of."""
MAX_COLUMNS: Final = 1000
"""Series that one answer of columns may be made of."""
MAX_NAMES_TOLD: Final = 20
"""Metrics that an error names."""


class AnyPages(Pages, ReadingPages, Protocol):
    """Reads pages of series, and pages of readings."""


class Measurements(Protocol):
    """The measurements of one tenant."""

    async def series(self, devices: Sequence[str]) -> Mapping[str, Sequence[QueriedSeries]]:
        """Return the series of devices, by name and kind; devices that the tenant does not have are left out."""

    def with_calibration(self, setting: str) -> "Measurements":
        """Return them by other calibrations than those that hold: ``none``, or those that were known at a time."""

    def pages(self, kind: PageKind, *, patient: bool) -> AbstractAsyncContextManager[AnyPages]:
        """Give what reads pages within one transaction; a patient one waits for the tenant's turn for as long as it takes."""


class Answer:
    """The answer to a query.

    Attributes:
        devices: The devices' canonical names.
        series: What its rows are of.
        next: The position to go on from, once all rows were read and the limit ended them.
    """

    def __init__(
        self,
        devices: Sequence[str],
        series: Sequence[QueriedSeries],
        query: Query,
        readers: Sequence[SeriesReader | ShapeReader],
        measurements: Measurements,
    ) -> None:
        self.devices = devices
        self.series = series
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
                self.next = Position(previous.time, previous.series.key, query.span)
                return
            yield row
            previous = row
            count += 1

    async def _fill(self, readers: Sequence[SeriesReader | ShapeReader], *, patient: bool = True) -> None:
        """Read a page of each series that runs low, in one transaction."""
        low = [reader for reader in readers if reader.runs_low]
        while low:
            try:
                plain = self._query.buckets is None and self._query.shape_points is None
                kind: PageKind = "raw" if plain else "aggregates"
                async with self._measurements.pages(kind, patient=patient) as pages:
                    while low:
                        await low[-1].fill(pages)
                        low.pop()
            except NumberTooLargeError:
                if low[-1].exact:
                    raise
                low[-1].exact = True


async def read(measurements: Measurements, devices: Sequence[str], query: Query) -> Answer:
    """Return the answer to a query.

    Raises:
        NotFoundError: The tenant has not all of the devices, or none of them has a metric.
        InvalidRequestError: The aggregates do not fit the metrics, or there are too many series.
        TenantBusyError: The tenant's other requests use all of its connections.
    """
    names, series = await _series(measurements, devices, query, MAX_SERIES)
    readers: list[SeriesReader | ShapeReader] = [
        SeriesReader(each, query, len(series)) if query.shape_points is None else ShapeReader(each, query)
        for each in series
    ]
    return Answer(names, series, query, readers, measurements)


async def read_readings(measurements: Measurements, devices: Sequence[str], query: Query) -> Readings:
    """Return the stored values of a query as readings; raises as `read`."""
    _, series = await _series(measurements, devices, query, MAX_COLUMNS)
    return Readings(series, query, partial(measurements.pages, "raw"))


async def read_values(measurements: Measurements, devices: Sequence[str], query: Query) -> Readings:
    """Return the stored values of a query, which limits these, as readings; raises as `read`."""
    _, series = await _series(measurements, devices, query, MAX_SERIES)
    return Readings(series, query, partial(measurements.pages, "raw"), of_values=True)


async def _series(
    measurements: Measurements, devices: Sequence[str], query: Query, most: int
) -> tuple[list[str], list[QueriedSeries]]:
    """Return the canonical names of devices, and those of their series that a query selects."""
    names = sorted({canonical_device(device) for device in devices})
    found = await measurements.series(names)
    missing = [name for name in names if name not in found]
    if missing:
        raise NotFoundError(f"there is no device {told(missing)}")
    return names, selected(names, [one for name in names for one in found[name]], query, most)


def selected(
    devices: Sequence[str], series: Sequence[QueriedSeries], query: Query, most: int = MAX_SERIES
) -> list[QueriedSeries]:
    """Return those series of devices that a query selects, so many at most.

    Raises:
        NotFoundError: No device has such a metric.
        InvalidRequestError: There are too many series, or an aggregate other than count of texts.
    """
    names = {one.name for one in series}
    unknown = [metric for metric in query.metrics if metric not in names]
    if unknown:
        have, they = (
            ("the device {} has no", "it has") if len(devices) == 1 else ("none of the devices {} has a", "they have")
        )
        raise NotFoundError(
            f"{have.format(told(devices))} metric {told(unknown)}; {they} {told(sorted(names)) or 'none'}"
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
    if query.shape_points is not None:
        wanted = [one for one in wanted if one.kind != "text"]
        if len(wanted) * query.shape_points > MOST_SHAPE_VALUES:
            raise InvalidRequestError.in_query(
                "points",
                f"an answer has {MOST_SHAPE_VALUES} values at most with points_method=lttb, and these are {len(wanted)} series; ask for fewer points"
                " or name the metrics that you want",
            )
    if len(wanted) > most:
        raise InvalidRequestError.in_query(
            "metric",
            f"an answer is made of {most} series at most, a metric of a device each, and these are {len(wanted)}; name the metrics that you want"
            + (", or fewer devices" if len(devices) > 1 else ""),
        )
    return wanted


def told(names: Sequence[str]) -> str:
    """Return the first of some names, for an error."""
    return ", ".join(names[:MAX_NAMES_TOLD]) + (", …" if len(names) > MAX_NAMES_TOLD else "")
