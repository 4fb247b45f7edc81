"""A tenant's devices in the database."""

from datetime import datetime
from itertools import accumulate
from typing import Literal, NamedTuple

from sens_platform_api.postgresql import Connection, TenantDatabase

type Kind = Literal["number", "boolean", "text"]
type Value = float | bool | str


class Device(NamedTuple):
    """A device of a tenant.

    Attributes:
        last_seen: When the platform last received a message of it, up to a minute old; None when that is not known.
    """

    id: int
    name: str
    created_at: datetime
    last_seen: datetime | None = None


class Series(NamedTuple):
    """One metric of a device: a name with values of one kind.

    Attributes:
        unit: UCUM code by the device's profile, None where none is known.
    """

    id: int
    name: str
    kind: Kind
    unit: str | None = None


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

    def with_calibration(self, setting: str) -> "TenantDevices":
        """Return them with values by other calibrations than those that hold: ``none``, or those that were known at a time."""
        return TenantDevices(self._database.with_calibration(setting))

    async def by_name(self, *, after: str, prefix: str, limit: int) -> list[Device]:
        """Return devices by name: those after a name, whose names begin with the prefix."""
        async with self._database.transaction() as connection:
            return await list_devices(connection, after=after, prefix=prefix, limit=limit)

    async def latest(self, name: str) -> LatestOfDevice | None:
        """Return a device with its latest values, None when the tenant has none with this name."""
        async with self._database.transaction() as connection:
            device = await find_device(connection, name)
            return None if device is None else (await _latest_of(connection, [device]))[0]

    async def latest_by_name(self, *, after: str, prefix: str, limit: int, value_limit: int) -> list[LatestOfDevice]:
        """Return devices with their latest values, by name: those after a name, whose names begin with the prefix.

        There are fewer than the limit where more would have more than `value_limit` values, but one if there is one.
        """
        async with self._database.transaction() as connection:
            devices = await list_devices(connection, after=after, prefix=prefix, limit=limit)
            counts = await connection.fetch("SELECT * FROM sens.element_counts($1)", [device.id for device in devices])
            elements = {record["device_id"]: record["elements"] for record in counts}
            totals = accumulate(elements.get(device.id, 0) for device in devices)
            fitting = sum(1 for total in totals if total <= value_limit)
            return await _latest_of(connection, devices[: max(1, fitting)])


async def list_devices(connection: Connection, *, after: str, prefix: str, limit: int) -> list[Device]:
    """Return devices by name: those after a name, whose names begin with the prefix."""
    rows = await connection.fetch(
        """
        SELECT id, name, created_at, last_seen FROM sens.devices
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
    row = await connection.fetchrow("SELECT id, name, created_at, last_seen FROM sens.devices WHERE name = $1", name)
    return None if row is None else Device(*row)


async def list_series(connection: Connection, device_id: int) -> list[Series]:
    """Return the series of a device, by name and kind."""
    rows = await connection.fetch(
        """
        SELECT s.metric_id, s.name, s.kind, u.unit FROM sens.device_series($1) s
        LEFT JOIN sens.units_of_devices(ARRAY[$1]) u ON u.metric = s.name AND s.kind = 'number'
        """,
        device_id,
    )
    return sorted((Series(*row) for row in rows), key=lambda series: (series.name, series.kind))


async def _latest_of(connection: Connection, devices: list[Device]) -> list[LatestOfDevice]:
    """Return devices with the last measured value of each of their series, by name and kind."""
    records = await connection.fetch(
        """
        SELECT l.device_id, l.metric_id, l.name, l.kind, l.ts, l.number, l.string, u.unit FROM sens.latest_of_devices($1) l
        LEFT JOIN sens.units_of_devices($1) u ON u.device_id = l.device_id AND u.metric = l.name AND l.kind = 'number'
        ORDER BY l.device_id, l.name COLLATE "C", l.kind
        """,
        [device.id for device in devices],
    )
    latest: dict[int, list[Latest]] = {device.id: [] for device in devices}
    series: dict[tuple[int, str | None], Series] = {}
    for device_id, metric_id, name, kind, measured_at, number, string, unit in records:
        key = metric_id, unit
        one = series.get(key) or series.setdefault(key, Series(metric_id, name, kind, unit))
        latest[device_id].append(Latest(one, measured_at, _value(kind, number, string)))
    return [LatestOfDevice(device, latest[device.id]) for device in devices]


def _value(kind: Kind, number: float, string: str) -> Value:
    match kind:
        case "text":
            return string
        case "boolean":
            return bool(number)
        case "number":
            return number
