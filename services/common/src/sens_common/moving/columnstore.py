"""TimescaleDB's columnstore takes what was moved as soon as its chunk is complete: as rows, old readings need eight times the space."""

from datetime import datetime
from typing import Final

import asyncpg
import structlog

from sens_common.database import Connection

log = structlog.get_logger()

# As the policy would, within the next day.
_CHUNKS: Final = """
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name) AS name
    FROM timescaledb_information.chunks c JOIN timescaledb_information.jobs j USING (hypertable_schema, hypertable_name)
    WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = 'readings' AND NOT c.is_compressed
        AND c.range_end <= least($1, now() - (j.config ->> 'compress_after')::interval)
    ORDER BY c.range_start
"""
_TIMEOUT_SECONDS: Final = 3600


async def fill_columnstore(connection: Connection, past: datetime) -> None:
    """Let the columnstore take the chunks of readings before a time, as far as its policy would; reading goes on meanwhile."""
    if await connection.fetchval("SELECT kind FROM sens.storage") != "timescaledb":
        return
    for row in await connection.fetch(_CHUNKS, past):
        try:
            await connection.execute(
                f"CALL convert_to_columnstore('{row['name']}', if_not_columnstore => true)", timeout=_TIMEOUT_SECONDS
            )
        except asyncpg.PostgresError as error:
            log.info("a chunk is left to the columnstore's policy", chunk=row["name"], reason=str(error))
