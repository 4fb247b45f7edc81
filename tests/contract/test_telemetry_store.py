"""What the telemetry pipeline expects of a database, held by the one in memory and by PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.accounting import mark_committed
from sens_telemetry_worker.batch import EnvelopeProgress, MessageOutcome, Rejection, StreamPosition, UndecidedMessages
from sens_telemetry_worker.letters import Letter, Quota
from sens_telemetry_worker.rows import Rows
from sens_telemetry_worker.storing import ProgressMadeElsewhereError, RowsRefusedError, Store, StoreUnavailableError
from sens_telemetry_worker.timescale.binary_copy import copy_to
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.dead_letters import COLUMNS, copy_bytes
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.depth import tries
from support.letters import dead_letter, insert_dead_letters
from support.memory import MemoryEnvelope, MemoryStore
from support.parts import NO_QUOTA, part_of
from support.rows import INSERT_NAMES, KeyedValue, rows_of
from support.servers import execute_as, owner_pool

type Opener = Callable[[], AbstractAsyncContextManager[Store]]

AT = 1_700_000_000_000_000
CONFLICT = "conflicting_value"


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open an empty store, and the same one again."""
    if request.param == "memory":
        memory = MemoryStore(quota=NO_QUOTA)

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Store]:
            yield memory

        return open_memory
    database: DatabaseSettings = request.getfixturevalue("database")
    asyncio.run(execute_as(database, INSERT_NAMES))

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Store]:
        async with open_pool(database, "test") as pool:
            yield TimescaleStore(Database(pool, database), NO_QUOTA)

    return open_database


type QuotaOpener = Callable[[Quota], AbstractAsyncContextManager[Store]]


@pytest.fixture(params=["memory", "postgresql"])
def opened_with_quota(request: pytest.FixtureRequest) -> QuotaOpener:
    """Open an empty store where those of no tenant have a quota."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory(quota: Quota) -> AsyncIterator[Store]:
            yield MemoryStore(quota=quota)

        return open_memory
    database: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database(quota: Quota) -> AsyncIterator[Store]:
        async with open_pool(database, "test") as pool:
            yield TimescaleStore(Database(pool, database), quota)

    return open_database


def rows(*values: tuple[int, int, int, float], texts: tuple[KeyedValue, ...] = ()) -> Rows:
    """Return readings given as (message index, device, microseconds after AT, value of metric 1), and with texts."""
    return rows_of([*(KeyedValue(message, device, AT + at, 1, value) for message, device, at, value in values), *texts])


def text(message_index: int, at: int, value: str) -> KeyedValue:
    """Return a text of metric 2 of device 1."""
    return KeyedValue(message_index, 1, AT + at, 2, value)


async def write(store: Store, prepared: Rows, messages: int) -> tuple[list[int], set[int]]:
    """Write a new envelope; return the new values of each message, and the messages that conflict."""
    written = await store.write(part_of(prepared, messages))
    assert {letter.reason for letter in written.letters} <= {CONFLICT}
    return written.new_values.tolist(), {letter.message_index for letter in written.letters}


class TestWrite:
    async def test_counts_new_values_for_each_message(self, opened: Opener) -> None:
        async with opened() as store:
            prepared = rows((0, 1, 0, 1.0), (0, 1, 1, 2.0), (2, 2, 0, 3.0), texts=(text(1, 0, "é"),))
            assert await write(store, prepared, 4) == ([2, 1, 1, 0], set())

    async def test_of_the_same_values_again_has_no_effect(self, opened: Opener) -> None:
        same = rows((0, 1, 0, 1.0), texts=(text(0, 0, "x"),))
        async with opened() as store:
            await write(store, same, 1)
            assert await write(store, same, 1) == ([0], set())

    async def test_keeps_the_stored_value_and_dead_letters_the_message_with_another_one(self, opened: Opener) -> None:
        async with opened() as store:
            await write(store, rows((0, 1, 0, 1.0), texts=(text(0, 0, "x"),)), 1)
            other = rows((0, 1, 0, 9.0), (1, 1, 0 + 5, 1.0), texts=(text(2, 0, "y"),))
            assert await write(store, other, 3) == ([0, 1, 0], {0, 2})

    async def test_finds_a_home_for_every_time_from_2000_on(self, opened: Opener) -> None:
        year = 31_557_600_000_000
        async with opened() as store:
            prepared = rows(*((number, 1, -number * year, 1.0) for number in range(23)))
            assert await write(store, prepared, 23) == ([1] * 23, set())

    async def test_by_several_lanes_at_once_stores_everything_once(self, opened: Opener) -> None:
        async with opened() as store:
            overlapping = [
                rows(*((number, 1, start + number, 1.0) for number in range(200))) for start in range(0, 400, 50)
            ]
            written = await asyncio.gather(*(write(store, batch, 200) for batch in overlapping))
            assert sum(sum(new_values) for new_values, _ in written) == 550
            assert not any(conflicting for _, conflicting in written)


class TestSettledEnvelope:
    async def test_is_neither_stored_nor_counted_again(self, opened: Opener) -> None:
        async with opened() as store:
            first = part_of(rows((0, 1, 0, 1.0)), 1, sequence=1, rejected=[])
            await store.write(first)
            with pytest.raises(ProgressMadeElsewhereError) as refusal:
                await store.write(part_of(rows((0, 1, 7, 1.0)), 1, sequence=1))
            assert refusal.value.recorded == {StreamPosition(1, 1): None}
            assert await write(store, rows((0, 1, 7, 1.0)), 1) == ([1], set())

    async def test_whose_dead_letters_come_again_has_them_once(self, opened: Opener) -> None:
        bad = [Rejection(0, "malformed_payload", "bad")]
        async with opened() as store:
            await store.write(part_of(rows(), 1, sequence=1, rejected=bad))
            with pytest.raises(ProgressMadeElsewhereError) as refusal:
                await store.write(part_of(rows(), 1, sequence=1, rejected=bad))
            assert refusal.value.recorded == {StreamPosition(1, 1): None}

    async def test_is_settled_once_by_several_lanes_at_once(self, opened: Opener) -> None:
        async with opened() as store:
            parts = [part_of(rows((0, 1, number, 1.0)), 1, sequence=1) for number in range(8)]
            outcomes = await asyncio.gather(*map(store.write, parts), return_exceptions=True)
            assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
            assert sum(isinstance(outcome, ProgressMadeElsewhereError) for outcome in outcomes) == 7

    async def test_may_be_empty(self, opened: Opener) -> None:
        async with opened() as store:
            await store.write(part_of(rows(), 0, sequence=1, says_received={"~": 3}, discarded={"~": 3}))
            with pytest.raises(ProgressMadeElsewhereError):
                await store.write(part_of(rows(), 0, sequence=1))


class TestEnvelopeInParts:
    async def test_is_gone_on_with_by_who_knows_what_is_done(self, opened: Opener) -> None:
        async with opened() as store:
            progress = EnvelopeProgress.of(MemoryEnvelope(1, [Message("elsewhere", b"", AT)] * 3))
            written = await store.write(part_of(rows((1, 1, 0, 1.0)), 3, envelopes=[progress], only=[1]))
            mark_committed(written.accounts)
            assert progress.recorded == bytes([0, MessageOutcome.STORED, 0])

            # Another worker gets it too, and does not know.
            other = EnvelopeProgress.of(progress.envelope)
            with pytest.raises(ProgressMadeElsewhereError) as refusal:
                await store.write(part_of(rows((0, 1, 1, 1.0)), 3, envelopes=[other]))
            other.adopt_recorded(refusal.value.recorded[StreamPosition(1, 1)])
            assert len(UndecidedMessages.of([other]).messages) == 2
            await store.write(part_of(rows((0, 1, 1, 1.0), (1, 1, 2, 1.0)), 2, envelopes=[other]))

            # The first one comes too late.
            with pytest.raises(ProgressMadeElsewhereError) as refusal:
                await store.write(part_of(rows((0, 1, 3, 1.0)), 2, envelopes=[progress], only=[0]))
            assert refusal.value.recorded == {StreamPosition(1, 1): None}


class TestReplay:
    async def test_that_is_refused_again_updates_its_dead_letter(self, database: DatabaseSettings) -> None:
        """Whether the API has deleted it or not, in either order, and twice."""

        origin = Origin(7, 7, 0)
        bad = [Rejection(0, "malformed_payload", "still bad")]
        async with open_pool(database, "test") as worker, owner_pool(database) as pool:
            store = TimescaleStore(Database(worker, database), NO_QUOTA)

            async def letters() -> list[tuple[int, str]]:
                found = await pool.fetch("SELECT replays, detail FROM sens.dead_letters ORDER BY id")
                return [(row["replays"], row["detail"]) for row in found]

            await insert_dead_letters(pool, [dead_letter(origin=origin)])
            await store.write(part_of(rows(), 1, rejected=bad, origins=[origin], replays=1))
            assert await letters() == [(1, "still bad")]
            # The same replay, sent twice, has no further effect.
            await store.write(part_of(rows(), 1, rejected=bad, origins=[origin], replays=1))
            assert await letters() == [(1, "still bad")]
            # The API was faster in deleting.
            await pool.execute("DELETE FROM sens.dead_letters")
            await store.write(part_of(rows(), 1, rejected=bad, origins=[origin], replays=2))
            assert await letters() == [(2, "still bad")]
            # An older copy comes late.
            older = [Rejection(0, "malformed_payload", "older")]
            await store.write(part_of(rows(), 1, rejected=older, origins=[origin], replays=1))
            assert await letters() == [(2, "still bad")]
            # Twice in one batch.
            twice = [Rejection(number, "malformed_payload", "again") for number in range(2)]
            await store.write(part_of(rows(), 2, rejected=twice, origins=[origin, origin], replays=3))
            assert await letters() == [(3, "again")]
            usage = await pool.fetchrow("SELECT sum(letters)::int, count(*)::int FROM sens.dead_letter_usage")
            assert usage is not None
            assert usage[0] == 1

    async def test_of_the_whole_does_not_lose_it_to_a_quota(self, database: DatabaseSettings) -> None:
        origin = Origin(7, 7, 0)
        async with open_pool(database, "test") as pool:
            store = TimescaleStore(Database(pool, database), Quota(0, 0, 0, 0))
            bad = [Rejection(0, "malformed_payload", "bad")]
            await store.write(part_of(rows(), 1, rejected=bad, origins=[origin], replays=1, payload=bytes(9000)))
            assert [row[0] for row in await pool.fetch("SELECT octet_length(payload) FROM sens.dead_letters")] == [9000]


class TestQuota:
    async def test_shortens_over_its_bytes_and_discards_over_its_count(self, opened_with_quota: QuotaOpener) -> None:
        async with opened_with_quota(Quota(3, 10_000, 0, 0)) as store:
            bad = [Rejection(number, "malformed_payload", "bad") for number in range(2)]
            written = await store.write(part_of(rows(), 2, rejected=bad, payload=bytes(8000)))
            assert [len(letter.payload) for letter in written.letters] == [8000, 4096]
            assert [letter.payload_bytes for letter in written.letters] == [8000, 8000]
            written = await store.write(part_of(rows(), 2, rejected=bad, payload=b"{"))
            assert [letter.message_index for letter in written.letters] == [0]
            assert [letter.message_index for letter in written.discarded] == [1]
            (count,) = written.accounts.counts
            assert (count.received, count.dead_lettered, count.discarded) == (2, 1, 1)

    async def test_keeps_the_beginning_of_what_is_too_large_in_any_case(self, opened: Opener) -> None:
        async with opened() as store:
            bad = [Rejection(0, "too_large", "bad")]
            written = await store.write(part_of(rows(), 1, rejected=bad, payload=bytes(300_000)))
            assert [(len(each.payload), each.payload_bytes) for each in written.letters] == [(4096, 300_000)]

    async def test_counts_what_is_there_after_every_way_of_adding_and_deleting(
        self, database: DatabaseSettings
    ) -> None:
        async with owner_pool(database) as pool:

            async def used() -> dict[int | None, tuple[int, int]]:
                found = await pool.fetch(
                    "SELECT tenant_id, sum(letters)::int, sum(bytes)::int FROM sens.dead_letter_usage GROUP BY 1"
                )
                return {row[0]: (row[1], row[2]) for row in found if row[1] or row[2]}

            size = len("sens/v1/demo/sensor-1/telemetry") + len("the payload is not JSON") + 1
            await insert_dead_letters(pool, [dead_letter() for _ in range(3)])
            assert await used() == {None: (3, 3 * size)}
            tenant = await pool.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
            assert await used() == {tenant: (3, 3 * size)}
            await pool.execute("DELETE FROM sens.dead_letters WHERE id = (SELECT min(id) FROM sens.dead_letters)")
            assert await used() == {tenant: (2, 2 * size)}
            await pool.execute("UPDATE sens.dead_letter_usage SET backend = -1")  # of a session that has ended
            await pool.execute("SELECT sens.compact_dead_letter_usage()")
            assert await used() == {tenant: (2, 2 * size)}
            await pool.execute("DELETE FROM sens.tenants")
            assert await used() == {}
            assert await pool.fetchval("SELECT count(*) FROM sens.dead_letters") == 0


class TestLetter:
    async def test_is_stored_as_it_is(self, database: DatabaseSettings) -> None:
        async with open_pool(database, "test") as worker, owner_pool(database) as pool:
            tenant = await pool.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
            letter = Letter(
                0,
                Origin(1 << 50, 1 << 40, 999),
                tenant,
                "Küche",
                "sens/v1/\0/é",
                AT,
                AT + 1,
                "r",
                "d\0",
                b"\0\xff",
                9,
                4,
            )
            far = letter._replace(tenant_id=0, device=None, origin=Origin(2, 2, 2), received_at=-(1 << 63))
            async with Database(worker, database).connection() as connection:
                data = copy_bytes([letter, far])
                await copy_to(connection, "dead_letters", COLUMNS, data, schema="sens")
            stored = await pool.fetch(f"SELECT {', '.join(COLUMNS)} FROM sens.dead_letters ORDER BY id")  # noqa: S608 - our names
            at = datetime(2023, 11, 14, 22, 13, 20, 0, UTC)
            assert tuple(stored[0]) == (
                *(
                    tenant,
                    "Küche",
                    "sens/v1/\ufffd/é",
                    at,
                    at + timedelta(microseconds=1),
                    "r",
                    "d\ufffd",
                    b"\0\xff",
                    9,
                ),
                *(1 << 50, 1 << 40, 999, 4),
            )
            assert (stored[1]["tenant_id"], stored[1]["device"]) == (None, None)
            assert stored[1]["received_at"] == datetime(1970, 1, 1, tzinfo=UTC)


class TestRefusal:
    async def test_names_the_message_of_the_row(self, database: DatabaseSettings) -> None:
        async with open_pool(database, "test") as pool:
            await execute_as(
                database,
                INSERT_NAMES,
                "ALTER TABLE sens.readings ADD CHECK (666 <> ALL (numbers))",
                "ALTER TABLE sens.readings ADD CHECK ('bad' <> ALL (texts))",
            )
            store = TimescaleStore(Database(pool, database), NO_QUOTA)
            suspects = []
            for refused in (
                rows((3, 2, 0, 1.0), (8, 1, 0, 666.0), (5, 1, 1, 2.0)),
                rows((0, 9, 0, 1.0), texts=(text(6, 0, "good"), text(7, 1, "bad"))),
            ):
                with pytest.raises(RowsRefusedError) as refusal:
                    await store.write(part_of(refused, 9))
                suspects.append(refusal.value.suspect)
            assert (suspects[0], suspects[1]) == (8, 7)

    async def test_that_comes_at_the_commit_names_none(self, database: DatabaseSettings) -> None:
        async def work() -> int | None:
            async with open_pool(database, "test") as pool:
                await execute_as(
                    database,
                    """
                    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON sens.readings DEFERRABLE INITIALLY DEFERRED
                        FOR EACH ROW EXECUTE FUNCTION refuse();
                    """,
                    INSERT_NAMES,
                )
                with pytest.raises(RowsRefusedError) as refusal:
                    await TimescaleStore(Database(pool, database), NO_QUOTA).write(
                        part_of(rows(texts=(text(0, 0, "x"),)), 1)
                    )
                return refusal.value.suspect

        assert await work() is None

    async def test_of_dead_letters_blames_no_message(self, database: DatabaseSettings) -> None:
        await execute_as(database, "ALTER TABLE sens.dead_letters ADD CHECK (false)", INSERT_NAMES)
        async with open_pool(database, "test") as pool:
            store = TimescaleStore(Database(pool, database), NO_QUOTA)
            bad = [Rejection(0, "malformed_payload", "bad")]
            with pytest.raises(StoreUnavailableError, match="refuses dead letters"):
                await store.write(part_of(rows((1, 1, 0, 1.0)), 2, rejected=bad))
            assert await pool.fetchval("SELECT count(*) FROM sens.readings") == 0


readings = st.tuples(
    st.integers(1, 2),
    st.integers(0, 2),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([1, 3, 4]), st.sampled_from([0.0, 1.0])),
            st.tuples(st.sampled_from([2, 5]), st.sampled_from(["x", "y"])),
        ),
        min_size=1,
        max_size=4,
    ),
)
messages = st.lists(readings, min_size=1, max_size=2)
STORED = """
    SELECT r.device_id, v.id, (extract(epoch FROM r.ts) * 1000000)::int8, v.number, v.text
    FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
    CROSS JOIN LATERAL (
        SELECT id, number, NULL AS text FROM unnest(s.number_ids, r.numbers) AS n (id, number) WHERE number IS NOT NULL
        UNION ALL
        SELECT id, NULL, text FROM unnest(s.text_ids, r.texts) AS t (id, text) WHERE text IS NOT NULL
    ) v
"""


@settings(max_examples=tries(15, 500), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(messages, min_size=1, max_size=5), min_size=1, max_size=3))
def test_both_stores_answer_alike(
    database: DatabaseSettings, batches: list[list[list[tuple[int, int, list[tuple[int, float | str]]]]]]
) -> None:
    """A law over random batches: PostgreSQL says of each what the dictionary says of it, and stores the same."""

    async def work() -> None:
        memory = MemoryStore()
        async with open_pool(database, "test") as pool:
            tables = "sens.readings, sens.message_counts, sens.settled, sens.dead_letters, sens.dead_letter_usage"
            await execute_as(database, f"TRUNCATE {tables}", INSERT_NAMES)
            store = TimescaleStore(Database(pool, database), NO_QUOTA)
            for sequence, batch in enumerate(batches, 1):
                batch_rows = rows_of(
                    [
                        KeyedValue(index, device, AT + at, metric, value)
                        for index, message in enumerate(batch)
                        for device, at, values in message
                        for metric, value in values
                    ]
                )
                expected = await memory.write(part_of(batch_rows, len(batch), sequence=sequence))
                written = await store.write(part_of(batch_rows, len(batch), sequence=sequence))
                assert written.new_values.tolist() == expected.new_values.tolist()
                # Of several conflicts of a message, either may be named.
                assert [each._replace(detail="") for each in written.letters] == [
                    each._replace(detail="") for each in expected.letters
                ]
                assert written.accounts.counts == expected.accounts.counts
            stored = await pool.fetch(STORED)
            assert {row[:3]: row[3] if row[4] is None else row[4] for row in map(tuple, stored)} == memory.values
            assert len(stored) == len(memory.values)
            counts = await pool.fetchrow(
                "SELECT sum(received)::int, sum(stored)::int, sum(duplicate)::int, sum(dead_lettered)::int, sum(abs(unaccounted))::int"
                " FROM sens.conservation()"
            )
            words = ("received", "stored", "duplicate", "dead_lettered")
            assert counts is not None
            assert tuple(counts) == (*(sum(memory.counted(word).values()) for word in words), 0)

    asyncio.run(work())
