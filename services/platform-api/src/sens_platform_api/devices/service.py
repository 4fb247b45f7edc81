"""Devices: listing, one, the latest values."""

from typing import Final, NamedTuple, Protocol

from sens_platform_api.devices.repository import Device, LatestOfDevice
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import canonical_device

MAX_VALUES: Final = 50_000
"""Latest values on a page of devices; a device that has more is on a page of its own."""


class Devices(Protocol):
    """The devices of one tenant."""

    def with_calibration(self, setting: str) -> "Devices":
        """Return them with values by other calibrations than those that hold: ``none``, or those that were known at a time."""

    async def by_name(self, *, after: str, prefix: str, limit: int) -> list[Device]:
        """Return devices by name: those after a name, whose names begin with the prefix."""

    async def latest(self, name: str) -> LatestOfDevice | None:
        """Return a device with its latest values, None when the tenant has none with this name."""

    async def latest_by_name(self, *, after: str, prefix: str, limit: int, value_limit: int) -> list[LatestOfDevice]:
        """Return devices with their latest values, by name: those after a name, whose names begin with the prefix.

        There are fewer than the limit where more would have more than `value_limit` values, but one if there is one.
        """


class DevicePage[D](NamedTuple):
    """Some devices, and the name after which the others are; None at the end."""

    devices: list[D]
    after: str | None


async def list_page(devices: Devices, *, after: str, prefix: str, limit: int) -> DevicePage[Device]:
    """Return devices by name."""
    found = await devices.by_name(after=after, prefix=prefix, limit=limit + 1)
    return DevicePage(found[:limit], found[limit - 1].name if len(found) > limit else None)


async def latest(devices: Devices, device: str) -> LatestOfDevice:
    """Return a device and the last measured value of each of its series.

    Raises:
        NotFoundError: The tenant has no such device.
    """
    name = canonical_device(device)
    found = await devices.latest(name)
    if found is None:
        raise NotFoundError(f"there is no device {name}")
    return found


async def latest_page(devices: Devices, *, after: str, prefix: str, limit: int) -> DevicePage[LatestOfDevice]:
    """Return devices by name, with the last measured value of each of their series."""
    found = await devices.latest_by_name(after=after, prefix=prefix, limit=limit, value_limit=MAX_VALUES)
    if not found:
        return DevicePage([], None)
    last = found[-1].device.name
    others = await devices.by_name(after=last, prefix=prefix, limit=1)
    return DevicePage(found, last if others else None)
