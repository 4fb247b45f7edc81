"""What live values mean: their units, and the calibrations by which stored values are read.

Stored values are calibrated in the database (``sens.calibrated_at``, migration 0022), live ones here; a law holds both to the same.
"""

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from sens_common.live import LiveReading

KNOWN_SECONDS: Final = 5.0
"""A change of a calibration, a profile or a unit is known within this time."""
_REMEMBERED_DEVICES: Final = 20_000
_SMALLEST: Final = 1e-290
_LARGEST: Final = 1e290


class Meaning(NamedTuple):
    """How values of a metric of a device are read.

    Attributes:
        unit: UCUM code, None where none is known.
        edges: From these times on, microseconds since the epoch, the scale and the addend at the same index are valid.
        scales: What values are multiplied by.
        addends: What is added then.
    """

    unit: str | None = None
    edges: Sequence[int] = ()
    scales: Sequence[float] = ()
    addends: Sequence[float] = ()

    def calibrated(self, value: float, measured_at: int) -> float:
        """Return a value as it is read; one whose product could be no float stays as it is.

        >>> Meaning(edges=[100], scales=[2.0], addends=[1.0]).calibrated(20.0, 100)
        41.0
        """
        index = bisect_right(self.edges, measured_at) - 1
        if index < 0 or not (value == 0 or _SMALLEST <= abs(value) <= _LARGEST):
            return value
        return value * self.scales[index] + self.addends[index]


NO_MEANING: Final = Meaning()

type DeviceMeanings = Mapping[str, Meaning]
"""By the names of metrics."""


class StoredMeanings(Protocol):
    """The meanings in the database."""

    async def of_devices(self, tenant_id: int, devices: Collection[str]) -> Mapping[str, DeviceMeanings]:
        """Return what is known of devices of a tenant, by their names.

        Raises:
            UnavailableError: The database can't be used.
            TooSlowError: It does not answer in time.
        """


class TenantMeanings:
    """The meanings of a tenant's live values; each device is asked for again after a few seconds."""

    def __init__(self, stored: StoredMeanings, tenant_id: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stored = stored
        self._tenant_id = tenant_id
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, DeviceMeanings]] = OrderedDict()

    async def of(self, readings: Sequence[LiveReading]) -> list[Meaning]:
        """Return the meaning of each reading's value; raises as `StoredMeanings.of_devices`."""
        now = self._clock()
        devices = {reading.device for reading in readings}
        missing = [each for each in devices if each not in self._known or self._known[each][0] <= now]
        if missing:
            found = await self._stored.of_devices(self._tenant_id, missing)
            for device in missing:
                self._known[device] = now + KNOWN_SECONDS, found.get(device, {})
                self._known.move_to_end(device)
        meanings = [self._known[reading.device][1].get(reading.metric, NO_MEANING) for reading in readings]
        while len(self._known) > _REMEMBERED_DEVICES:
            self._known.popitem(last=False)
        return meanings


def as_read(reading: LiveReading, meaning: Meaning) -> LiveReading:
    """Return a reading with its value as it is read; booleans and texts are not calibrated."""
    if not meaning.edges or type(reading.value) is not float:
        return reading
    value = meaning.calibrated(reading.value, reading.measured_at)
    return (
        reading if value == reading.value else LiveReading(reading.device, reading.metric, reading.measured_at, value)
    )
