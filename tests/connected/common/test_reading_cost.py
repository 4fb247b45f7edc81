"""What the functions cost by which the API reads: how many pages of 8 KiB they look at, which must not grow with what is stored."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import pytest

from sens_common.settings import DatabaseSettings
from support.servers import owner

type Connection = asyncpg.Connection[asyncpg.Record]

END: Final = datetime(2026, 11, 1, tzinfo=UTC)
SECONDS: Final = 60
"""Between two readings of a device."""
FEW: Final = 5_000
MANY: Final = 300_000
SPARE: Final = 30
"""Pages that more partitions and a deeper index may take."""
ROWS_PER_PAGE: Final = 40
"""Readings of one device on 8 KiB, at least."""


@asynccontextmanager
async def opened(database: DatabaseSettings) -> AsyncIterator[Connection]:
    """Store readings of the devices 1, which has few, and 2, which has many, until the same time; see what their tenant sees."""
    async with owner(database) as connection:
        await connection.execute("SELECT set_config('timezone', 'UTC', false)")
        tenant = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ('a') RETURNING id")
        await connection.execute(
            "INSERT INTO sens.devices (tenant_id, name) SELECT $1, 'd' || i FROM generate_series(1, 2) i", tenant
        )
        await connection.execute(
            "INSERT INTO sens.metrics (tenant_id, name, kind) SELECT $1, 'm' || i, 'number' FROM generate_series(1, 5) i",
            tenant,
        )
        await connection.execute("INSERT INTO sens.metrics (tenant_id, name, kind) VALUES ($1, 't', 'text')", tenant)
        # Two sets, by turns; the metric 3 is at another index in each.
        await connection.execute(
            "INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES ($1, '{1,2,3,4,5}', '{}'), ($1, '{2,3,4}', '{6}')",
            tenant,
        )
        for device, number in ((1, FEW), (2, MANY)):
            beginning = END - timedelta(seconds=SECONDS * number)
            await connection.execute("SELECT sens.ensure_reading_partitions($1, $2)", beginning, END)
            await connection.execute(
                """
                INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers, texts)
                SELECT $1, 1 + i % 2, $2::timestamptz + i * $4::interval,
                    CASE i % 2 WHEN 0 THEN ARRAY[i, 2, i, 4, 5.5] ELSE ARRAY[2, i, 4.5] END, CASE i % 2 WHEN 1 THEN ARRAY['text ' || i] END
                FROM generate_series(0, $3::int - 1) i
                """,
                device,
                beginning,
                number,
                timedelta(seconds=SECONDS),
            )
            await connection.execute(
                "INSERT INTO sens.device_metric_sets SELECT $1, s.id, $2, $3 FROM sens.metric_sets s",
                device,
                beginning.date(),
                (END - timedelta(seconds=SECONDS)).date(),
            )
        # No device has rows of a value each any more.
        await connection.execute(
            "CREATE OR REPLACE FUNCTION sens.has_former_rows(device int) RETURNS boolean LANGUAGE sql STABLE RETURN false"
        )
        await connection.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        await connection.execute("VACUUM ANALYZE sens.readings")
        yield connection


async def pages_read(connection: Connection, query: str) -> int:
    """Return how many pages a query looks at, once the catalogs are known to the session."""
    for _ in range(3):
        plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"))[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


class TestCost:
    async def test_is_that_of_a_device_with_few_readings(self, database: DatabaseSettings) -> None:
        every = "'2020-01-01Z', '2030-01-01Z'"
        day = "'2026-10-30Z', '2026-10-31Z', '1 hour', '2001-01-01Z'"
        queries = [
            "latest_values({device})",
            "latest_of_devices(ARRAY[{device}])",
            "device_series({device})",
            *(
                f"{page}, {every}, {descending}, 1000)"
                for page in ("number_page({device}, 1", "number_page({device}, 3", "text_page({device}, 6")
                for descending in ("true", "false")
            ),
            f"number_buckets({{device}}, 3, {day}, false)",
            f"text_buckets({{device}}, 6, {day})",
        ]
        async with opened(database) as connection:
            for query in queries:
                few, many = [
                    await pages_read(connection, f"SELECT * FROM sens.{query.format(device=device)}")  # noqa: S608 - constants
                    for device in (1, 2)
                ]
                assert many <= few + SPARE, query
                assert many < 2_000 / ROWS_PER_PAGE + 150, query

    async def test_of_a_page_in_the_columnstore_is_that_of_its_rows(self, database: DatabaseSettings) -> None:
        async with opened(database) as connection:
            if await connection.fetchval("SELECT kind FROM sens.storage") != "timescaledb":
                pytest.skip("this server has no columnstore")
            await connection.execute("SELECT compress_chunk(c) FROM show_chunks('sens.readings') c")
            await connection.execute("VACUUM ANALYZE sens.readings")
            for query in (
                "SELECT * FROM sens.latest_values(2)",
                "SELECT * FROM sens.number_page(2, 3, '2020-01-01Z', '2030-01-01Z', true, 1000)",
                "SELECT * FROM sens.number_page(2, 3, '2020-01-01Z', '2030-01-01Z', false, 1000)",
            ):
                # The whole takes some 5,000.
                assert await pages_read(connection, query) < 500, query
