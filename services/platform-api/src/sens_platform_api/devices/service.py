"""Devices: listing, one, the latest values."""

from typing import NamedTuple, Protocol

from sens_platform_api.devices.repository import Device, LatestOfDevice
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import canonical_device


class Devices(Protocol):
    """The devices of one tenant."""

    async def by_name(self, *, after: str, prefix: str, limit: int) -> list[Device]:
        """Return devices by name: those after a name, whose names begin with the prefix."""

    async def latest(self, name: str) -> LatestOfDevice | None:
        """Return a device with its latest values, None when the tenant has none with this name."""


class DevicePage(NamedTuple):
    """Some devices, and the name after which the others are; None at the end."""

    devices: list[Device]
    after: str | None


async def list_page(devices: Devices, *, after: str, prefix: str, limit: int) -> DevicePage:
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
