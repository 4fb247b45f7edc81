"""What a message costs with more devices, and with more rows in the table."""

import asyncio
from typing import Final

from sens_common.database import connect
from tools.bench.figures import Devices, Rows
from tools.bench.load import Shape
from tools.bench.measured_path import MeasuredPath
from tools.bench.runs import end_to_end

_TOGETHER: Final = 1_000_000
_STATEMENT_SECONDS: Final = 3600


def devices(path: MeasuredPath, shape: Shape) -> Devices:
    """Send messages from devices that nobody knows yet, and as many again."""
    return Devices(shape.devices, end_to_end(path, shape), end_to_end(path, shape))


def rows(path: MeasuredPath, shape: Shape, present: int, wanted: int) -> Rows:
    """Fill the table up to a number of rows, then load it.

    Args:
        path: The path.
        shape: The load.
        present: Rows that are there.
        wanted: Rows there shall be.
    """
    if present == 0:
        path.warm_up(shape)
        present = path.stack.fetch("SELECT count(*) FROM sens.measurements")[0][0]
    asyncio.run(_fill(path, wanted - present))
    return Rows(max(wanted, present), end_to_end(path, shape))


async def _fill(path: MeasuredPath, rows: int) -> None:
    """Give every device a row of each metric every ten seconds, before its oldest one."""
    database = await connect(path.stack.database, "bench")
    try:
        ((ids, metrics, oldest),) = await database.fetch(
            "SELECT (SELECT array_agg(id ORDER BY id) FROM sens.devices),"
            " (SELECT array_agg(id ORDER BY id) FROM sens.metrics WHERE kind = 'number'),"
            " (SELECT date_trunc('second', min(ts)) FROM sens.measurements)"
        )
        each = rows // (len(ids) * len(metrics))
        if each <= 0:
            return
        step = max(1, _TOGETHER // (each * len(metrics)))
        await database.execute(
            "SELECT sens.ensure_partitions($1::timestamptz - $2 * interval '10 s', $1)", oldest, each
        )
        for start in range(0, len(ids), step):
            # In the key's order, as fast as the index can take it.
            await database.execute(
                "INSERT INTO sens.measurements"
                " SELECT device, metric, $3::timestamptz - ($4::int - n) * interval '10 s', random() * 100"
                " FROM unnest($1::int[]) device CROSS JOIN unnest($2::int[]) metric CROSS JOIN generate_series(0, $4 - 1) n",
                ids[start : start + step],
                metrics,
                oldest,
                each,
                timeout=_STATEMENT_SECONDS,
            )
        # What the filling leaves behind for later is no cost of the load.
        await database.execute("VACUUM (ANALYZE) sens.measurements", timeout=_STATEMENT_SECONDS)
        await database.execute("CHECKPOINT", timeout=_STATEMENT_SECONDS)
    finally:
        await database.close()
