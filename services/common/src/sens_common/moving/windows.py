"""The stretches of time through which the move goes: those of the old tables' partitions or chunks."""

import itertools
from datetime import datetime
from typing import Final, NamedTuple

from sens_common.database import Connection

FORMER_TABLES: Final = ("measurements", "text_measurements")

_BOUNDS: Final = {
    "postgresql": r"""
        SELECT bounds[1]::timestamptz AS first, bounds[2]::timestamptz AS past, bytes
        FROM (
            SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds,
                pg_total_relation_size(c.oid) AS bytes
            FROM unnest($1::text[]) t (name)
                JOIN pg_inherits i ON i.inhparent = to_regclass('sens.' || t.name) JOIN pg_class c ON c.oid = i.inhrelid
        ) p
    """,
    "timescaledb": """
        SELECT c.range_start AS first, c.range_end AS past,
            pg_total_relation_size(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass) AS bytes
        FROM timescaledb_information.chunks c WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = ANY ($1::text[])
    """,
}


class Window(NamedTuple):
    """A stretch of time.

    Attributes:
        first: Its beginning.
        past: Its end, the beginning of the next.
        weight: Of the work that it makes, in any unit.
    """

    first: datetime
    past: datetime
    weight: float


async def find_windows(connection: Connection) -> list[Window]:
    """Return the windows in which there may be rows of one value, in order of time; together they hold all such rows."""
    storage = await connection.fetchval("SELECT kind FROM sens.storage")
    rows = await connection.fetch(_BOUNDS[storage], FORMER_TABLES)
    return divide([Window(row["first"], row["past"], float(row["bytes"])) for row in rows])


def divide(partitions: list[Window]) -> list[Window]:
    """Return the stretches between all bounds of partitions, which may overlap, where there is a partition."""
    bounds = sorted({bound for each in partitions for bound in each[:2]})
    windows = []
    for first, past in itertools.pairwise(bounds):
        shares = [
            each.weight * ((past - first) / (each.past - each.first))
            for each in partitions
            if each.first <= first and past <= each.past
        ]
        if shares:
            windows.append(Window(first, past, sum(shares)))
    return windows
