"""The last step of the move: the old tables go."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from sens_common.database import Connection
from sens_common.errors import SchemaError
from sens_common.moving.windows import FORMER_TABLES, Window

_WINDOWS_AT_ONCE: Final = 10
"""Dropping locks each partition: all of many years at once are more than a server has room for."""

_PARTITIONS: Final = """
    SELECT i.inhrelid::regclass::text FROM unnest($1::text[]) t (name) JOIN pg_inherits i ON i.inhparent = to_regclass('sens.' || t.name)
    ORDER BY 1
"""


async def has_former_tables(connection: Connection) -> bool:
    """Tell whether the old tables are there, one of them at least."""
    return bool(await connection.fetchval("SELECT to_regclass('sens.text_measurements') IS NOT NULL"))


async def drops(connection: Connection, windows: Sequence[Window]) -> AsyncIterator[str]:
    """Give the statements that drop the old tables, each a short transaction; when some were executed, the others still come.

    Raises:
        SchemaError: There are devices whose values are not moved.
    """
    left = await connection.fetchval("SELECT count(*) FROM sens.former_devices")
    if left:
        raise SchemaError(f"the old tables stay: the values of {left} devices are not moved")
    if await connection.fetchval("SELECT kind FROM sens.storage") == "timescaledb":
        for window in windows[_WINDOWS_AT_ONCE - 1 :: _WINDOWS_AT_ONCE]:
            for table in FORMER_TABLES:
                yield f"SELECT drop_chunks('sens.{table}', older_than => timestamptz '{window.past.isoformat()}')"
    else:
        partitions = [row[0] for row in await connection.fetch(_PARTITIONS, FORMER_TABLES)]
        for start in range(0, len(partitions), _WINDOWS_AT_ONCE):
            yield f"DROP TABLE IF EXISTS {', '.join(partitions[start : start + _WINDOWS_AT_ONCE])}"
    yield "DROP VIEW IF EXISTS sens.tenant_measurements, sens.tenant_text_measurements"
    for table in FORMER_TABLES:
        yield f"DROP TABLE IF EXISTS sens.{table}"
