"""Dead letters as they lie in the database."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg
from structlog.testing import capture_logs

from sens_common.database import connect
from sens_common.dead_letters import Origin, Reason
from sens_common.settings import DatabaseSettings
from sens_platform_api.dead_letters.repository import StoredDeadLetter, Summary

type Connection = asyncpg.Connection[asyncpg.Record]

RECEIVED_AT = datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
_OLD_STREAM = 1_000_000
_DETAIL = "the payload is not JSON"

_numbers = itertools.count(1)


class LetterRow(NamedTuple):
    """A dead letter; `tenant` is the name in its topic, which need not be one of a tenant that exists."""

    tenant: str | None
    device: str | None
    topic: str
    payload: bytes
    reason: str
    payload_bytes: int
    replays: int
    origin: Origin


def dead_letter(
    *,
    tenant: str | None = "demo",
    device: str | None = "sensor-1",
    payload: bytes = b"{",
    reason: str = Reason.MALFORMED_PAYLOAD,
    payload_bytes: int | None = None,
    replays: int = 0,
    origin: Origin | None = None,
) -> LetterRow:
    """Return a dead letter, of an envelope of its own unless an origin is given."""
    return LetterRow(
        tenant,
        device,
        f"sens/v1/{tenant}/{device}/telemetry" if tenant else "elsewhere",
        payload,
        reason,
        len(payload) if payload_bytes is None else payload_bytes,
        replays,
        origin or Origin(_OLD_STREAM, next(_numbers), 0),
    )


def stored_dead_letter(letter: LetterRow, letter_id: int) -> StoredDeadLetter:
    """Return a dead letter as the API reads it, when it was inserted just now."""
    summary = Summary(
        letter_id,
        letter.device,
        letter.topic,
        letter.reason,
        _DETAIL,
        letter.payload_bytes,
        len(letter.payload) < letter.payload_bytes,
        RECEIVED_AT,
        datetime.now(UTC),
        letter.replays,
    )
    return StoredDeadLetter(summary, letter.payload, letter.origin)


async def insert_dead_letters(
    connection: "Connection | asyncpg.Pool[asyncpg.Record]", letters: Sequence[LetterRow]
) -> list[int]:
    """Put dead letters into the database; return their numbers."""
    return [
        await connection.fetchval(
            """
            INSERT INTO sens.dead_letters (tenant_id, device, topic, received_at, dead_lettered_at, reason, detail, payload,
                payload_bytes, stream, sequence, number, replays)
            VALUES ((SELECT id FROM sens.tenants WHERE name = $1), $2, $3, $4, now(), $5, $6, $7, $8, $9, $10,
                $11, $12)
            RETURNING id
            """,
            letter.tenant,
            letter.device,
            letter.topic,
            RECEIVED_AT,
            letter.reason,
            _DETAIL,
            letter.payload,
            letter.payload_bytes,
            *letter.origin,
            letter.replays,
        )
        for letter in letters
    ]


def put_dead_letters(database: DatabaseSettings, letters: Sequence[LetterRow]) -> list[int]:
    """Do the same as the owner of a database."""

    async def run() -> list[int]:
        connection = await connect(database, "test")
        try:
            return await insert_dead_letters(connection, letters)
        finally:
            await connection.close()

    with capture_logs():
        return asyncio.run(run())
