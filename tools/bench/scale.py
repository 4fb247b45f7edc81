"""What a message costs with more devices, and with more rows in the table."""

import asyncio
from datetime import datetime
from typing import Final

from sens_common.database import connect
from tools.bench.figures import Devices, Rows
from tools.bench.load import Shape
from tools.bench.measured_path import MeasuredPath
from tools.bench.runs import end_to_end

_TOGETHER: Final = 1_000_000
_STATEMENT_SECONDS: Final = 3600
_SPAN: Final = "($1::timestamptz - $2 * interval '10 s', $1)"
# For each form of storage: the statement that makes partitions, the one that fills (devices, metrics, oldest time, times of each), the table.
_VALUES: Final = (
    f"SELECT sens.ensure_partitions{_SPAN}",
    """
    INSERT INTO sens.measurements
    SELECT device, metric, $3::timestamptz - ($4::int - n) * interval '10 s', random() * 100
    FROM unnest($1::int[]) device CROSS JOIN unnest($2::int[]) metric CROSS JOIN generate_series(0, $4 - 1) n
    """,
    "sens.measurements",
)
_READINGS: Final = (
    f"SELECT sens.ensure_reading_partitions{_SPAN}",
    """
    WITH days AS (
        UPDATE sens.device_metric_sets SET first_day = least(first_day, (($3::timestamptz - $4::int * interval '10 s') AT TIME ZONE 'UTC')::date)
        WHERE device_id = ANY ($1)
    )
    INSERT INTO sens.readings
    SELECT device, s.id, $3::timestamptz - ($4::int - n) * interval '10 s', array_fill(random() * 100, ARRAY[cardinality($2::int[])])
    FROM unnest($1::int[]) device CROSS JOIN sens.metric_sets s CROSS JOIN generate_series(0, $4 - 1) n
    WHERE s.number_ids = $2 AND s.text_ids = '{}'
    """,
    "sens.readings",
)


def devices(path: MeasuredPath, shape: Shape) -> Devices:
    """Send messages from devices that nobody knows yet, and as many again."""
    return Devices(shape.devices, end_to_end(path, shape), end_to_end(path, shape))


def rows(path: MeasuredPath, shape: Shape, present: int, wanted: int) -> Rows:
    """Fill the database up to a number of values, then load it.

    Args:
        path: The path.
        shape: The load.
        present: Values that are there.
        wanted: Values there shall be.
    """
    if present == 0:
        path.warm_up(shape)
        present = path.stack.fetch_stored("SELECT count(*) FROM stored_values")[0][0]
    [[oldest]] = path.stack.fetch_stored("SELECT date_trunc('second', min(ts)) FROM stored_values")
    asyncio.run(_fill(path, wanted - present, oldest))
    return Rows(max(wanted, present), end_to_end(path, shape))


async def _fill(path: MeasuredPath, values: int, oldest: datetime) -> None:
    """Give every device a value of each metric every ten seconds, before the oldest one, in the table where the load's values are."""
    database = await connect(path.stack.database, "bench")
    try:
        readings = await database.fetchval("SELECT EXISTS (SELECT FROM sens.readings)")
        ensure, insert, table = _READINGS if readings else _VALUES
        ((ids, metrics),) = await database.fetch(
            "SELECT (SELECT array_agg(id ORDER BY id) FROM sens.devices),"
            " (SELECT array_agg(id ORDER BY id) FROM sens.metrics WHERE kind = 'number')"
        )
        each = values // (len(ids) * len(metrics))
        if each <= 0:
            return
        step = max(1, _TOGETHER // (each * len(metrics)))
        await database.execute(ensure, oldest, each)
        for start in range(0, len(ids), step):
            # In the key's order, as fast as the index can take it.
            await database.execute(insert, ids[start : start + step], metrics, oldest, each, timeout=_STATEMENT_SECONDS)
        # What the filling leaves behind for later is no cost of the load.
        await database.execute(f"VACUUM (ANALYZE) {table}", timeout=_STATEMENT_SECONDS)
        await database.execute("CHECKPOINT", timeout=_STATEMENT_SECONDS)
    finally:
        await database.close()
