"""Fills a database with what reads are measured on: a device with many readings, one with decades of them, and a fleet."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

from sens_common.database import connect
from tools.stack.path import Stack

TENANT: Final = "bench"
MINUTES: Final = "minutes"
"""Device with a reading a minute up to now."""
DECADES: Final = "decades"
"""Device with a reading a day over all years."""
MONTH: Final = "month"
"""Device with a reading an hour for a month."""
METRICS: Final = ("battery", "humidity", "pressure", "rssi", "temperature")

_FLEET_READINGS: Final = 24
_STATEMENT_SECONDS: Final = 3600
_TOGETHER: Final = timedelta(days=60)

# Every device has the same set of five numbers. The rollups are told of what is stored.
_REGISTER: Final = """
    WITH metric AS (
        INSERT INTO sens.metrics (tenant_id, name, kind) SELECT t.id, n.name, 'number' FROM sens.tenants t, unnest($2::text[]) AS n (name) WHERE t.name = $1
        RETURNING tenant_id, id
    )
    INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) SELECT tenant_id, array_agg(id ORDER BY id), '{}' FROM metric GROUP BY tenant_id
    RETURNING id
"""
_DEVICES: Final = """
    WITH device AS (
        INSERT INTO sens.devices (tenant_id, name, last_seen) SELECT t.id, n.name, now() FROM sens.tenants t, unnest($2::text[]) AS n (name) WHERE t.name = $1
        RETURNING id
    ), days AS (
        INSERT INTO sens.device_metric_sets (device_id, metric_set_id, first_day, last_day)
        SELECT id, $3, ($4::timestamptz AT TIME ZONE 'UTC')::date, ($5::timestamptz AT TIME ZONE 'UTC')::date FROM device
    )
    SELECT array_agg(id ORDER BY id) FROM device
"""
_READINGS: Final = """
    INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers)
    SELECT device, $2, at, ARRAY[3.6 + n % 100 / 1e3, 40 + n % 300 / 10.0, 1000 + sin(n / 1e4) * 20, -40 - n % 60, 20 + sin(n / 1440.0) * 10]
    FROM unnest($1::int[]) device CROSS JOIN LATERAL (
        SELECT at, (extract(epoch FROM at) / extract(epoch FROM $5::interval))::bigint AS n FROM generate_series($3::timestamptz, $4, $5) AS s (at)
    ) AS series
"""
_NOTE: Final = """
    SELECT sens.note_changes(array_agg(device), array_agg($2::timestamptz), array_agg($3::timestamptz)) FROM unnest($1::int[]) AS device
"""
_JOBS: Final = (
    "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_schema = 'sens' AND hypertable_name = 'readings'"
)


class Size(NamedTuple):
    """How much is filled in.

    Attributes:
        readings: Of the device `MINUTES`.
        years: Of the device `DECADES`.
        devices: Of the fleet, with a reading an hour of the last day.
    """

    readings: int
    years: int
    devices: int


def fill(stack: Stack, size: Size) -> None:
    """Fill the database; on TimescaleDB, what is old enough goes to the columnstore."""
    asyncio.run(_fill(stack, size, datetime.now(UTC).replace(second=0, microsecond=0)))


async def _fill(stack: Stack, size: Size, now: datetime) -> None:
    database = await connect(stack.database, "bench")
    try:
        metric_set = await database.fetchval(_REGISTER, TENANT, METRICS)
        minute, hour, day = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
        fleet = [f"fleet-{number:05d}" for number in range(size.devices)]
        for names, first, step in (
            ([DECADES], now - day * round(365.25 * size.years), day),
            ([MINUTES], now - minute * (size.readings - 1), minute),
            ([MONTH], now - hour * (24 * 30 - 1), hour),
            (fleet, now - hour * (_FLEET_READINGS - 1), hour),
        ):
            await database.execute(
                "SELECT sens.ensure_reading_partitions($1, $2)", first, now, timeout=_STATEMENT_SECONDS
            )
            ids = await database.fetchval(_DEVICES, TENANT, names, metric_set, first, now)
            begin = first
            while begin <= now:
                end = begin + max(_TOGETHER, step * 1000) // step * step
                await database.execute(
                    _READINGS, ids, metric_set, begin, min(end - step, now), step, timeout=_STATEMENT_SECONDS
                )
                begin = end
            if step < day:  # nobody reads aggregates of the others
                await database.execute(_NOTE, ids, first, now + step)
        await _tidy(database)
    finally:
        await database.close()


async def _tidy(database: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Do now what the database would do in the middle of the measurement."""
    if await database.fetchval("SELECT kind = 'timescaledb' FROM sens.storage"):
        for job in await database.fetch(_JOBS):
            await database.execute("CALL public.run_job($1)", job["job_id"], timeout=_STATEMENT_SECONDS)
    await database.execute("VACUUM (ANALYZE)", timeout=_STATEMENT_SECONDS)
    await database.execute("CHECKPOINT", timeout=_STATEMENT_SECONDS)
