"""Laws of storing, held by two workers on one database, whatever is sent, sent again, cut short or deleted meanwhile.

- A device, metric and time has one value at most, which is never another one later.
- A message is stored as a whole, or is a dead letter and nothing of it is stored.
- The dead letter of a conflict names the metric, the time, the stored value and its own.
- Nothing is stored under the id of a device or a metric that is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final, cast

import asyncpg
import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sens_common.database import Connection, connect
from sens_common.dead_letters import Reason
from sens_common.device_times import time_text
from sens_common.envelope import Message
from sens_common.logins import API_ROLE
from sens_common.metric_sets import MAX_SETS_OF_DEVICE
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.depth import tries
from support.memory import MemoryEnvelope, MemoryInbox
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of
from support.servers import owner

NOW: Final = 1_700_000_000_000_000
SECOND: Final = 1_700_000_000
DEVICES: Final = ("d1", "d2", "d3")
VALUES: Final = """
    SELECT d.name AS device, k.name AS metric, k.kind, extract(epoch FROM r.ts)::int AS ts, v.number, v.text,
        r.device_id IS NULL OR d.id IS NULL OR k.id IS NULL AS is_orphan
    FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
    CROSS JOIN LATERAL (
        SELECT id, number, NULL AS text FROM unnest(s.number_ids, r.numbers) AS n (id, number) WHERE number IS NOT NULL
        UNION ALL
        SELECT id, NULL, text FROM unnest(s.text_ids, r.texts) AS t (id, text) WHERE text IS NOT NULL
    ) v
    LEFT JOIN sens.devices d ON d.id = r.device_id LEFT JOIN sens.metrics k ON k.id = v.id
"""
UNKNOWN_DAYS: Final = """
    SELECT count(*) FROM sens.readings r WHERE NOT EXISTS (
        SELECT FROM sens.device_metric_sets s WHERE s.device_id = r.device_id AND s.metric_set_id = r.metric_set_id
            AND (r.ts AT TIME ZONE 'UTC')::date BETWEEN s.first_day AND s.last_day
    )
"""
TABLES: Final = """sens.readings, sens.device_metric_sets, sens.metric_sets, sens.devices, sens.metrics, sens.registrations, sens.deletions,
    sens.dead_letters, sens.dead_letter_usage, sens.settled, sens.message_counts"""

type Value = float | str | bool
type Key = tuple[str, str, int]
"""Device, metric and second."""
type Body = tuple[tuple[int, dict[str, Value]], ...]
"""The readings of a message: second and values."""

bodies = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from([1, 2.5]), max_size=3).flatmap(
            lambda numbers: st.fixed_dictionaries(
                {}, optional={"o": st.booleans(), "t": st.sampled_from(["x", "y"])}
            ).map(lambda others: numbers | others)
        ),
    ).filter(lambda reading: bool(reading[1])),
    min_size=1,
    max_size=2,
).map(tuple)
batches = st.lists(st.tuples(st.sampled_from(DEVICES), bodies), min_size=1, max_size=6)
workers = st.integers(0, 1)
cuts = st.one_of(st.none(), st.integers(0, 12))


class CutConnection:
    """A connection that is lost at the start of a statement."""

    def __init__(self, connection: Connection, statements: int) -> None:
        self._connection = connection
        self._left = statements

    def __getattr__(self, name: str) -> object:
        found = getattr(self._connection, name)
        if name in {"execute", "fetch", "fetchval", "fetchrow", "fetchmany", "copy_to_table"}:
            if not self._left:
                self._connection.terminate()
            self._left -= 1
        return found


class CutDatabase(Database):
    """A database whose connection is lost once: at a statement of a transaction, or after it, when its commit is not heard of any more.

    Attributes:
        cut: Before how many statements, of those that are still to come; 0 is after the transaction.
    """

    cut: int | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            cut, self.cut = self.cut, None
            if cut is None:
                yield connection
            elif cut:
                yield cast("Connection", CutConnection(connection, cut - 1))
            else:
                yield connection
                raise ConnectionResetError("the answer to the commit was lost")


class Worker:
    """A telemetry worker's way from messages to the database."""

    def __init__(self, database: CutDatabase) -> None:
        self.database = database
        self.builder = BatchBuilder(TimescaleRegistry(database), decoder("native"))
        self.store = TimescaleStore(database, NO_QUOTA)

    async def put(self, envelope: MemoryEnvelope) -> None:
        stop = asyncio.Event()
        await pipeline_of(MemoryInbox([[envelope]], stop), builder=self.builder, store=self.store).run(stop)


def message(device: str, body: Body) -> Message:
    readings = [{"ts": SECOND + second, **values} for second, values in body]
    return Message(f"sens/v1/demo/{device}/telemetry", orjson.dumps(readings), NOW)


def values_of(device: str, body: Body) -> list[tuple[Key, Value]]:
    return [((device, metric, second), value) for second, values in body for metric, value in values.items()]


def judge(known: dict[Key, Value], batch: Sequence[tuple[str, Body]]) -> set[int]:
    """Add the values of messages, in order, to those that are known; return the messages that conflict."""
    conflicts: set[int] = set()
    for index, (device, body) in enumerate(batch):
        own: dict[Key, Value] = {}
        for key, value in values_of(device, body):
            if own.setdefault(key, value) != value or known.get(key, value) != value:
                conflicts.add(index)
        if index not in conflicts:
            known |= own
    return conflicts


class Storing(RuleBasedStateMachine):
    """Two workers, and a model of what they have stored."""

    def __init__(self, database: DatabaseSettings) -> None:
        super().__init__()
        self.settings = database
        self.runner = asyncio.Runner()
        self.resources = AsyncExitStack()
        self.sequences = count(1)
        self.sent: list[list[tuple[str, Body]]] = []
        self.known: dict[Key, Value] = {}
        self.counter = count(10)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        async def work() -> None:
            enter = self.resources.enter_async_context
            self.owner = await enter(owner(self.settings))
            await self.owner.execute(f"TRUNCATE {TABLES} CASCADE")
            await self.owner.execute(
                "INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 36500) ON CONFLICT DO NOTHING"
            )
            self.api = await connect(self.settings, "test", role=API_ROLE)
            self.resources.push_async_callback(self.api.close)
            tenant = await self.owner.fetchval("SELECT id FROM sens.tenants")
            await self.api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
            self.workers = [
                Worker(CutDatabase(await enter(open_pool(self.settings, "test")), self.settings)) for _ in range(2)
            ]
            # One device has as many sets as are stored as they are.
            crowd: list[tuple[str, Body]] = [
                (DEVICES[0], ((next(self.counter), {"a": 1.0, f"b{number}": 1.0}),))
                for number in range(MAX_SETS_OF_DEVICE)
            ]
            await self.workers[0].put(self.envelope(crowd))
            assert not judge(self.known, crowd)

        self.run(work())

    def teardown(self) -> None:
        try:
            self.run(self.resources.aclose())
        finally:
            self.runner.close()

    @rule(batch=batches, worker=workers, cut=cuts)
    def put(self, batch: list[tuple[str, Body]], worker: int, cut: int | None) -> None:
        """A worker stores a batch; the database goes away once meanwhile."""
        self.store(batch, worker, cut)

    @rule(worker=workers, device=st.sampled_from(DEVICES), more=st.integers(1, 40), batch=batches, cut=cuts)
    def put_names_with_a_counter(
        self, worker: int, device: str, more: int, batch: list[tuple[str, Body]], cut: int | None
    ) -> None:
        """Messages of a device whose metrics have other names each time, so that it soon has more sets than are stored as they are."""
        new = [next(self.counter) for _ in range(more)]
        counted: list[tuple[str, Body]] = [(device, ((number, {"a": 1.0, f"m{number}": 1.0}),)) for number in new]
        self.store([*counted, *batch], worker, cut)

    @rule(worker=workers, which=st.integers(0, 30))
    def put_again(self, worker: int, which: int) -> None:
        """What was sent before comes again, with equal values."""
        if self.sent:
            batch = self.sent[which % len(self.sent)]
            envelope = self.envelope(batch)
            self.run(self.workers[worker].put(envelope))
            assert self.run(self.letters(envelope, batch)) == judge(self.known, batch)

    @rule(first=batches, second=batches, same=st.booleans())
    def put_by_both_at_once(self, first: list[tuple[str, Body]], second: list[tuple[str, Body]], *, same: bool) -> None:
        """Both workers store at once, also the same envelope, which the stream has given to both."""
        envelopes = [self.envelope(first)]
        envelopes.append(
            MemoryEnvelope(envelopes[0].sequence, envelopes[0].messages) if same else self.envelope(second)
        )
        bodies_of = [first] if same else [first, second]

        async def work() -> None:
            await asyncio.gather(*(worker.put(each) for worker, each in zip(self.workers, envelopes, strict=True)))
            refused = [await self.letters(each, batch) for each, batch in zip(envelopes, bodies_of, strict=False)]
            stays = [
                entry
                for batch, conflicts in zip(bodies_of, refused, strict=True)
                for index, entry in enumerate(batch)
                if index not in conflicts
            ]
            # They may have come in whatever order; those that are stored do not contradict each other, nor what was there.
            assert not judge(self.known, stays)

        self.run(work())

    def store(self, batch: list[tuple[str, Body]], worker: int, cut: int | None) -> None:
        self.sent.append(batch)
        self.workers[worker].database.cut = cut
        envelope = self.envelope(batch)
        self.run(self.workers[worker].put(envelope))
        self.workers[worker].database.cut = None
        assert self.run(self.letters(envelope, batch)) == judge(self.known, batch)

    @rule(device=st.sampled_from(DEVICES), batch=batches)
    def delete_device_while_storing(self, device: str, batch: list[tuple[str, Body]]) -> None:
        """A message of the device is stored before it is deleted, or after."""
        self.delete("sens.delete_device($1, 'test', '', '')", device, batch, lambda key: key[0] == device)

    @rule(metric=st.sampled_from(["a", "o", "t"]), batch=batches)
    def delete_metric_while_storing(self, metric: str, batch: list[tuple[str, Body]]) -> None:
        """The same of a metric."""
        self.delete("sens.delete_metric($1, NULL, 'test', '', '')", metric, batch, lambda key: key[1] == metric)

    def delete(self, function: str, name: str, batch: list[tuple[str, Body]], is_deleted: Any) -> None:
        envelope = self.envelope(batch)

        async def delete() -> None:
            await self.owner.execute("UPDATE sens.registrations SET deleted_at = NULL")
            await patiently(lambda: self.api.fetchval(f"SELECT {function}", name))
            while await patiently(lambda: self.api.fetchval("SELECT count(*) FROM sens.continue_deletion(1000)")):
                pass

        async def work() -> None:
            before = dict(self.known)
            await asyncio.gather(self.workers[0].put(envelope), delete())
            conflicts = await self.letters(envelope, batch)
            self.known = {key: value for key, value in self.known.items() if not is_deleted(key)}
            expected = dict(self.known)
            for index, (device, body) in enumerate(batch):
                if index not in conflicts:
                    expected |= dict(values_of(device, body))
            found = await self.stored()
            assert {key: value for key, value in expected.items() if not is_deleted(key)} == {
                key: value for key, value in found.items() if not is_deleted(key)
            }
            assert found.items() <= (before | expected).items()
            self.known = found

        self.run(work())

    @invariant()
    def what_is_stored_is_what_was_stored_as_a_whole(self) -> None:
        if hasattr(self, "owner"):
            assert self.run(self.stored()) == self.known

    def envelope(self, batch: Iterable[tuple[str, Body]]) -> MemoryEnvelope:
        return MemoryEnvelope(next(self.sequences), [message(device, body) for device, body in batch])

    async def stored(self) -> dict[Key, Value]:
        rows = await self.owner.fetch(VALUES)
        assert not any(row["is_orphan"] for row in rows)
        found = {
            (row["device"], row["metric"], row["ts"] - SECOND): row["text"] if row["kind"] == "text" else row["number"]
            for row in rows
        }
        assert len(found) == len(rows)
        assert await self.owner.fetchval(UNKNOWN_DAYS) == 0
        return found

    async def letters(self, envelope: MemoryEnvelope, batch: Sequence[tuple[str, Body]]) -> set[int]:
        """Return which messages of an envelope are dead letters, each of which says why."""
        rows: list[asyncpg.Record] = await self.owner.fetch(
            "SELECT number, reason, detail FROM sens.dead_letters WHERE sequence = $1", envelope.sequence
        )
        stored = await self.stored()
        for row in rows:
            assert row["reason"] == Reason.CONFLICTING_VALUE
            assert any(
                row["detail"].startswith(sentence)
                for key, value in values_of(*batch[row["number"]])
                for sentence in sentences(key, value, [known[key] for known in (self.known, stored) if key in known])
            )
        return {row["number"] for row in rows}


async def patiently[T](ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while a lock can't be had, as the API does."""
    while True:
        try:
            return await ask()
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(0)


def sentences(key: Key, value: Value, stored: Iterable[Value]) -> Iterator[str]:
    """Yield what the dead letter of a conflict may say of a value."""
    _, metric, second = key
    instant = time_text((SECOND + second) * 1_000_000)
    for before in stored:
        if before != value:
            yield f"'{metric}' is already stored as {words(metric, before)} at {instant}, and this message says {words(metric, value)};"
    yield f"the message says both {words(metric, value)} and "


def words(metric: str, value: Value) -> str:
    return repr(value) if metric == "t" else str(bool(value)).lower() if metric == "o" else f"{value:g}"


def test_two_workers_keep_the_laws_of_storing(database: DatabaseSettings) -> None:
    run_state_machine_as_test(
        lambda: Storing(database),  # type: ignore[arg-type]  # what makes one is enough
        settings=settings(max_examples=tries(8, 200), stateful_step_count=10, deadline=None),
    )
