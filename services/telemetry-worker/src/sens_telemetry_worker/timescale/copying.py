"""COPY from memory."""

from collections.abc import AsyncIterator, Sequence

from sens_telemetry_worker.timescale.database import Connection


async def copy_to(
    connection: Connection, table: str, columns: Sequence[str], data: bytes, *, schema: str | None = None
) -> None:
    """Copy rows, in the binary format, to a table; one of the session where no schema is named."""
    await connection.copy_to_table(table, source=_whole(data), columns=columns, schema_name=schema, format="binary")


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    """Give the driver everything at once; a file it would read through a thread."""
    yield data
