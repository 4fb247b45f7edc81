"""The accounts that a transaction writes: counts, and which envelopes are settled."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, cast

from sens_common.database import Connection
from sens_telemetry_worker.accounting import AccountsUpdate
from sens_telemetry_worker.batch import StreamPosition, UndecidedMessages

_RECORD: Final = """
    WITH counted AS (
        INSERT INTO sens.message_counts AS c
            (tenant_id, day, backend, received, stored, duplicate, dead_lettered, discarded, without_measurements)
        SELECT nullif(tenant_id, 0), day, pg_backend_pid(), received, stored, duplicate, dead_lettered, discarded, without_measurements
        FROM unnest($1::int[], $2::date[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
            AS batch (tenant_id, day, received, stored, duplicate, dead_lettered, discarded, without_measurements)
        ON CONFLICT (tenant_id, day, backend) DO UPDATE SET
            received = c.received + excluded.received, stored = c.stored + excluded.stored,
            duplicate = c.duplicate + excluded.duplicate, dead_lettered = c.dead_lettered + excluded.dead_lettered,
            discarded = c.discarded + excluded.discarded,
            without_measurements = c.without_measurements + excluded.without_measurements
    ), new AS (
        INSERT INTO sens.settled (stream, sequence, outcomes)
        SELECT * FROM unnest($9::bigint[], $10::bigint[], $11::bytea[])
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM new), (SELECT watermark FROM sens.rollup_state)
"""
# Reading the watermark passes the gate of the rollups: it stays where it is until the end of the transaction.
_GO_ON: Final = """
    UPDATE sens.settled s SET outcomes = step.after
    FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[]) AS step (stream, sequence, before, after)
    WHERE s.stream = step.stream AND s.sequence = step.sequence AND s.outcomes = step.before
"""
_RECORDED: Final = """
    SELECT s.stream, s.sequence, s.outcomes
    FROM unnest($1::bigint[], $2::bigint[]) AS wanted (stream, sequence) JOIN sens.settled s USING (stream, sequence)
"""


class OutcomesChangedError(Exception):
    """The recorded outcomes of an envelope are not what they were thought to be; the transaction has to be rolled back."""


async def write_accounts(connection: Connection, update: AccountsUpdate) -> datetime:
    """Write counts and settled envelopes; return the watermark of the rollups, which stays until the end of the transaction.

    Raises:
        OutcomesChangedError: Another worker was faster.
    """
    first = [each for each in update.settlements if each.before is None]
    further = [each for each in update.settlements if each.before is not None]
    row = await connection.fetchrow(
        _RECORD,
        *_columns(update.counts, 8),
        *_columns([(*each.progress.envelope.position, each.after) for each in first], 3),
    )
    assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
    new, watermark = row
    if new != len(first):
        raise OutcomesChangedError
    if further:
        steps = [(*each.progress.envelope.position, each.before, each.after) for each in further]
        if await connection.execute(_GO_ON, *_columns(steps, 4)) != f"UPDATE {len(steps)}":
            raise OutcomesChangedError
    return cast("datetime", watermark)


async def read_changed_outcomes(
    connection: Connection, undecided: UndecidedMessages
) -> dict[StreamPosition, bytes | None]:
    """Return what the database knows of envelopes other than it was thought; see `batch.EnvelopeProgress.adopt_recorded`."""
    expected = undecided.recorded()
    rows = await connection.fetch(_RECORDED, *_columns(expected, 2))
    found = {StreamPosition(row["stream"], row["sequence"]): row["outcomes"] for row in rows}
    return {
        position: outcomes for position, outcomes in found.items() if outcomes is None or outcomes != expected[position]
    }


def _columns(rows: Iterable[Sequence[object]], width: int) -> list[list[object]]:
    """Return rows as columns."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]
