"""Replays the dead letters that a birth of Sparkplug B explains, once it has come.

The transaction that stores a birth notes it where letters wait (``sens.birth_replays``). This takes one note after the other, publishes the
letters that the birth explains to the stream again, oldest first, and deletes those that were not refused again meanwhile. Cut short, it is
done again when the claim is over, to no effect. A letter is replayed once for a birth: one that the birth does not help stays.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.dead_letters import Origin
from sens_common.health import Problems
from sens_common.replays import ReplayedMessage
from sens_telemetry_worker import metrics
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError
from sens_telemetry_worker.timescale.birth_reading import read_histories
from sens_telemetry_worker.timescale.database import Database

log = structlog.get_logger()

_INTERVAL_SECONDS: Final = 2.0
_LOOKED_AT_TOGETHER: Final = 1000
_SENT_TOGETHER: Final = 500
_SENT_TOGETHER_BYTES: Final = 4 << 20

_CLAIM: Final = """
    UPDATE sens.birth_replays r SET claimed_until = clock_timestamp() + interval '1 minute'
    FROM sens.edge_nodes e JOIN sens.tenants t ON t.id = e.tenant_id
    WHERE e.id = r.edge_node_id AND (r.edge_node_id, r.device, r.stream, r.sequence, r.number) = (
        SELECT b.edge_node_id, b.device, b.stream, b.sequence, b.number FROM sens.birth_replays b
        WHERE b.claimed_until < clock_timestamp()
        ORDER BY b.stream, b.sequence, b.number LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING r.edge_node_id, r.device, r.stream, r.sequence, r.number, r.topic, e.tenant_id, t.name AS tenant,
        (SELECT max(l.id) FROM sens.dead_letters l) AS until
"""
_GO_ON: Final = """
    UPDATE sens.birth_replays SET claimed_until = clock_timestamp() + interval '1 minute'
    WHERE (edge_node_id, device, stream, sequence, number) = ($1, $2, $3, $4, $5)
"""
_DONE: Final = (
    "DELETE FROM sens.birth_replays WHERE (edge_node_id, device, stream, sequence, number) = ($1, $2, $3, $4, $5)"
)
_WAITING: Final = """
    SELECT l.id, l.stream, l.sequence, l.number, l.payload_bytes, octet_length(l.payload) < l.payload_bytes AS is_shortened
    FROM sens.dead_letters l
    WHERE l.tenant_id = $1 AND l.reason = 'unknown_alias' AND left(l.topic, 200) = left($2, 200) AND l.topic = $2
        AND l.id > $3 AND l.id <= $4
    ORDER BY l.id LIMIT $5
"""
_WHOLE: Final = """
    SELECT l.id, l.payload, (extract(epoch FROM l.received_at) * 1000000)::bigint AS received_at, l.stream, l.sequence, l.number, l.replays
    FROM sens.dead_letters l WHERE l.id = ANY($1) ORDER BY l.id
"""


class ReplayStream(Protocol):
    """The stream."""

    async def replay(self, messages: Sequence[ReplayedMessage]) -> None:
        """Publish messages again; raise `storing.StoreUnavailableError` where it may not have happened."""


class _Waiting(NamedTuple):
    """A letter that waits, without its payload."""

    id: int
    origin: Origin
    size: int
    is_shortened: bool


class ExplainedLetters:
    """Replays dead letters whose birth has come."""

    def __init__(self, database: Database, stream: ReplayStream) -> None:
        self._database = database
        self._stream = stream

    async def keep_replaying(self, problems: Problems) -> None:
        """Replay again and again; the problems say why it can't be done."""
        attempts = Attempts(
            problems,
            "births",
            "dead letters whose births have come can't be replayed",
            retry_on=(StoreUnavailableError, RowsRefusedError),
            interval_seconds=_INTERVAL_SECONDS,
        )
        async for attempt in attempts:
            with attempt:
                while await self.replay_next():
                    pass

    async def replay_next(self) -> bool:
        """Replay what waits for one birth; tell whether there was one.

        Raises:
            StoreUnavailableError: Database or stream can't be used.
        """
        async with self._database.connection() as connection:
            claimed = await connection.fetchrow(_CLAIM)
            if claimed is None:
                return False
            node_id, device, *position, topic, tenant_id, tenant, until = claimed
            nodes = await read_histories(connection, [node_id])
        key = (node_id, device, *position)
        history = nodes[node_id].history if node_id in nodes else None
        above = replayed = 0
        while history is not None and until is not None:
            async with self._database.connection() as connection:
                await connection.execute(_GO_ON, *key)
                rows = await connection.fetch(_WAITING, tenant_id, topic, above, until, _LOOKED_AT_TOGETHER)
            if not rows:
                break
            above = rows[-1]["id"]
            waiting = [_Waiting(row[0], Origin(*row[1:4]), row[4], row[5]) for row in rows]
            explained = [
                each
                for each in waiting
                if not each.is_shortened
                and (found := history.explaining(device, each.origin)) is not None
                and found.position == Origin(*position)
            ]
            for together in _together(explained):
                replayed += await self._replay(topic, together)
        async with self._database.connection() as connection:
            await connection.execute(_DONE, *key)
        if replayed:
            metrics.REPLAYED.labels(tenant).inc(replayed)
            log.info("replayed dead letters whose birth has come", tenant=tenant, topic=topic, letters=replayed)
        return True

    async def _replay(self, topic: str, letters: Sequence[_Waiting]) -> int:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_WHOLE, [letter.id for letter in letters])
        await self._stream.replay(
            [ReplayedMessage(topic, row[1], row[2], Origin(*row[3:6]), row["replays"]) for row in rows]
        )
        async with self._database.connection() as connection:
            await connection.execute(
                "SELECT sens.delete_explained_letters($1, $2)",
                [row["id"] for row in rows],
                [row["replays"] for row in rows],
            )
        return len(rows)


def _together(letters: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Yield letters that are read and sent together."""
    together: list[_Waiting] = []
    size = 0
    for letter in letters:
        if together and (len(together) == _SENT_TOGETHER or size + letter.size > _SENT_TOGETHER_BYTES):
            yield together
            together, size = [], 0
        together.append(letter)
        size += letter.size
    if together:
        yield together
