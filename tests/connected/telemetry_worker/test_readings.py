"""The table of readings as the worker fills it: rows that are united, metric sets, days, and when devices were last seen."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

import asyncpg
import orjson
import pytest

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.metric_sets import MAX_SETS_OF_DEVICE, MAX_UNION_RATIO
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.memory import MemoryEnvelope, MemoryInbox
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of
from support.servers import execute_as, owner
from tools.stack.stored import VALUE_TABLES, with_stored_values

NOW = 1_700_000_000_000_000
NOON = 1_700_000_000
DAY = 86_400

sequences = itertools.count(1)


@dataclass
class Worker:
    """A telemetry worker's way from messages to the database."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    builder: BatchBuilder
    store: TimescaleStore

    async def put(self, *bodies: Mapping[str, object], device: str = "d1", received_at: int = NOW) -> list[str]:
        """Store messages of a device in one batch; return why some of them are dead letters."""
        return await self.put_messages(
            [Message(f"sens/v1/demo/{device}/telemetry", orjson.dumps(body), received_at) for body in bodies]
        )

    async def put_messages(self, messages: list[Message]) -> list[str]:
        stop, envelope = asyncio.Event(), MemoryEnvelope(next(sequences), messages)
        await pipeline_of(MemoryInbox([[envelope]], stop), builder=self.builder, store=self.store).run(stop)
        query = "SELECT reason, detail FROM sens.dead_letters WHERE sequence = $1 ORDER BY number"
        letters = await self.pool.fetch(query, envelope.sequence)
        assert {letter["reason"] for letter in letters} <= {Reason.CONFLICTING_VALUE}
        return [letter["detail"] for letter in letters]

    async def values(self, device: str = "d1") -> dict[tuple[str, int], float | str]:
        """Return the values of a device by metric and time."""
        tables = [row["name"] for row in await self.pool.fetch(VALUE_TABLES)]
        query = with_stored_values(
            tables,
            "SELECT metric, extract(epoch FROM ts)::int AS ts, number, text FROM stored_values WHERE device = $1",
        )
        rows = await self.pool.fetch(query, device)
        found = {(row["metric"], row["ts"]): row["number"] if row["text"] is None else row["text"] for row in rows}
        assert len(found) == len(rows)
        return found

    async def count(self, query: str) -> int:
        return int(await self.pool.fetchval(query))


@asynccontextmanager
async def worker(database: DatabaseSettings) -> AsyncIterator[Worker]:
    await execute_as(
        database, "INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 36500) ON CONFLICT DO NOTHING"
    )
    async with open_pool(database, "test") as pool:
        connections = Database(pool, database)
        builder = BatchBuilder(TimescaleRegistry(connections), decoder("native"))
        yield Worker(pool, builder, TimescaleStore(connections, NO_QUOTA))


class TestReadingsOfOneTime:
    async def test_are_one_row_with_the_metrics_of_all_messages(self, database: DatabaseSettings) -> None:
        async with worker(database) as one, worker(database) as other:
            assert not await one.put({"ts": NOON, "a": 1}, {"ts": NOON, "b": 2, "t": "x"})
            assert not await one.put({"ts": NOON, "c": True})
            assert not await other.put({"ts": NOON, "a": 1, "d": 4, "u": "y"}, {"ts": NOON, "c": True})
            assert await one.values() == {
                ("a", NOON): 1, ("b", NOON): 2, ("c", NOON): 1, ("d", NOON): 4, ("t", NOON): "x", ("u", NOON): "y",
            }  # fmt: skip
            assert await one.count("SELECT count(*) FROM sens.readings") == 1

    async def test_fill_values_that_are_missing(self, database: DatabaseSettings) -> None:
        async with worker(database) as here:
            await here.put({"ts": NOON, "a": 1, "b": 2})
            await here.pool.execute("UPDATE sens.readings SET numbers[2] = NULL")
            assert not await here.put({"ts": NOON, "a": 1, "b": 3})
            assert await here.values() == {("a", NOON): 1, ("b", NOON): 3}

    async def test_that_differ_are_dead_letters_as_a_whole_which_name_metric_time_and_values(
        self, database: DatabaseSettings
    ) -> None:
        async with worker(database) as here:
            await here.put({"ts": NOON, "a": 1.5, "open": True, "t": "x"})
            letters = await here.put(
                {"ts": NOON, "a": 2, "new": 1},
                {"ts": NOON, "open": False},
                {"ts": NOON, "t": "y"},
                {"ts": NOON, "new": 2},
                {"ts": NOON + 1, "a": 1},
                {"ts": NOON + 1, "a": 2},
            )
            stays = "the stored value stays, and nothing of this message is stored"
            at = "at 2023-11-14T22:13:20Z"
            assert letters == [
                f"'a' is already stored as 1.5 {at}, and this message says 2; {stays}",
                f"'open' is already stored as true {at}, and this message says false; {stays}",
                f"'t' is already stored as 'x' {at}, and this message says 'y'; {stays}",
                f"'a' is already stored as 1 at 2023-11-14T22:13:21Z, and this message says 2; {stays}",
            ]
            assert await here.values() == {
                ("a", NOON): 1.5, ("open", NOON): 1, ("t", NOON): "x", ("new", NOON): 2, ("a", NOON + 1): 1,
            }  # fmt: skip

    async def test_within_one_message_that_says_two_things_are_a_dead_letter(self, database: DatabaseSettings) -> None:
        async with worker(database) as here:
            backlog = [{"ts": NOON, "a": 1}, {"ts": NOON + 1, "a": 1}, {"ts": NOON, "a": 2}]
            message = Message("sens/v1/demo/d1/telemetry", orjson.dumps(backlog), NOW)
            assert await here.put_messages([message]) == [
                "the message says both 1 and 2 of 'a' at 2023-11-14T22:13:20Z; nothing of it is stored"
            ]
            assert await here.values() == {}

    async def test_of_many_messages_at_once_are_united_by_two_workers(self, database: DatabaseSettings) -> None:
        async with worker(database) as one, worker(database) as other:
            letters = await asyncio.gather(
                *(
                    each.put(*({"ts": NOON + second, metric: second} for second in range(40)))
                    for each in (one, other)
                    for metric in ("a", "b", "c")
                )
            )
            assert not any(letters)
            assert await one.count("SELECT count(*) FROM sens.readings") == 40
            assert len(await one.values()) == 120


class TestColumnstore:
    async def test_takes_additions_to_many_rows(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            if await connection.fetchval("SELECT kind FROM sens.storage") != "timescaledb":
                pytest.skip("the server has no columnstore")
        async with worker(database) as here:
            count = 3000
            messages = [{"ts": NOON + second, "a": second} for second in range(count)]
            assert not await here.put(*messages)
            await execute_as(database, "SELECT compress_chunk(c) FROM show_chunks('sens.readings') c")
            limit = "timescaledb.max_tuples_decompressed_per_dml_transaction"
            await execute_as(database, f"ALTER ROLE CURRENT_USER SET {limit} = 100")
            async with worker(database) as other:
                assert not await other.put(*messages)
                assert not await other.put(*({"ts": NOON + second, "b": second} for second in range(0, count, 10)))
                assert len(await other.put({"ts": NOON + 5, "a": 6})) == 1
                assert not await other.put({"ts": NOON + count, "a": 1})
            assert len(await here.values()) == count + count // 10 + 1
            assert await here.count("SELECT count(*) FROM sens.readings") == count + 1


class TestMetricSets:
    async def test_are_one_for_equal_metrics_in_whatever_order(self, database: DatabaseSettings) -> None:
        async with worker(database) as one, worker(database) as other:
            await one.put({"ts": NOON, "a": 1, "b": 1}, {"ts": NOON + 1, "b": 1, "a": 1})
            await other.put({"ts": NOON + 2, "b": 1, "a": 1}, device="d2")
            assert await one.count("SELECT count(*) FROM sens.metric_sets") == 1

    async def test_of_a_device_have_the_days_of_its_readings(self, database: DatabaseSettings) -> None:
        query = "SELECT first_day, last_day FROM sens.device_metric_sets"
        async with worker(database) as here:
            await here.put({"ts": NOON, "a": 1}, {"ts": NOON - 2 * DAY, "a": 1})
            assert [tuple(row) for row in await here.pool.fetch(query)] == [(date(2023, 11, 12), date(2023, 11, 14))]
            await here.put({"ts": NOON - DAY, "a": 1}, {"ts": NOON - 9 * DAY, "a": 1})
            async with worker(database) as other:
                await other.put({"ts": NOON - 400 * DAY, "a": 1})
            assert [tuple(row) for row in await here.pool.fetch(query)] == [(date(2022, 10, 10), date(2023, 11, 14))]

    async def test_of_a_device_whose_metrics_change_all_the_time_are_few(self, database: DatabaseSettings) -> None:
        """Every message has another set of 12 metrics; a worker of its own stores some, and knows no set before."""
        metrics = [f"m{number}" for number in range(12)]
        combinations = list(itertools.combinations(metrics, 4))[:400]
        bodies = [{"ts": NOON + number, **dict.fromkeys(names, 1)} for number, names in enumerate(combinations)]
        async with worker(database) as one, worker(database) as other:
            for start in range(0, len(bodies), 20):
                assert not await (one if start % 40 else other).put(*bodies[start : start + 20])
            assert len(await one.values()) == 4 * len(bodies)
            assert await one.count("SELECT count(*) FROM sens.device_metric_sets") <= MAX_SETS_OF_DEVICE + len(metrics)
            assert await one.count("SELECT count(*) FROM sens.metric_sets") <= MAX_SETS_OF_DEVICE + len(metrics)
            # A metric is deleted: what is stored from now on is in sets without it.
            await execute_as(
                database,
                "SELECT sens.begin_deletion(id) FROM sens.tenants; DELETE FROM sens.metrics WHERE name = 'm0'",
            )
            assert not await one.put({"ts": NOON + 1000, "m11": 1, "m7": 1}, {"ts": NOON, "m9": 9})
            gone = (
                "SELECT count(*) FROM sens.metric_sets s WHERE NOT s.number_ids <@ ARRAY(SELECT id FROM sens.metrics)"
            )
            used = " AND EXISTS (SELECT FROM sens.readings r WHERE r.metric_set_id = s.id AND r.ts IN (to_timestamp($1), to_timestamp($2)))"
            assert await one.pool.fetchval(gone + used, NOON, NOON + 1000) == 0
            assert (await one.values())["m9", NOON] == 9

    async def test_of_a_device_with_a_counter_in_its_names_are_small(self, database: DatabaseSettings) -> None:
        """Each message has a name that was never there; two workers store them, some of them together."""
        count = 400
        bodies = [{"ts": NOON + number, "a": number, f"m{number}": 1} for number in range(count)]
        async with worker(database) as one, worker(database) as other:
            for start in range(0, count, 5):
                parts = [bodies[start : start + 4], bodies[start + 4 : start + 5]]
                assert not any(await asyncio.gather(one.put(*parts[0]), other.put(*parts[1])))
            assert len(await one.values()) == 2 * count
            sets = "FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id"
            assert await one.count(f"SELECT count(*) {sets}") <= count + MAX_SETS_OF_DEVICE
            # Twice, because both workers may make a union at once.
            size = await one.count(f"SELECT sum(cardinality(s.number_ids)) {sets}")
            assert size <= 2 * count + 2 * count * MAX_UNION_RATIO


class TestLastSeen:
    async def test_is_the_receipt_of_the_newest_message_up_to_a_minute_old(self, database: DatabaseSettings) -> None:
        async def seen() -> list[int]:
            rows = await here.pool.fetch("SELECT last_seen FROM sens.devices ORDER BY name")
            return [(row[0] - datetime.fromtimestamp(NOON, UTC)).total_seconds() for row in rows]

        async with worker(database) as here:
            await here.put({"ts": NOON - 5, "a": 1}, received_at=NOW)
            await here.put({"a": 1}, device="d2", received_at=NOW + 1_000_000)
            assert await seen() == [0, 1]
            await here.put({"a": 1}, received_at=NOW + 59_000_000)
            assert await seen() == [0, 1]
            await here.put({"a": 1}, received_at=NOW + 60_000_000)
            await here.put({"a": 1}, received_at=NOW - 60_000_000)
            async with worker(database) as other:
                await other.put({"a": 2}, received_at=NOW + 70_000_000)
                await other.put({"a": 2}, device="d2", received_at=NOW + 70_000_000)
            assert await seen() == [60, 70]
