"""The table of dead letters: quotas, and how letters get into it."""

import struct
from collections.abc import Iterable
from typing import Final

import asyncpg

from sens_common.database import Connection
from sens_telemetry_worker.letters import Apportioned, Letter, Quota, apportion
from sens_telemetry_worker.timescale.binary_copy import POSTGRES_EPOCH_MICROSECONDS, SIGNATURE, TRAILER, copy_to

COLUMNS: Final = (
    "tenant_id", "device", "topic", "received_at", "dead_lettered_at", "reason", "detail", "payload", "payload_bytes",
    "stream", "sequence", "number", "replays",
)  # fmt: skip
_LATEST: Final = 253_402_300_799_999_999  # the year 9999, with which dates of other programs end
_NULL: Final = struct.pack(">i", -1)
_TENANT: Final = struct.Struct(">hii")
_NO_TENANT: Final = struct.Struct(">hi")
_LENGTH: Final = struct.Struct(">i")
_TIMES: Final = struct.Struct(">iqiq")
_END: Final = struct.Struct(">iiiqiqiiii")

_QUOTAS: Final = """
    SELECT wanted.id, t.dead_letter_count_limit, t.dead_letter_byte_limit, usage.letters, usage.bytes
    FROM unnest($1::int[]) AS wanted (id) LEFT JOIN sens.tenants t ON t.id = wanted.id
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(u.letters), 0)::bigint AS letters, coalesce(sum(u.bytes), 0)::bigint AS bytes
        FROM sens.dead_letter_usage u
        WHERE u.tenant_id = wanted.id OR (wanted.id = 0 AND u.tenant_id IS NULL)
    ) usage
"""
# The columns are those of a COPY, so that both ways take the same bytes.
_STAGE: Final = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_dead_letters ON COMMIT DELETE ROWS AS
    SELECT {", ".join(COLUMNS)} FROM sens.dead_letters WITH NO DATA
"""  # noqa: S608 - our own names
# A letter whose message was replayed and refused again is there, unless its replay was faster in deleting it. What a quota has
# shortened meanwhile does not take the place of the whole; an older replay's refusal has no effect.
_MERGE: Final = f"""
    INSERT INTO sens.dead_letters AS d ({", ".join(COLUMNS)})
    SELECT DISTINCT ON (stream, sequence, number) {", ".join(COLUMNS)} FROM staged_dead_letters
    ORDER BY stream, sequence, number, replays DESC
    ON CONFLICT (stream, sequence, number) DO UPDATE SET
        tenant_id = excluded.tenant_id, device = excluded.device, dead_lettered_at = excluded.dead_lettered_at,
        reason = excluded.reason, detail = excluded.detail, replays = excluded.replays,
        payload = CASE WHEN octet_length(excluded.payload) > octet_length(d.payload) THEN excluded.payload ELSE d.payload END
    WHERE d.replays < excluded.replays
"""  # noqa: S608 - our own names


class LetterExistsError(Exception):
    """A dead letter of the same origin is stored already; the transaction has to be rolled back."""


async def write_letters(
    connection: Connection, letters: list[Letter], unknown_tenants: Quota, *, are_new: bool
) -> Apportioned:
    """Write letters as far as their tenants' quotas have room.

    Args:
        connection: In a transaction.
        letters: Some.
        unknown_tenants: The limits of those that belong to no tenant.
        are_new: Whether none of them is expected to be there, which is quicker.

    Raises:
        LetterExistsError: One that was expected to be new is there.
    """
    if not letters:
        return Apportioned([], [])
    kept, discarded = apportion(letters, await _quotas(connection, letters, unknown_tenants))
    copied = [letter for letter in kept if are_new and not letter.replays]
    merged = [letter for letter in kept if not are_new or letter.replays]
    if copied:
        try:
            await copy_to(connection, "dead_letters", COLUMNS, copy_bytes(copied), schema="sens")
        except asyncpg.UniqueViolationError as error:
            raise LetterExistsError from error
    if merged:
        await merge_letters(connection, merged)
    return Apportioned(kept, discarded)


async def merge_letters(connection: Connection, letters: Iterable[Letter]) -> None:
    """Write letters of which some may be there already, in a transaction."""
    await connection.execute(_STAGE)
    await copy_to(connection, "staged_dead_letters", COLUMNS, copy_bytes(letters))
    await connection.execute(_MERGE)


async def _quotas(connection: Connection, letters: Iterable[Letter], unknown_tenants: Quota) -> dict[int, Quota]:
    rows = await connection.fetch(_QUOTAS, sorted({letter.tenant_id for letter in letters}))
    return {
        row["id"]: Quota(
            unknown_tenants.count_limit if row["dead_letter_count_limit"] is None else row["dead_letter_count_limit"],
            unknown_tenants.byte_limit if row["dead_letter_byte_limit"] is None else row["dead_letter_byte_limit"],
            row["letters"],
            row["bytes"],
        )
        for row in rows
    }


def copy_bytes(letters: Iterable[Letter]) -> bytes:
    """Return letters as a binary COPY of `COLUMNS`."""
    parts = [SIGNATURE]
    for letter in letters:
        topic, reason, detail = _plain(letter.topic).encode(), letter.reason.encode(), _plain(letter.detail).encode()
        if letter.tenant_id:
            parts.append(_TENANT.pack(len(COLUMNS), 4, letter.tenant_id))
        else:
            parts.append(_NO_TENANT.pack(len(COLUMNS), -1))
        if letter.device is None:
            parts.append(_NULL)
        else:
            device = letter.device.encode()
            parts += (_LENGTH.pack(len(device)), device)
        parts += (
            _LENGTH.pack(len(topic)),
            topic,
            _TIMES.pack(8, _postgres_time(letter.received_at), 8, _postgres_time(letter.dead_lettered_at)),
            _LENGTH.pack(len(reason)),
            reason,
            _LENGTH.pack(len(detail)),
            detail,
            _LENGTH.pack(len(letter.payload)),
            letter.payload,
            _END.pack(
                *(4, letter.payload_bytes),
                *(8, letter.origin.stream_created_at),
                *(8, letter.origin.sequence),
                *(4, letter.origin.message_index),
                *(4, letter.replays),
            ),
        )
    parts.append(TRAILER)
    return b"".join(parts)


def _plain(text: str) -> str:
    """Return a text without the character that PostgreSQL's texts can't hold."""
    return text.replace("\0", "�") if "\0" in text else text


def _postgres_time(microseconds: int) -> int:
    """Return the time, or the nearest one that every program can show; an ingestion worker sends no other."""
    return min(max(microseconds, 0), _LATEST) - POSTGRES_EPOCH_MICROSECONDS
