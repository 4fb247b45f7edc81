"""The law of rollups, computed another way than the refresher does, and readings to try it with."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
import pytest

from sens_common.database import Connection

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)
START: Final = datetime(2026, 3, 1, tzinfo=UTC)

_LAW: Final = """
    WITH value AS (
        SELECT r.device_id, v.metric_id, date_bin($1, r.ts, 'epoch') AS ts, r.ts AS at, v.value
        FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
        CROSS JOIN LATERAL unnest(s.number_ids, r.numbers) AS v (metric_id, value)
        WHERE v.value IS NOT NULL AND EXISTS (SELECT FROM sens.metrics m WHERE m.id = v.metric_id)
    ), expected AS (
        SELECT device_id, metric_id, ts, count(*),
            CASE WHEN bool_and(value BETWEEN -1e290 AND 1e290) THEN sum(value::numeric)::float8 END AS sum, min(value), max(value),
            (array_agg(value ORDER BY at))[1] AS first, (array_agg(value ORDER BY at DESC))[1] AS last
        FROM value
        GROUP BY 1, 2, 3
    ), known AS (
        SELECT date_bin($1, filled_until, 'epoch') AS past FROM sens.rollup_progress
    )
    SELECT e, r
    FROM expected e FULL JOIN sens.{table} r USING (device_id, metric_id, ts)
    WHERE ts < (SELECT past FROM known)
        AND NOT EXISTS (
            SELECT FROM sens.rollup_changes c WHERE c.device_id = coalesce(e.device_id, r.device_id) AND c.first < ts + $1 AND c.past > ts
        )
        AND (e.count, e.sum, e.min, e.max, e.first, e.last) IS DISTINCT FROM (r.count, r.sum, r.min, r.max, r.first, r.last)
    LIMIT 5
"""


class Reading(NamedTuple):
    """What a device measured at one time."""

    device: int
    metric_set: int
    at: datetime
    numbers: Sequence[float | None] | None


async def violations(connection: Connection) -> list[tuple[object, object]]:
    """Return rollups that are not the aggregates of the readings, as the law says it of a snapshot: what is expected, what is there."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found: list[asyncpg.Record] = []
        for table, width in (("rollup_1h", HOUR), ("rollup_1d", DAY)):
            found += await connection.fetch(_LAW.format(table=table), width)
    return [(row[0], row[1]) for row in found]


async def begin_rollups(owner: Connection, at: datetime = START) -> None:
    """Let rollups begin with an hour, and make the partitions of readings up to a month later."""
    await owner.execute("SELECT sens.ensure_reading_partitions($1, $2)", at - DAY, at + 30 * DAY)
    await owner.execute("UPDATE sens.rollup_state SET watermark = $1", at)
    await owner.execute("UPDATE sens.rollup_progress SET filled_until = $1", at)


async def refresh_up_to(connection: Connection, at: datetime) -> None:
    """Bring everything before a time into the rollups, in small steps."""
    assert await connection.fetchval("SELECT sens.move_rollup_watermark($1)", at) in {"worked", "idle"}
    while "worked" in {
        await connection.fetchval("SELECT sens.add_rollups(2, 24, false)"),
        await connection.fetchval("SELECT sens.apply_rollup_changes(3, 24)"),
    }:
        pass


async def make_metric_sets(owner: Connection, sets: Sequence[int], texts: int = 0) -> list[int]:
    """Make a tenant with devices 1 to 6 and metrics, and sets of so many numbers each; the first metrics are in all of them.

    Return the sets' ids.
    """
    tenant = await owner.fetchval("INSERT INTO sens.tenants (name) VALUES ('rolled') RETURNING id")
    await owner.execute(
        "INSERT INTO sens.devices (tenant_id, name) SELECT $1, 'd' || i FROM generate_series(1, 6) AS i", tenant
    )
    ids = [
        await owner.fetchval(
            "INSERT INTO sens.metrics (tenant_id, name, kind) VALUES ($1, $2, $3) RETURNING id", tenant, name, kind
        )
        for name, kind in [(f"n{index}", "number") for index in range(max(sets))]
        + [(f"t{index}", "text") for index in range(texts)]
    ]
    numbers, text_ids = ids[: max(sets)], ids[max(sets) :]
    return [
        await owner.fetchval(
            "INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES ($1, $2, $3) RETURNING id",
            tenant,
            numbers[:size],
            text_ids,
        )
        for size in sets
    ]


async def store(connection: Connection, *readings: Reading) -> None:
    """Store readings, as a batch does within its transaction."""
    await connection.executemany(
        "INSERT INTO sens.device_metric_sets AS d VALUES ($1, $2, $3, $3) ON CONFLICT (device_id, metric_set_id) DO UPDATE"
        " SET first_day = least(d.first_day, excluded.first_day), last_day = greatest(d.last_day, excluded.last_day)",
        sorted({(device, metric_set, at.date()) for device, metric_set, at, _ in readings}),
    )
    for device, metric_set, at, numbers in sorted(readings, key=lambda reading: (reading.device, reading.at)):
        await connection.execute(
            "INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            device,
            metric_set,
            at,
            numbers,
        )


async def note(connection: Connection, *readings: Reading) -> None:
    """Pass the gate, and note readings that are stored in hours that are in the rollups."""
    hours = [(reading.at - EPOCH) // HOUR for reading in readings]
    await connection.execute(
        "SELECT sens.note_hours($1, $2, $3)",
        [reading.device for reading in readings],
        hours,
        [hour + 1 for hour in hours],
    )


async def read_as_tenant(owner: Connection, tenant: str) -> None:
    """Let the connection read as the tenant's API does, of devices that were never stored in the form of versions before."""
    await owner.execute(
        "SELECT set_config('sens.tenant_id', (SELECT id::text FROM sens.tenants WHERE name = 'rolled'), false)"
    )
    await owner.execute(
        "CREATE OR REPLACE FUNCTION sens.has_former_rows(device int) RETURNS boolean LANGUAGE sql STABLE RETURN false"
    )


async def compare_answers(owner: Connection, source: random.Random, first: datetime, past: datetime) -> list[str]:
    """Aggregate a series by the readings, and by what answers best, in one snapshot; return what that was made of.

    Raises:
        AssertionError: The answers are not the same.
    """
    moments = (past - first) / timedelta(minutes=20)
    edges = sorted(first + source.randrange(int(moments)) * timedelta(minutes=20) for _ in range(2))
    width = source.choice([timedelta(minutes=90), HOUR, 8 * HOUR, DAY, 7 * DAY])
    arguments = (
        source.randrange(1, 7),
        await owner.fetchval("SELECT min(id) FROM sens.metrics"),
        *edges,
        width,
        ORIGIN,
    )
    async with owner.transaction(isolation="repeatable_read", readonly=True):
        expected = await owner.fetch(
            "SELECT bucket, count, avg, min, max FROM sens.number_buckets($1, $2, $3, $4, $5, $6, false) ORDER BY 1",
            *arguments,
        )
        answer = await owner.fetch(
            """
            SELECT bucket, count, avg, min, max, source FROM sens.edge_aggregates($1, $2, $3, $4,
                ARRAY(SELECT generate_series(date_bin($5, $3, $6), $4::timestamptz + $5::interval, $5)), $8, $7) ORDER BY 1
            """,
            *arguments,
            source.random() < 0.2,
            ["avg", "min", "max", "last"] if source.random() < 0.5 else ["avg", "min", "max"],
        )
        in_order = await owner.fetch(
            """
            SELECT date_bin($5, ts, $6), (array_agg(value ORDER BY ts))[1], (array_agg(value ORDER BY ts DESC))[1], sum(value)
            FROM sens.number_page($1, $2, $3, $4, false, 1000000) GROUP BY 1 ORDER BY 1
            """,
            *arguments,
        )
        rolled = await owner.fetch(
            """
            SELECT bucket, first, last, sum FROM sens.edge_aggregates($1, $2, $3, $4,
                ARRAY(SELECT generate_series(date_bin($5, $3, $6), $4::timestamptz + $5::interval, $5)), '{first,last,sum}', false) ORDER BY 1
            """,
            *arguments,
        )
        ends = [
            await owner.fetchval("SELECT sens.first_bucket($1, $2, $3, $4, $5, $6, $7)", *arguments, descending)
            for descending in (False, True)
        ]
    # An average by numeric may have another last digit.
    found = [(row["bucket"], row["count"], row["avg"], row["min"], row["max"]) for row in answer]
    assert found == [
        (row["bucket"], row["count"], pytest.approx(row["avg"], rel=1e-14), row["min"], row["max"]) for row in expected
    ], arguments
    assert [tuple(row) for row in in_order] == [tuple(row) for row in rolled], arguments
    assert ends == ([expected[0][0], expected[-1][0]] if expected else [None, None]), arguments
    return [row["source"] for row in answer]
