"""One step of the move: the values of some devices in a stretch of time, in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from sens_common.database import Connection
from sens_common.errors import SchemaError
from sens_common.metric_sets import MAX_SETS_OF_DEVICE

SESSION: Final = """
    SET lock_timeout = '1s';
    SET work_mem = '64MB';
    SET jit = off;
    SET max_parallel_workers_per_gather = 0;
    -- Planned with the bounds of the step, a statement opens the partitions of these alone.
    SET plan_cache_mode = force_custom_plan;
    -- Inserting into a chunk that the columnstore has taken meanwhile reads the rows of the same segments.
    SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0;
    CREATE TEMPORARY TABLE IF NOT EXISTS moving (
        device_id int, ts timestamptz, number_ids int[], numbers float8[], text_ids int[], texts text[]
    ) ON COMMIT DELETE ROWS
"""

# Who deletes devices or metrics locks the generation, and who deletes values of a device holds its row too.
_GATE: Final = "LOCK TABLE sens.name_generation IN ACCESS SHARE MODE"
_LOCK: Final = "SELECT id FROM sens.devices WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"
_STILL_FORMER: Final = """
    SELECT f.device_id FROM sens.former_devices f WHERE f.device_id = ANY ($1) AND greatest(f.moved_before, $2) = $2 AND f.moved_before < $3
    FOR UPDATE
"""
# Metrics that are not there any more were deleted, with their values.
_UNITE: Final = """
    INSERT INTO moving
    SELECT device_id, ts, coalesce(n.ids, '{}'), n.numbers, coalesce(t.ids, '{}'), t.texts
    FROM (
        SELECT m.device_id, m.ts, array_agg(m.metric_id ORDER BY m.metric_id) AS ids, array_agg(m.value ORDER BY m.metric_id) AS numbers
        FROM sens.measurements m
        WHERE m.device_id = ANY ($1) AND m.ts >= $2 AND m.ts < $3 AND EXISTS (SELECT FROM sens.metrics k WHERE k.id = m.metric_id)
        GROUP BY m.device_id, m.ts
    ) n
    FULL JOIN (
        SELECT m.device_id, m.ts, array_agg(m.metric_id ORDER BY m.metric_id) AS ids, array_agg(m.value ORDER BY m.metric_id) AS texts
        FROM sens.text_measurements m
        WHERE m.device_id = ANY ($1) AND m.ts >= $2 AND m.ts < $3 AND EXISTS (SELECT FROM sens.metrics k WHERE k.id = m.metric_id)
        GROUP BY m.device_id, m.ts
    ) t USING (device_id, ts)
"""
_TOO_MANY_SETS: Final = f"""
    WITH known AS (
        SELECT k.device_id, s.number_ids, s.text_ids
        FROM sens.device_metric_sets k JOIN sens.metric_sets s ON s.id = k.metric_set_id WHERE k.device_id = ANY ($1)
    ),
    of_device AS (SELECT device_id, number_ids, text_ids FROM known UNION SELECT device_id, number_ids, text_ids FROM moving)
    SELECT o.device_id,
        ARRAY(
            SELECT DISTINCT i.id FROM of_device u, unnest(u.number_ids) i (id)
            WHERE u.device_id = o.device_id AND EXISTS (SELECT FROM sens.metrics m WHERE m.id = i.id) ORDER BY i.id
        ) AS number_ids,
        ARRAY(
            SELECT DISTINCT i.id FROM of_device u, unnest(u.text_ids) i (id)
            WHERE u.device_id = o.device_id AND EXISTS (SELECT FROM sens.metrics m WHERE m.id = i.id) ORDER BY i.id
        ) AS text_ids
    FROM of_device o GROUP BY o.device_id HAVING count(*) > {MAX_SETS_OF_DEVICE}
"""  # noqa: S608 - a number of this file
_WIDEN_SETS: Final = """
    UPDATE moving m SET
        number_ids = $2, text_ids = $3,
        numbers = CASE WHEN cardinality($2::int[]) > 0 THEN ARRAY(
            SELECT v.value FROM unnest($2::int[]) u (id) LEFT JOIN unnest(m.number_ids, m.numbers) v (id, value) ON v.id = u.id ORDER BY u.id
        ) END,
        texts = CASE WHEN cardinality($3::int[]) > 0 THEN ARRAY(
            SELECT v.value FROM unnest($3::int[]) u (id) LEFT JOIN unnest(m.text_ids, m.texts) v (id, value) ON v.id = u.id ORDER BY u.id
        ) END
    WHERE m.device_id = $1 AND NOT EXISTS (
        SELECT FROM sens.device_metric_sets k JOIN sens.metric_sets s ON s.id = k.metric_set_id
        WHERE k.device_id = $1 AND s.number_ids = m.number_ids AND s.text_ids = m.text_ids
    )
"""
_REGISTER_SETS: Final = """
    INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids)
    SELECT w.* FROM (
        SELECT DISTINCT d.tenant_id, m.number_ids, m.text_ids FROM moving m JOIN sens.devices d ON d.id = m.device_id
    ) w
    WHERE NOT EXISTS (
        SELECT FROM sens.metric_sets s WHERE s.tenant_id = w.tenant_id AND s.digest = sens.metric_set_digest(w.number_ids, w.text_ids)
    )
    ON CONFLICT DO NOTHING
"""
_WIDEN_DAYS: Final = """
    INSERT INTO sens.device_metric_sets AS k (device_id, metric_set_id, first_day, last_day)
    SELECT m.device_id, s.id, (m.first AT TIME ZONE 'UTC')::date, (m.last AT TIME ZONE 'UTC')::date
    FROM (
        SELECT device_id, number_ids, text_ids, min(ts) AS first, max(ts) AS last FROM moving GROUP BY device_id, number_ids, text_ids
    ) m
    JOIN sens.devices d ON d.id = m.device_id
    JOIN sens.metric_sets s ON s.tenant_id = d.tenant_id AND s.digest = sens.metric_set_digest(m.number_ids, m.text_ids)
    ORDER BY m.device_id, s.id
    ON CONFLICT (device_id, metric_set_id) DO UPDATE
    SET first_day = least(k.first_day, excluded.first_day), last_day = greatest(k.last_day, excluded.last_day)
    WHERE excluded.first_day < k.first_day OR excluded.last_day > k.last_day
"""
_WRITE: Final = """
    INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers, texts)
    SELECT m.device_id, s.id, m.ts, m.numbers, m.texts
    FROM moving m
    JOIN sens.device_metric_sets k ON k.device_id = m.device_id
    JOIN sens.metric_sets s ON s.id = k.metric_set_id AND s.number_ids = m.number_ids AND s.text_ids = m.text_ids
    ORDER BY m.device_id, m.ts
"""
# Both sides are read from their tables again.
_COMPARE: Final = """
    WITH former AS (
        SELECT m.device_id, m.metric_id, count(*) AS count, sum(sens.number_hash(m.ts, m.value)) AS checksum
        FROM sens.measurements m
        WHERE m.device_id = ANY ($1) AND m.ts >= $2 AND m.ts < $3 AND EXISTS (SELECT FROM sens.metrics k WHERE k.id = m.metric_id)
        GROUP BY m.device_id, m.metric_id
        UNION ALL
        SELECT m.device_id, m.metric_id, count(*), sum(sens.text_hash(m.ts, m.value))
        FROM sens.text_measurements m
        WHERE m.device_id = ANY ($1) AND m.ts >= $2 AND m.ts < $3 AND EXISTS (SELECT FROM sens.metrics k WHERE k.id = m.metric_id)
        GROUP BY m.device_id, m.metric_id
    ),
    moved AS (
        SELECT r.device_id, v.id AS metric_id, count(*) AS count, sum(sens.number_hash(r.ts, v.value)) AS checksum
        FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
            CROSS JOIN LATERAL unnest(s.number_ids, r.numbers) v (id, value)
        WHERE r.device_id = ANY ($1) AND r.ts >= $2 AND r.ts < $3 AND v.value IS NOT NULL
        GROUP BY r.device_id, v.id
        UNION ALL
        SELECT r.device_id, v.id, count(*), sum(sens.text_hash(r.ts, v.value))
        FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
            CROSS JOIN LATERAL unnest(s.text_ids, r.texts) v (id, value)
        WHERE r.device_id = ANY ($1) AND r.ts >= $2 AND r.ts < $3 AND v.value IS NOT NULL
        GROUP BY r.device_id, v.id
    )
    SELECT device_id, metric_id, coalesce(f.count, 0) AS former_count, coalesce(m.count, 0) AS moved_count,
        f.checksum IS NOT DISTINCT FROM m.checksum AS is_equal
    FROM former f FULL JOIN moved m USING (device_id, metric_id)
    ORDER BY device_id, metric_id
"""
_NOTE_CHANGES: Final = """
    SELECT sens.note_changes(array_agg(m.device_id), array_agg(m.first), array_agg(m.past))
    FROM (SELECT device_id, min(ts) AS first, max(ts) + interval '1 microsecond' AS past FROM moving GROUP BY device_id) m
"""
_NAMES: Final = """
    SELECT t.name AS tenant, d.name AS device, (SELECT m.name FROM sens.metrics m WHERE m.id = $2) AS metric
    FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id WHERE d.id = $1
"""
_NOTE_DEVICES: Final = "UPDATE sens.former_devices SET moved_before = $2 WHERE device_id = ANY ($1)"
_NOTE_PROGRESS: Final = """
    UPDATE sens.move_progress
    SET moved_values = moved_values + $1, share = greatest(share, $2), longest_step_seconds = greatest(longest_step_seconds, $3),
        noted_at = clock_timestamp()
"""


class Step(NamedTuple):
    """What is moved in one transaction.

    Attributes:
        devices: Their ids, ascending.
        first: Values from this time on; the devices are moved up to it.
        past: Values before this time.
        share: Of the whole work that is done then.
        longest_seconds: How long the longest step before it took.
    """

    devices: Sequence[int]
    first: datetime
    past: datetime
    share: float
    longest_seconds: float


async def take(connection: Connection, step: Step) -> int:
    """Do a step, within a transaction of a connection that is prepared with `SESSION`; return how many values were moved.

    Raises:
        SchemaError: What was written is not what was read; the transaction has to be rolled back.
    """
    await connection.execute(_GATE)
    existing = [row[0] for row in await connection.fetch(_LOCK, step.devices)]
    # Somebody else's move may have been faster.
    left = {row[0] for row in await connection.fetch(_STILL_FORMER, step.devices, step.first, step.past)}
    devices = [device for device in existing if device in left]
    moved = await _move(connection, devices, step) if devices else 0
    await connection.execute(_NOTE_DEVICES, list(left), step.past)
    await connection.execute(_NOTE_PROGRESS, moved, step.share, step.longest_seconds)
    return moved


async def _move(connection: Connection, devices: list[int], step: Step) -> int:
    bounds = devices, step.first, step.past
    await connection.execute(_UNITE, *bounds)
    for row in await connection.fetch(_TOO_MANY_SETS, devices):
        await connection.execute(_WIDEN_SETS, *row)
    await connection.execute(_REGISTER_SETS)
    await connection.execute(_WIDEN_DAYS)
    await connection.execute(_WRITE)
    moved = 0
    for row in await connection.fetch(_COMPARE, *bounds):
        if not row["is_equal"] or row["former_count"] != row["moved_count"]:
            names = await connection.fetchrow(_NAMES, row["device_id"], row["metric_id"])
            raise SchemaError(_difference(row, names, step))
        moved += row["moved_count"]
    await connection.execute(_NOTE_CHANGES)
    return moved


def _difference(row: asyncpg.Record, names: asyncpg.Record | None, step: Step) -> str:
    tenant, device, metric = names if names is not None else ("unknown", row["device_id"], None)
    former, moved = row["former_count"], row["moved_count"]
    became = f"became {moved}" if former != moved else "have another checksum afterwards"
    return (
        f"the move stops, and nothing is dropped: tenant {tenant}, device {device}, metric {metric or row['metric_id']}:"
        f" {former} values from {step.first.isoformat()} to {step.past.isoformat()} {became}; the step is rolled back."
        " Please report this with the versions of PostgreSQL and TimescaleDB"
    )
