"""A tenant's devices in the database."""

from datetime import datetime
from typing import Literal, NamedTuple

from sens_platform_api.postgresql import Connection, TenantDatabase

type Kind = Literal["number", "boolean", "text"]
type Value = float | bool | str


class Device(NamedTuple):
    """A device of a tenant."""

    id: int
    name: str
    created_at: datetime


class Series(NamedTuple):
    """One metric of a device: a name with values of one kind."""

    id: int
    name: str
    kind: Kind


class Latest(NamedTuple):
    """The last measured value of a series."""

    series: Series
    measured_at: datetime
    value: Value


class LatestOfDevice(NamedTuple):
    """A device, and the last measured value of each of its series, by name and kind."""

    device: Device
    latest: list[Latest]


class TenantDevices:
    """The devices of one tenant."""

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database

    async def by_name(self, *, after: str, prefix: str, limit: int) -> list[Device]:
        """Return devices by name: those after a name, whose names begin with the prefix."""
        async with self._database.transaction() as connection:
            return await list_devices(connection, after=after, prefix=prefix, limit=limit)

    async def latest(self, name: str) -> LatestOfDevice | None:
        """Return a device with its latest values, None when the tenant has none with this name."""
        async with self._database.transaction() as connection:
            device = await find_device(connection, name)
            if device is None:
                return None
            return LatestOfDevice(device, await latest_values(connection, device.id))


async def list_devices(connection: Connection, *, after: str, prefix: str, limit: int) -> list[Device]:
    """Return devices by name: those after a name, whose names begin with the prefix."""
    rows = await connection.fetch(
        """
        SELECT id, name, created_at FROM sens.devices
        WHERE name COLLATE "C" > $1 AND starts_with(name, $2)
        ORDER BY name COLLATE "C" LIMIT $3
        """,
        after,
        prefix,
        limit,
    )
    return [Device(*row) for row in rows]


async def find_device(connection: Connection, name: str) -> Device | None:
    """Return a device, None when the tenant has none with this name."""
    row = await connection.fetchrow("SELECT id, name, created_at FROM sens.devices WHERE name = $1", name)
    return None if row is None else Device(*row)


async def list_series(connection: Connection, device_id: int) -> list[Series]:
    """Return the series of a device, by name and kind."""
    rows = await connection.fetch("SELECT metric_id, name, kind FROM sens.device_series($1)", device_id)
    return sorted((Series(*row) for row in rows), key=lambda series: (series.name, series.kind))


async def latest_values(connection: Connection, device_id: int) -> list[Latest]:
    """Return the last measured value of each series of a device, by name and kind."""
    rows = await connection.fetch(
        "SELECT metric_id, name, kind, ts, number, string FROM sens.latest_values($1)", device_id
    )
    found = [
        Latest(Series(metric_id, name, kind), measured_at, _value(kind, number, string))
        for metric_id, name, kind, measured_at, number, string in rows
    ]
    return sorted(found, key=lambda latest: (latest.series.name, latest.series.kind))


def _value(kind: Kind, number: float, string: str) -> Value:
    match kind:
        case "text":
            return string
        case "boolean":
            return bool(number)
        case "number":
            return number
