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


# The primary key (device_id, metric_id, ts) is walked from metric to metric, one look into the index for each ("loose index scan",
# PostgreSQL wiki), and each metric's last time is one look more: months of partitions cost no more than their number.
_SERIES = """
    WITH RECURSIVE present AS (
        (SELECT metric_id FROM sens.{table} WHERE device_id = $1 ORDER BY metric_id LIMIT 1)
        UNION ALL
        SELECT (SELECT m.metric_id FROM sens.{table} m WHERE m.device_id = $1 AND m.metric_id > present.metric_id
                ORDER BY m.metric_id LIMIT 1)
        FROM present WHERE present.metric_id IS NOT NULL
    )
    SELECT metrics.id, metrics.name, metrics.kind
    FROM present JOIN sens.metrics ON metrics.id = present.metric_id
"""
_LATEST = """
    WITH series AS ({series})
    SELECT series.id, series.name, series.kind, latest.ts, latest.value
    FROM series CROSS JOIN LATERAL (
        SELECT m.ts, m.value FROM sens.{table} m
        WHERE m.device_id = $1 AND m.metric_id = series.id ORDER BY m.ts DESC LIMIT 1
    ) latest
"""
_TABLES = ("tenant_measurements", "tenant_text_measurements")
_SERIES_QUERIES = tuple(_SERIES.format(table=table) for table in _TABLES)
_LATEST_QUERIES = tuple(_LATEST.format(table=table, series=_SERIES.format(table=table)) for table in _TABLES)


async def list_series(connection: Connection, device_id: int) -> list[Series]:
    """Return the series of a device, by name and kind."""
    found = [Series(*row) for query in _SERIES_QUERIES for row in await connection.fetch(query, device_id)]
    return sorted(found, key=lambda series: (series.name, series.kind))


async def latest_values(connection: Connection, device_id: int) -> list[Latest]:
    """Return the last measured value of each series of a device, by name and kind."""
    found = []
    for query in _LATEST_QUERIES:
        for metric_id, name, kind, measured_at, value in await connection.fetch(query, device_id):
            found.append(
                Latest(Series(metric_id, name, kind), measured_at, bool(value) if kind == "boolean" else value)
            )
    return sorted(found, key=lambda latest: (latest.series.name, latest.series.kind))
