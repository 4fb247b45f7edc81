"""Readings in rows of a metric set, stored straight into the tables."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import asyncpg

from sens_common.database import Connection
from support.stored_rows import Value


async def store_readings(
    connection: Connection,
    tenant: str,
    device: str,
    values: Mapping[str, Value],
    *,
    first: datetime,
    step: timedelta = timedelta(hours=1),
    count: int = 1,
) -> None:
    """Store readings of a device with the same values: devices, metrics, sets and days as the telemetry worker registers them."""
    tenant_id = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = $1", tenant)
    device_id = await connection.fetchval(
        "INSERT INTO sens.devices (tenant_id, name) VALUES ($1, $2)"
        " ON CONFLICT (tenant_id, name) DO UPDATE SET name = excluded.name RETURNING id",
        tenant_id,
        device,
    )
    numbers: list[tuple[int, float]] = []
    texts: list[tuple[int, str]] = []
    for metric, value in values.items():
        kind = "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"
        metric_id = await connection.fetchval(
            "INSERT INTO sens.metrics (tenant_id, name, kind) VALUES ($1, $2, $3)"
            " ON CONFLICT (tenant_id, name, kind) DO UPDATE SET name = excluded.name RETURNING id",
            tenant_id,
            metric,
            kind,
        )
        if isinstance(value, str):
            texts.append((metric_id, value))
        else:
            numbers.append((metric_id, float(value)))
    set_id = await connection.fetchval(
        "INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES ($1, $2, $3)"
        " ON CONFLICT (tenant_id, digest) DO UPDATE SET tenant_id = excluded.tenant_id RETURNING id",
        tenant_id,
        sorted(id_ for id_, _ in numbers),
        sorted(id_ for id_, _ in texts),
    )
    last = first + (count - 1) * step
    await connection.execute("SELECT sens.ensure_reading_partitions($1, $2)", first, last)
    await connection.execute(
        "INSERT INTO sens.device_metric_sets AS s VALUES ($1, $2, $3, $4) ON CONFLICT (device_id, metric_set_id)"
        " DO UPDATE SET first_day = least(s.first_day, excluded.first_day), last_day = greatest(s.last_day, excluded.last_day)",
        device_id,
        set_id,
        first.date(),
        last.date(),
    )
    await connection.execute(
        "INSERT INTO sens.readings SELECT $1, $2, $3::timestamptz + n * $4::interval, $5, $6 FROM generate_series(0, $7::int - 1) n",
        device_id,
        set_id,
        first,
        step,
        [value for _, value in sorted(numbers)] or None,
        [value for _, value in sorted(texts)] or None,
        count,
    )


async def convert(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Move all readings to the columnstore, where there is one."""
    if await connection.fetchval("SELECT kind FROM sens.storage") == "timescaledb":
        for chunk in await connection.fetch("SELECT show_chunks('sens.readings')::text"):
            await connection.execute(f"CALL convert_to_columnstore('{chunk[0]}')")
