"""What the database has counted. It knows what was stored before the last start, and after a worker's death."""

import contextlib
from typing import Final, NamedTuple

import asyncpg

from sens_common.command_line.local_settings import DATABASE_OWNER, HOST

_SECONDS: Final = 2.0
_STORED: Final = "SELECT coalesce(sum(stored), 0)::bigint FROM sens.message_counts"
_DEAD_LETTERS: Final = "SELECT coalesce(sum(letters), 0)::bigint FROM sens.dead_letter_usage"

type Connection = asyncpg.Connection[asyncpg.Record]


class Counts(NamedTuple):
    """Sums over all tenants; None while the database does not answer.

    Attributes:
        stored: Messages ever stored.
        dead_letters: Dead letters that are there now.
    """

    stored: int | None
    dead_letters: int | None


NOTHING_KNOWN: Final = Counts(None, None)


class DatabaseCounts:
    """Asks the database over one connection, which is opened again when it is lost."""

    def __init__(self, port: int, password: str) -> None:
        self._port = port
        self._password = password
        self._connection: Connection | None = None
        self._most_stored = 0

    async def read(self) -> Counts:
        """Return the counts of now. What was stored never falls: the messages of a tenant that is deleted were stored all the same."""
        try:
            connection = await self._connected()
            stored = await connection.fetchval(_STORED)
            dead_letters = await connection.fetchval(_DEAD_LETTERS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self.close()
            return NOTHING_KNOWN
        self._most_stored = max(self._most_stored, stored)
        return Counts(self._most_stored, dead_letters)

    async def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=_SECONDS)

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = await asyncpg.connect(
                host=HOST,
                port=self._port,
                user=DATABASE_OWNER,
                password=self._password,
                database=DATABASE_OWNER,
                ssl=False,
                timeout=_SECONDS,
                command_timeout=_SECONDS,
            )
        return self._connection
