"""The table of runs, and the kept messages that their steps read."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from sens_common.database import Connection
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_payloads.profiles import CodecVersion
from sens_telemetry_worker.codec_runs.report import Report
from sens_telemetry_worker.codec_runs.runs import (
    CodecVersionGoneError,
    KeptFrame,
    Progress,
    Run,
    RunFailedError,
    RunLostError,
    StreamMessage,
    Window,
    microseconds,
    moment,
)
from sens_telemetry_worker.timescale.database import Database

MOST_CANDIDATES: Final = 6
"""Versions with which it is looked what a message had led to that was not kept."""
MOST_AT_ONE_TIME: Final = 10_000
"""Messages of a device that have a reading of the same time."""

_TAKE: Final = """
    UPDATE sens.codec_runs r SET taken_until = now() + interval '10 seconds'
    FROM sens.tenants t
    WHERE t.id = r.tenant_id AND r.id = (
        SELECT o.id FROM sens.codec_runs o WHERE o.finished_at IS NULL AND o.taken_until < now()
        ORDER BY o.continued_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING r.id, r.tenant_id, t.name, r.kind, r.device, r.first, r.past, r.codec, r.number, r.other_number, r.source,
        r.progress::text AS progress, r.report::text AS report
"""
_VERSIONS: Final = """
    SELECT v.number, v.sha256, v.source FROM sens.codec_versions v JOIN sens.codecs c ON c.id = v.codec_id
    WHERE c.tenant_id = $1 AND c.name = $2
    ORDER BY v.number IN ($3, $4) DESC, v.number DESC LIMIT $5
"""
_WINDOW: Final = """
    SELECT f.ts, f.received_at, f.stream, f.sequence, f.number, f.source_id, f.multiple, f.topic, f.payload
    FROM sens.frames f
    WHERE f.device_id = $1 AND f.ts >= $2 AND f.ts < $3 AND NOT (f.stream = $4 AND f.sequence > $5)
    ORDER BY f.ts, f.received_at, f.stream, f.sequence, f.number LIMIT $6
"""
_PAYLOADS: Final = """
    SELECT w.i, f.topic, f.payload
    FROM unnest($1::int[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::int[]) AS w (i, received_at, stream, sequence, number)
    JOIN sens.frames f ON f.multiple AND f.sequence = w.sequence AND f.number = w.number AND f.stream = w.stream AND f.received_at = w.received_at
    WHERE f.payload IS NOT NULL
"""
_KEPT: Final = """
    SELECT f.ts, f.stream, f.sequence, f.number FROM sens.frames f
    WHERE f.device_id = $1 AND f.ts = ANY ($2) AND f.ts BETWEEN $3 AND $4
"""
_REFUSED: Final = """
    SELECT l.stream, l.sequence, l.number FROM unnest($1::bigint[], $2::bigint[], $3::int[]) AS w (stream, sequence, number)
    JOIN sens.dead_letters l USING (stream, sequence, number)
"""
_OF_SOURCE: Final = """
    SELECT f.received_at, f.stream, f.sequence, f.number, f.topic, f.payload FROM sens.frames f
    WHERE f.source_id = $1 AND f.received_at >= $2 AND f.received_at < $3 AND f.payload IS NOT NULL AND NOT (f.stream = $4 AND f.sequence > $5)
    ORDER BY f.received_at LIMIT $6
"""
_KEPT_OF_SOURCES: Final = """
    SELECT f.stream, f.sequence, f.number FROM sens.frames f
    WHERE f.source_id = ANY ($1) AND f.received_at = ANY ($2) AND f.received_at BETWEEN $3 AND $4
"""
_LETTERS: Final = """
    SELECT l.id, l.received_at, l.stream, l.sequence, l.number, l.topic, l.payload FROM sens.dead_letters l
    WHERE l.tenant_id = $1 AND l.id > $2 AND l.received_at >= $3 AND l.received_at < $4 AND octet_length(l.payload) = l.payload_bytes
        AND NOT (l.stream = $6 AND l.sequence >= $7)
    ORDER BY l.id LIMIT $5
"""
_SAVE: Final = """
    UPDATE sens.codec_runs SET progress = $2::text::jsonb, report = $3::text::jsonb, continued_at = clock_timestamp(), taken_until = '-infinity'
    WHERE id = $1
"""


class StoredRuns:
    """The runs of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self) -> Run | None:
        """Take the run that was left alone for longest; None when there is none that nobody is at.

        Raises:
            CodecVersionGoneError: The run is finished with that.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_TAKE)
            if row is None:
                return None
            versions = await connection.fetch(
                _VERSIONS, row["tenant_id"], row["codec"], row["number"], row["other_number"], MOST_CANDIDATES
            )
            found = {number: CodecVersion(row["codec"], number, sha256, source) for number, sha256, source in versions}
            for number in (row["number"], row["other_number"]):
                if number is not None and number not in found:
                    gone = f"{row['codec']}@{number}"
                    await _finish(connection, row["id"], f"codec {gone} was deleted")
                    raise CodecVersionGoneError(gone)
        return _run(row, found)

    async def give_back(self, run: Run) -> None:
        """Let the run be taken again at once, without having done anything of it."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE sens.codec_runs SET taken_until = '-infinity', continued_at = clock_timestamp() WHERE id = $1",
                run.id,
            )

    async def save(self, run: Run) -> None:
        """Keep how far a run is, without anything else.

        Raises:
            RunLostError: It was cancelled, or another worker has done the step.
        """
        async with self._database.connection() as connection, connection.transaction():
            await lock_run(connection, run)
            await save_run(connection, run)

    async def finish(self, run: Run, failure: str | None = None) -> None:
        """End a run; `failure` says why it could not be finished."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(_SAVE, run.id, run.progress.text(), run.report.text())
            await _finish(connection, run.id, failure)

    async def window(self, run: Run, device_id: int, first: int, most: int) -> Window:
        """Return the next kept messages of a device, at most about so many; all that have a reading of a time are together.

        Raises:
            StoreUnavailableError: The database can't be asked.
            RunFailedError: There are too many of one time.
        """
        past = run.past
        async with self._database.connection() as connection:
            arguments = device_id, moment(first), run.progress.stream, run.progress.until
            rows = await _window(connection, *arguments, past=past, most=most + 1)
            if len(rows) > most:
                last = microseconds(rows[-1]["ts"])
                past = last if last > microseconds(rows[0]["ts"]) else last + 1
                rows = [row for row in rows if microseconds(row["ts"]) < past]
                if past == last + 1:
                    rows = await _window(connection, *arguments, past=past, most=MOST_AT_ONE_TIME + 1)
                    if len(rows) > MOST_AT_ONE_TIME:
                        raise RunFailedError(
                            f"more than {MOST_AT_ONE_TIME:,} messages have a reading of {rows[0]['ts']}"
                        )
            return Window(first, past, await _frames(connection, rows))

    async def not_kept(self, device_id: int, messages: Sequence[tuple[StreamMessage, int]]) -> list[bool]:
        """See `ports.Runs.not_kept`."""
        times = [moment(ts) for _, ts in messages]
        async with self._database.connection() as connection:
            rows = await connection.fetch(_KEPT, device_id, times, min(times), max(times))
            origins = zip(*(message.origin for message, _ in messages), strict=True)
            refused = {Origin(*row) for row in await connection.fetch(_REFUSED, *map(list, origins))}
        kept = {(microseconds(ts), Origin(*origin)) for ts, *origin in rows}
        return [(ts, message.origin) not in kept and message.origin not in refused for message, ts in messages]

    async def kept_of_source(self, run: Run, source_id: int, first: int, most: int) -> tuple[list[StreamMessage], int]:
        """See `ports.Runs.kept_of_source`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _OF_SOURCE,
                source_id,
                moment(first),
                moment(run.past),
                run.progress.stream,
                run.progress.until,
                most + 1,
            )
        past = run.past
        if len(rows) > most:
            last = microseconds(rows[-1]["received_at"])
            # All of one time of receipt are taken together.
            past = last if last > microseconds(rows[0]["received_at"]) else last + 1
        return [_message(row) for row in rows if microseconds(row["received_at"]) < past], past

    async def not_kept_of_sources(self, messages: Sequence[tuple[StreamMessage, int]]) -> list[bool]:
        """See `ports.Runs.not_kept_of_sources`."""
        received = [moment(each.message.received_at) for each, _ in messages]
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _KEPT_OF_SOURCES, [source_id for _, source_id in messages], received, min(received), max(received)
            )
        kept = {Origin(*row) for row in rows}
        return [each.origin not in kept for each, _ in messages]

    async def letters(self, run: Run, most: int) -> tuple[list[StreamMessage], int | None]:
        """See `ports.Runs.letters`."""
        progress = run.progress
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _LETTERS,
                run.tenant_id,
                progress.letter_id,
                moment(run.first),
                moment(run.past),
                most,
                progress.stream,
                progress.first_sequence or 2**62,
            )
        return [_message(row) for row in rows], rows[-1]["id"] if len(rows) == most else None


def _message(row: asyncpg.Record) -> StreamMessage:
    origin = Origin(row["stream"], row["sequence"], row["number"])
    return StreamMessage(origin, Message(row["topic"], row["payload"], microseconds(row["received_at"])))


async def lock_run(connection: Connection, run: Run) -> None:
    """Look that a run is as it was taken, and keep it so until the end of the transaction.

    Raises:
        RunLostError: It is not.
    """
    progress = await connection.fetchval(
        "SELECT progress::text FROM sens.codec_runs WHERE id = $1 AND finished_at IS NULL FOR UPDATE", run.id
    )
    if progress != run.written_progress:
        raise RunLostError


async def save_run(connection: Connection, run: Run) -> None:
    """Keep how far a run is, in the transaction of a step."""
    await connection.execute(_SAVE, run.id, run.progress.text(), run.report.text())


async def _finish(connection: Connection, run_id: int, failure: str | None) -> None:
    await connection.execute("SELECT sens.finish_codec_run($1, $2)", run_id, failure)


def _run(row: asyncpg.Record, versions: dict[int, CodecVersion]) -> Run:
    progress, report = row["progress"], Report.of(row["report"])
    return Run(
        row["id"],
        row["tenant_id"],
        row["name"],
        row["kind"],
        row["device"],
        microseconds(row["first"]),
        microseconds(row["past"]),
        versions[row["number"]],
        versions.get(row["other_number"]),
        row["source"],
        [version for number, version in versions.items() if number != row["number"]],
        Progress.of(progress),
        report,
        progress,
    )


async def _window(
    connection: Connection, device_id: int, first: object, stream: int, until: int, *, past: int, most: int
) -> list[asyncpg.Record]:
    return list(await connection.fetch(_WINDOW, device_id, first, moment(past), stream, until, most))


async def _frames(connection: Connection, rows: list[asyncpg.Record]) -> list[KeptFrame]:
    """Return rows with their messages; of further rows of a message it is in another one."""
    apart = [
        (index, row["received_at"], row["stream"], row["sequence"], row["number"])
        for index, row in enumerate(rows)
        if row["payload"] is None
    ]
    bodies = {index: (row["topic"], row["payload"]) for index, row in enumerate(rows)}
    if apart:
        columns = (list(column) for column in zip(*apart, strict=True))
        bodies |= {row["i"]: (row["topic"], row["payload"]) for row in await connection.fetch(_PAYLOADS, *columns)}
    return [
        KeptFrame(
            microseconds(row["ts"]),
            Origin(row["stream"], row["sequence"], row["number"]),
            row["source_id"],
            None if payload is None else Message(topic, payload, microseconds(row["received_at"])),
        )
        for row, (topic, payload) in zip(rows, bodies.values(), strict=True)
    ]
