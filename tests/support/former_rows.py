"""Databases as versions before left them, with a row for each value."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy

from sens_common.migrations import migrate
from sens_common.moving import MOVE_VERSION
from sens_common.settings import DatabaseSettings
from support.databases import Databases

type Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

TABLES: Final = ("measurements", "text_measurements")


class Series(NamedTuple):
    """The measurements of a metric of a device.

    Attributes:
        tenant: Name of the tenant.
        device: Name of the device.
        metric: Name of the metric.
        kind: Kind of the metric.
    """

    tenant: str
    device: str
    metric: str
    kind: str


type Values = Mapping[Series, Mapping[datetime, float | str]]
"""Values by series and time; those of booleans are 0 and 1."""


async def migrate_before_move(settings: DatabaseSettings) -> None:
    """Bring an empty database to the last version that took a row for each value."""
    await migrate(settings, before=MOVE_VERSION)


@pytest.fixture
def former_database(databases: Databases) -> Iterator[DatabaseSettings]:
    """A database with the schema of the last version that took a row for each value."""
    with databases.new(migrate_before_move) as database:
        yield database


async def allow_former_rows(connection: Connection, times: Iterable[datetime]) -> None:
    """Let the old tables take rows of these times, whatever the version of the database."""
    if await connection.fetchval("SELECT to_regclass('sens.former_devices') IS NOT NULL"):
        for table in TABLES:
            await connection.execute(f"ALTER TABLE sens.{table} DISABLE TRIGGER refuse_former_rows")
        await connection.execute(
            "INSERT INTO sens.former_devices (device_id) SELECT id FROM sens.devices ON CONFLICT DO NOTHING"
        )
    if await connection.fetchval("SELECT kind FROM sens.storage") != "postgresql":
        return
    months = {(at.astimezone(UTC).year, at.astimezone(UTC).month) for at in times}
    for year, month in sorted(months):
        first, past = (
            datetime(year + (number > 12), (number - 1) % 12 + 1, 1, tzinfo=UTC) for number in (month, month + 1)
        )
        for table in TABLES:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS sens.{table}_{year:04}_{month:02} PARTITION OF sens.{table}"
                f" FOR VALUES FROM ('{first.isoformat()}') TO ('{past.isoformat()}')"
            )


async def store_former(connection: Connection, values: Values) -> dict[Series, tuple[int, int]]:
    """Store values with a row for each; return the ids of device and metric of each series."""
    ids: dict[Series, tuple[int, int]] = {}
    for series in sorted(values):
        tenant = await _id(connection, "tenants", name=series.tenant)
        device = await _id(connection, "devices", tenant_id=tenant, name=series.device)
        metric = await _id(connection, "metrics", tenant_id=tenant, name=series.metric, kind=series.kind)
        ids[series] = device, metric
    await allow_former_rows(connection, {at for times in values.values() for at in times})
    for series, (device, metric) in ids.items():
        await connection.copy_records_to_table(
            "text_measurements" if series.kind == "text" else "measurements",
            schema_name="sens",
            records=[(device, metric, at, value) for at, value in sorted(values[series].items())],
        )
    return ids


async def _id(connection: Connection, table: str, **columns: object) -> int:
    names = ", ".join(columns)
    numbers = ", ".join(f"${index}" for index in range(1, len(columns) + 1))
    where = " AND ".join(f"{name} = ${index}" for index, name in enumerate(columns, 1))
    await connection.execute(
        f"INSERT INTO sens.{table} ({names}) VALUES ({numbers}) ON CONFLICT DO NOTHING",  # noqa: S608 - names of this file
        *columns.values(),
    )
    found: int = await connection.fetchval(f"SELECT id FROM sens.{table} WHERE {where}", *columns.values())  # noqa: S608 - names of this file
    return found
