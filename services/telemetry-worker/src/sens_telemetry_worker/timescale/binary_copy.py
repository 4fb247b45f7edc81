"""The format of a binary COPY, and the COPY itself.

PostgreSQL documentation, "COPY", section "Binary Format": a signature, then for each row the number of fields and for each field
its length in bytes and its value, big-endian, then -1. A timestamptz is the number of microseconds since 2000-01-01T00:00:00Z.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from sens_common.database import Connection

POSTGRES_EPOCH_MICROSECONDS: Final = 946_684_800_000_000

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"


async def copy_to(
    connection: Connection, table: str, columns: Sequence[str], data: bytes, *, schema: str | None = None
) -> None:
    """Copy rows, in the binary format, to a table; one of the session where no schema is named."""
    await connection.copy_to_table(table, source=_whole(data), columns=columns, schema_name=schema, format="binary")


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    """Give the driver everything at once; a file it would read through a thread."""
    yield data
