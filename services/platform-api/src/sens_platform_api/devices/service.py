"""Devices: listing, one, the latest values."""

from typing import NamedTuple

from sens_platform_api.database import Pool, tenant_transaction
from sens_platform_api.devices import repository
from sens_platform_api.devices.repository import Device, Latest
from sens_platform_api.errors import NotFoundError
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.parameters import canonical_device


class DevicePage(NamedTuple):
    """Some devices, and the name to go on after; None at the end."""

    devices: list[Device]
    last: str | None


async def list_page(pool: Pool, owner: KeyOwner, *, after: str, prefix: str, limit: int) -> DevicePage:
    """Return devices by name."""
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        devices = await repository.list_devices(connection, after=after, prefix=prefix, limit=limit + 1)
    more = len(devices) > limit
    return DevicePage(devices[:limit], devices[limit - 1].name if more else None)


async def latest(pool: Pool, owner: KeyOwner, device: str) -> tuple[Device, list[Latest]]:
    """Return a device and the last measured value of each of its series.

    Raises:
        NotFoundError: The tenant has no such device.
    """
    name = canonical_device(device)
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        found = await repository.find_device(connection, name)
        if found is None:
            raise NotFoundError(f"there is no device {name}")
        return found, await repository.latest_values(connection, found.id)
