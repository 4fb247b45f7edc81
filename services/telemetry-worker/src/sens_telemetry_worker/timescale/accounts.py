"""What a transaction writes beside the measurements: dead letters, counts, and which envelopes are settled."""

from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg
import numpy as np
from numpy.typing import NDArray

from sens_telemetry_worker.accounting import Part, Place, Record
from sens_telemetry_worker.letters import COLUMNS, Letter, Quota, apportion, copy_bytes
from sens_telemetry_worker.rows import Prepared
from sens_telemetry_worker.storing import SettledElsewhereError, StoreUnavailableError, Written
from sens_telemetry_worker.timescale.copying import copy_to
from sens_telemetry_worker.timescale.database import REFUSED_CLASSES, Connection, Database

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
_PUT: Final = f"""
    INSERT INTO sens.dead_letters AS d ({", ".join(COLUMNS)})
    SELECT DISTINCT ON (stream, sequence, number) {", ".join(COLUMNS)} FROM staged_dead_letters
    ORDER BY stream, sequence, number, replays DESC
    ON CONFLICT (stream, sequence, number) DO UPDATE SET
        tenant_id = excluded.tenant_id, device = excluded.device, dead_lettered_at = excluded.dead_lettered_at,
        reason = excluded.reason, detail = excluded.detail, replays = excluded.replays,
        payload = CASE WHEN octet_length(excluded.payload) > octet_length(d.payload) THEN excluded.payload ELSE d.payload END
    WHERE d.replays < excluded.replays
"""  # noqa: S608 - our own names
_RECORD: Final = """
    WITH counted AS (
        INSERT INTO sens.message_counts AS c
            (tenant_id, day, backend, received, stored, duplicate, dead_lettered, discarded)
        SELECT nullif(tenant_id, 0), day, pg_backend_pid(), received, stored, duplicate, dead_lettered, discarded
        FROM unnest($1::int[], $2::date[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
            AS batch (tenant_id, day, received, stored, duplicate, dead_lettered, discarded)
        ON CONFLICT (tenant_id, day, backend) DO UPDATE SET
            received = c.received + excluded.received, stored = c.stored + excluded.stored,
            duplicate = c.duplicate + excluded.duplicate, dead_lettered = c.dead_lettered + excluded.dead_lettered,
            discarded = c.discarded + excluded.discarded
    ), new AS (
        INSERT INTO sens.settled (stream, sequence, outcomes)
        SELECT * FROM unnest($8::bigint[], $9::bigint[], $10::bytea[])
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM new), (SELECT generation FROM sens.name_generation)
"""
# Reading the generation takes the lock of a reader, which who deletes devices or metrics waits for, and which waits for who does.
_GONE: Final = """
    SELECT EXISTS (SELECT FROM unnest($1::int[]) AS used (id) WHERE NOT EXISTS (SELECT FROM sens.devices d WHERE d.id = used.id))
        OR EXISTS (SELECT FROM unnest($2::int[]) AS used (id) WHERE NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = used.id))
"""
_GO_ON: Final = """
    UPDATE sens.settled s SET outcomes = step.after
    FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[]) AS step (stream, sequence, before, after)
    WHERE s.stream = step.stream AND s.sequence = step.sequence AND s.outcomes = step.before
"""
_RECORDED: Final = """
    SELECT s.stream, s.sequence, s.outcomes
    FROM unnest($1::bigint[], $2::bigint[]) AS wanted (stream, sequence) JOIN sens.settled s USING (stream, sequence)
"""


class LetterExistsError(Exception):
    """A dead letter of the same origin is stored already; the transaction has to be rolled back."""


class Accounts:
    """Dead letters, counts and settled envelopes."""

    def __init__(self, database: Database, unknown_tenants: Quota) -> None:
        self._database = database
        self._unknown_tenants = unknown_tenants

    async def write(
        self,
        connection: Connection,
        part: Part,
        new_values: NDArray[np.int64],
        conflicting: set[int],
        *,
        letters_are_new: bool,
    ) -> Written:
        """Write what belongs to the rows that the transaction has written.

        Args:
            connection: In the transaction.
            part: What is written.
            new_values: int64, for each message of the batch the number of its values that were not stored before.
            conflicting: Messages with a value other than the stored one.
            letters_are_new: Whether no dead letter of the same origin is expected to be there, which is quicker.

        Raises:
            LetterExistsError: There is one.
            SettledElsewhereError: An envelope is not as it was thought to be; what it is has to be asked for.
            StoreUnavailableError: The database refuses the dead letters or counts, or devices or metrics were deleted meanwhile.
        """
        try:
            return await self._write(connection, part, new_values, part.letters(conflicting), letters_are_new)
        except asyncpg.UniqueViolationError as error:
            raise LetterExistsError from error
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] in REFUSED_CLASSES:
                # No message is to blame for it, and none may be dropped.
                raise StoreUnavailableError(f"the database refuses dead letters or counts: {error}") from error
            raise

    async def _write(
        self,
        connection: Connection,
        part: Part,
        new_values: NDArray[np.int64],
        letters: list[Letter],
        letters_are_new: bool,
    ) -> Written:
        kept: list[Letter] = []
        discarded: list[Letter] = []
        if letters:
            kept, discarded = apportion(letters, await self._quotas(connection, letters))
            again = kept if not letters_are_new else [letter for letter in kept if letter.replays]
            new = [letter for letter in kept if not letter.replays] if letters_are_new else []
            if new:
                await copy_to(connection, "dead_letters", COLUMNS, copy_bytes(new), schema="sens")
            if again:
                await put_letters(connection, again)
        record = part.record(new_values, (letter.message for letter in kept), (letter.message for letter in discarded))
        generation = await _record(connection, record)
        if part.batch.generation != generation:
            self._database.name_generation = max(generation, self._database.name_generation)
            if await _some_are_gone(connection, part.rows):
                raise StoreUnavailableError(
                    "devices or metrics were deleted meanwhile; their names are looked up again"
                )
        return Written(new_values, kept, discarded, record)

    async def _quotas(self, connection: Connection, letters: Iterable[Letter]) -> dict[int, Quota]:
        rows = await connection.fetch(_QUOTAS, sorted({letter.tenant_id for letter in letters}))
        unknown = self._unknown_tenants
        return {
            row["id"]: Quota(
                row["dead_letter_count_limit"] if row["dead_letter_count_limit"] is not None else unknown.count_limit,
                row["dead_letter_byte_limit"] if row["dead_letter_byte_limit"] is not None else unknown.byte_limit,
                row["letters"],
                row["bytes"],
            )
            for row in rows
        }

    async def recorded(self, connection: Connection, part: Part) -> dict[Place, bytes | None]:
        """Return what the database knows of the batch's envelopes other than it was thought; see `accounting.Envelope`."""
        expected = part.batch.recorded()
        rows = await connection.fetch(_RECORDED, *_columns(expected, 2))
        found = {Place(row["stream"], row["sequence"]): row["outcomes"] for row in rows}
        return {place: outcomes for place, outcomes in found.items() if outcomes is None or outcomes != expected[place]}


async def _some_are_gone(connection: Connection, rows: Prepared) -> bool:
    """Tell whether a device or metric of the rows was deleted; behind the gate, so that the answer holds until the end of the transaction."""
    devices = {*np.unique(rows.numbers.device_id).tolist(), *(row.device_id for row in rows.texts)}
    ids = {*np.unique(rows.numbers.metric_id).tolist(), *(row.metric_id for row in rows.texts)}
    gone: bool = await connection.fetchval(_GONE, list(devices), list(ids))
    return gone


async def put_letters(connection: Connection, letters: Iterable[Letter]) -> None:
    """Write letters of which some may be there already, in a transaction."""
    await connection.execute(_STAGE)
    await copy_to(connection, "staged_dead_letters", COLUMNS, copy_bytes(letters))
    await connection.execute(_PUT)


async def _record(connection: Connection, record: Record) -> int:
    """Write counts and settled envelopes; return the generation of devices' and metrics' ids, which stays until the end of the transaction."""
    first = [each for each in record.settlements if each.before is None]
    further = [each for each in record.settlements if each.before is not None]
    row = await connection.fetchrow(
        _RECORD,
        *_columns(record.counts, 7),
        *_columns([(*each.envelope.entry.place, each.after) for each in first], 3),
    )
    assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
    new, generation = row
    if new != len(first):
        raise SettledElsewhereError({})
    if further:
        steps = [(*each.envelope.entry.place, each.before, each.after) for each in further]
        if await connection.execute(_GO_ON, *_columns(steps, 4)) != f"UPDATE {len(steps)}":
            raise SettledElsewhereError({})
    return int(generation)


def _columns(rows: Iterable[Sequence[object]], width: int) -> list[list[object]]:
    """Return rows as columns."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]
