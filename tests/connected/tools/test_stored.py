"""What is stored is listed value by value, whichever table it is in."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from sens_common.settings import DatabaseSettings
from support.former_rows import allow_former_rows
from support.servers import owner_pool
from tools.stack.stored import VALUE_TABLES, with_stored_values

NOON = datetime(2026, 11, 5, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 5, 13, tzinfo=UTC)
QUERY = "SELECT tenant, device, metric, kind, ts, number, text FROM stored_values ORDER BY ts, metric, kind"

type Pool = asyncpg.Pool[asyncpg.Record]


async def stored(pool: Pool) -> list[tuple[Any, ...]]:
    tables = [row["name"] for row in await pool.fetch(VALUE_TABLES)]
    return [tuple(row) for row in await pool.fetch(with_stored_values(tables, QUERY))]


async def filled(pool: Pool) -> dict[str, int]:
    """Store values in both forms; return the ids of metrics by name."""
    tenant = await pool.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
    device = await pool.fetchval("INSERT INTO sens.devices (tenant_id, name) VALUES ($1, 'd1') RETURNING id", tenant)
    metrics = {
        f"{name}": await pool.fetchval(
            "INSERT INTO sens.metrics (tenant_id, name, kind) VALUES ($1, $2, $3) RETURNING id", tenant, name, kind
        )
        for name, kind in {"n": "number", "open": "boolean", "state": "text", "gone": "number"}.items()
    }
    n, is_open, state, gone = metrics.values()
    async with pool.acquire() as connection:
        await allow_former_rows(connection, [NOON])
    await pool.execute("SELECT sens.ensure_reading_partitions($1, $1)", NOON)
    await pool.execute("INSERT INTO sens.measurements VALUES ($1, $2, $3, 1.5)", device, n, NOON)
    await pool.execute("INSERT INTO sens.text_measurements VALUES ($1, $2, $3, 'on')", device, state, NOON)
    metric_set = await pool.fetchval(
        "INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES ($1, $2, $3) RETURNING id",
        tenant,
        [n, is_open, gone],
        [state],
    )
    row = "INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers, texts) VALUES ($1, $2, $3, $4, $5)"
    await pool.execute(row, device, metric_set, LATER, [2.5, 1.0, 3.0], [None])
    return metrics


@pytest.mark.parametrize("moved", [False, True], ids=["both forms", "readings alone"])
async def test_values_of_both_forms_are_listed_once(database: DatabaseSettings, moved: bool) -> None:
    async with owner_pool(database) as pool:
        metrics = await filled(pool)
        # A metric that was deleted is not seen, though its values are still there.
        await pool.execute("DELETE FROM sens.metrics WHERE id = $1", metrics["gone"])
        former = [
            ("demo", "d1", "n", "number", NOON, 1.5, None),
            ("demo", "d1", "state", "text", NOON, None, "on"),
        ]
        if moved:
            await pool.execute("DROP TABLE sens.measurements, sens.text_measurements CASCADE")
            former = []
        assert await stored(pool) == [
            *former,
            ("demo", "d1", "n", "number", LATER, 2.5, None),
            ("demo", "d1", "open", "boolean", LATER, 1.0, None),
        ]
