"""Batches that the database refuses or does not finish in time: which messages become dead letters, and what dividing costs."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from sens_common.database import Connection
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.memory import MemoryEnvelope, MemoryInbox
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of
from support.servers import execute_as

MANY = 10_000
NOW = 1_700_000_000_000_000
SEVERAL = {0, 17, 5000, 5001, 9999}
WORDLESS = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF 1e6 <= ANY (new.numbers) THEN RAISE 'no'; END IF; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON sens.readings DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""
AT_MOST_FIFTY = """
    CREATE FUNCTION tire() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF (SELECT count(*) FROM new) > 50 THEN {refusal}; END IF; RETURN NULL; END $$;
    CREATE TRIGGER tiring AFTER INSERT ON sens.readings REFERENCING NEW TABLE AS new EXECUTE FUNCTION tire();
"""
CANCELLED = AT_MOST_FIFTY.format(refusal="RAISE 'cancelled' USING ERRCODE = 'query_canceled'")
ASLEEP = AT_MOST_FIFTY.format(refusal="PERFORM pg_sleep(600)")


class CountingDatabase(Database):
    """Counts how often a connection is borrowed for a transaction."""

    transactions = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.transactions += 1
        async with super().connection() as connection:
            yield connection


@dataclass
class Outcome:
    refused: set[int]
    stored: int
    transactions: int


def messages(refused: Collection[int], count: int) -> list[Message]:
    """Return messages of 50 devices whose numbers are those of the list; the refused ones are a million higher."""
    return [
        Message(
            f"sens/v1/demo/d{number % 50}/telemetry",
            f'{{"a": {number + (1_000_000 if number in refused else 0)}, "b": {number % 7}}}'.encode(),
            NOW + number,
        )
        for number in range(count)
    ]


async def outcome(
    settings: DatabaseSettings,
    refused: Collection[int],
    *,
    count: int = MANY,
    stored_before: int | None = None,
    rule: str = "ALTER TABLE sens.readings ADD CONSTRAINT small CHECK (1e6 > ALL (numbers))",
) -> Outcome:
    """Settle one batch with refused messages, of which another one may be stored already."""

    async with open_pool(settings, "test") as pool:
        await execute_as(settings, "INSERT INTO sens.tenants (name) VALUES ('demo')", rule)
        database = CountingDatabase(pool, settings)
        builder = BatchBuilder(TimescaleRegistry(database), decoder("native"))
        store = TimescaleStore(database, NO_QUOTA)
        batch = messages(refused, count)

        async def settle(envelope: MemoryEnvelope) -> set[int]:
            stop = asyncio.Event()
            inbox = MemoryInbox([[envelope]], stop)
            pipeline = pipeline_of(inbox, builder=builder, store=store, guard=DeadLetterGuard(1, 1))
            await pipeline.run(stop)
            letters = await pool.fetch(
                "SELECT number, reason FROM sens.dead_letters WHERE sequence = $1", envelope.sequence
            )
            assert {letter["reason"] for letter in letters} <= {Reason.REFUSED_BY_DATABASE}
            return {letter["number"] for letter in letters}

        # Devices, metrics and partitions are known afterwards.
        first = [Message(each.topic, b'{"a": 0, "b": 0}', NOW - 1) for each in batch[:50]]
        await settle(MemoryEnvelope(1, first))
        if stored_before is not None:
            await settle(MemoryEnvelope(2, [batch[stored_before]]))
        database.transactions = 0
        found = await settle(MemoryEnvelope(3, batch))
        transactions = database.transactions
        stored = await pool.fetchval("SELECT count(*) FROM sens.readings WHERE ts >= to_timestamp($1)", NOW / 1_000_000)
        return Outcome(found, stored, transactions)


async def counted(settings: DatabaseSettings) -> tuple[int, ...]:
    """Return how many messages the database has counted as received, stored, duplicate and dead-lettered, and how many are unaccounted for."""

    async with open_pool(settings, "test") as pool:
        row = await pool.fetchrow(
            "SELECT sum(received), sum(stored), sum(duplicate), sum(dead_lettered), sum(abs(unaccounted)) FROM sens.conservation()"
        )
        assert row is not None
        return tuple(map(int, row))


class TestOneRefusedMessageOfTenThousand:
    async def test_costs_three_transactions(self, database: DatabaseSettings) -> None:
        assert await outcome(database, {6171}) == Outcome({6171}, MANY - 1, 3)

    async def test_costs_a_handful_where_another_one_is_stored_already(self, database: DatabaseSettings) -> None:
        # Its row stops the copy before the refused one, and the merge names no row: halves are copied until one of them names it.
        result = await outcome(database, {6171}, stored_before=0)
        assert (result.refused, result.stored) == ({6171}, MANY - 1)
        assert result.transactions <= 20

    async def test_is_found_by_halves_where_the_database_names_no_row(self, database: DatabaseSettings) -> None:
        result = await outcome(database, {6171}, rule=WORDLESS)
        assert (result.refused, result.stored) == ({6171}, MANY - 1)
        assert result.transactions <= 2 * 14 + 1


class TestSeveralRefusedMessages:
    async def test_cost_three_transactions_each(self, database: DatabaseSettings) -> None:
        result = await outcome(database, SEVERAL)
        assert (result.refused, result.stored) == (SEVERAL, MANY - len(SEVERAL))
        assert result.transactions <= 3 * len(SEVERAL)

    @pytest.mark.parametrize("stored_before", [1, 9998])
    async def test_are_found_where_another_one_is_stored_already(
        self, database: DatabaseSettings, stored_before: int
    ) -> None:
        result = await outcome(database, SEVERAL, stored_before=stored_before)
        assert (result.refused, result.stored) == (SEVERAL, MANY - len(SEVERAL))
        assert result.transactions <= 2 * 14 * len(SEVERAL)


class TestRefusalOfEverything:
    async def test_costs_three_transactions_a_message(self, database: DatabaseSettings) -> None:
        count = 1000
        result = await outcome(database, range(count), count=count)
        assert (result.refused, result.stored) == (set(range(count)), 0)
        assert result.transactions <= 3 * count


class TestBatchThatIsNotStoredInTime:
    async def test_is_stored_in_parts(self, database: DatabaseSettings) -> None:
        # No more than 50 rows at once: 16 parts, and 15 tries with too many.
        assert await outcome(database, (), count=800, rule=CANCELLED) == Outcome(set(), 800, 31)

    async def test_is_stored_in_parts_where_the_worker_loses_patience(self, database: DatabaseSettings) -> None:
        impatient = database.model_copy(update={"command_timeout_seconds": 2})
        assert await outcome(impatient, (), count=100, rule=ASLEEP) == Outcome(set(), 100, 3)

    async def test_does_not_hide_a_refused_message(self, database: DatabaseSettings) -> None:
        refusing = f"ALTER TABLE sens.readings ADD CONSTRAINT small CHECK (1e6 > ALL (numbers)); {CANCELLED}"
        result = await outcome(database, {17, 555}, count=800, rule=refusing)
        assert (result.refused, result.stored) == ({17, 555}, 798)

    async def test_counts_each_message_once(self, database: DatabaseSettings) -> None:
        await outcome(database, (), count=800, rule=CANCELLED)
        assert await counted(database) == (850, 850, 0, 0, 0)

    async def test_counts_each_refused_message_once(self, database: DatabaseSettings) -> None:
        await outcome(database, SEVERAL, count=MANY)
        assert await counted(database) == (MANY + 50, MANY + 50 - len(SEVERAL), 0, len(SEVERAL), 0)
