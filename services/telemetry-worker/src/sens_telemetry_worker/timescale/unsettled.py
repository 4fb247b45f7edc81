"""Which envelopes before a batch are not settled: other lanes and workers have them, or give them back later."""

import asyncio
from typing import Final, Protocol

from sens_telemetry_worker.batch import StreamPosition
from sens_telemetry_worker.timescale.database import Database

_FAR: Final = 20_000
"""Envelopes at once of which the database is asked; rather than of more, the consumer is asked where it is."""
_SETTLED: Final = """
    SELECT s.sequence FROM sens.settled s
    WHERE s.stream = $1 AND s.outcomes IS NULL AND ((s.sequence >= $2 AND s.sequence < $3) OR s.sequence = ANY($4::bigint[]))
"""


class Consumer(Protocol):
    """The durable consumer of the stream."""

    async def settled_up_to(self) -> int:
        """Return up to which sequence all envelopes are acknowledged; raise `storing.StoreUnavailableError` when it can't be asked."""


class UnsettledEnvelopes:
    """Remembers which envelopes were not settled when it looked last, and looks at those and at newer ones."""

    def __init__(self, database: Database, consumer: Consumer) -> None:
        self._database = database
        self._consumer = consumer
        self._stream = 0
        self._until = 0
        self._open: set[int] = set()
        self._lock = asyncio.Lock()

    async def before(self, position: StreamPosition) -> set[int]:
        """Return the sequences of the envelopes before one that are not settled.

        Raises:
            StoreUnavailableError: The database or the consumer can't be asked.
        """
        async with self._lock:
            if position.stream_created_at != self._stream:
                self._stream, self._until, self._open = position.stream_created_at, 0, set()
            if not self._until or position.sequence - self._until > _FAR:
                floor = await self._consumer.settled_up_to()
                self._open = {sequence for sequence in self._open if sequence > floor}
                self._until = max(self._until, floor + 1)
            until = max(self._until, position.sequence)
            async with self._database.connection() as connection:
                rows = await connection.fetch(_SETTLED, self._stream, self._until, until, list(self._open))
            candidates = self._open | set(range(self._until, until))
            self._open = candidates - {row["sequence"] for row in rows}
            self._until = until
            return {sequence for sequence in self._open if sequence < position.sequence}
