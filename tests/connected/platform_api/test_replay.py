"""Replays of dead letters: what goes into the stream, what stays, and what happens when replays meet, or are interrupted."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

from sens_common import envelope
from sens_common.dead_letters import Origin, Reason
from sens_common.jetstream import connect
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.dead_letters import service
from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.jetstream import TelemetryStream
from sens_platform_api.dead_letters.repository import Actor, DeadLetters, StoredDeadLetter, Whose
from sens_platform_api.errors import AlreadyExistsError, NotFoundError
from sens_platform_api.postgresql import Connection
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.jetstream.consumer import ensure_consumer
from sens_telemetry_worker.jetstream.envelope import StreamEnvelope
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.settings import BatchSettings
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.depth import tries
from support.letters import LetterRow, dead_letter, insert_dead_letters
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of
from support.servers import eventually, owner_pool
from tools.stack.stored import VALUE_TABLES, with_stored_values

EVERYTHING = Filter()
REASONS = (Reason.UNKNOWN_TENANT, Reason.MALFORMED_PAYLOAD)


def letter(number: int, *, tenant: str = "demo", reason: str = Reason.UNKNOWN_TENANT, replays: int = 0) -> LetterRow:
    payload = b'{"ts": 1700000000, "n": %d}' % number
    return dead_letter(tenant=tenant, device=f"d{number}", reason=reason, payload=payload, replays=replays)


class RefusingToAcknowledge(StreamInbox):
    """A stream that forgets every acknowledgement: what a worker leaves that is killed just before."""

    async def acknowledge(self, envelopes: list[StreamEnvelope]) -> None:
        for each in envelopes:
            await each.release()


@dataclass
class Setting:
    """A log and a database with the tenant ``demo``.

    Attributes:
        letters: The tenant's dead letters, as the administration has them.
    """

    client: Client
    nats: NatsSettings
    database: DatabaseSettings
    pool: "asyncpg.Pool[asyncpg.Record]"
    worker_pool: "asyncpg.Pool[asyncpg.Record]"
    tenant_id: int

    @property
    def log(self) -> TelemetryStream:
        return TelemetryStream(self.client)

    @property
    def letters(self) -> DeadLetters:
        return self.letters_as(DeadLetters)

    def letters_as[T: DeadLetters](self, kind: type[T]) -> T:
        @asynccontextmanager
        async def transaction(readonly: bool) -> AsyncIterator[Connection]:
            async with self.pool.acquire() as connection, connection.transaction(readonly=readonly):
                yield connection

        return kind(transaction, Actor("test", self.tenant_id), Whose(self.tenant_id))

    async def put(self, letters: Sequence[LetterRow]) -> list[int]:
        return await insert_dead_letters(self.pool, letters)

    async def stored(self) -> list[tuple[str, float]]:
        """Return device and value of what is stored, in order."""
        tables = [row["name"] for row in await self.pool.fetch(VALUE_TABLES)]
        query = "SELECT device, number FROM stored_values ORDER BY 1, 2"
        rows = await self.pool.fetch(with_stored_values(tables, query))
        return [(row[0], row[1]) for row in rows]

    async def left(self) -> list[tuple[str, int]]:
        """Return device and replays of the dead letters, in order."""
        rows = await self.pool.fetch("SELECT device, replays FROM sens.dead_letters ORDER BY device, replays")
        return [(row[0], row[1]) for row in rows]

    async def unaccounted(self) -> int:
        return int(await self.pool.fetchval("SELECT coalesce(sum(abs(unaccounted)), 0) FROM sens.conservation()"))

    async def logged(self) -> tuple[int, Counter[bytes]]:
        """Return how many envelopes are in the log, and the payloads of their messages."""
        jetstream = self.client.jetstream()
        envelopes = (await jetstream.stream_info(TELEMETRY_STREAM)).state.messages
        payloads: Counter[bytes] = Counter()
        for sequence in range(1, envelopes + 1):
            body = (await jetstream.get_msg(TELEMETRY_STREAM, seq=sequence)).data or b""
            payloads.update(message.payload for message in envelope.decode(body))
        return envelopes, payloads

    async def settle(self, *, killed_before_acknowledging: bool = False) -> None:
        """Let a telemetry worker settle all that is in the log; or kill it when it has stored it."""
        stop = asyncio.Event()
        kind = RefusingToAcknowledge if killed_before_acknowledging else StreamInbox
        inbox = kind(self.client, self.nats, BatchSettings(messages=10, linger_milliseconds=1))
        database = Database(self.worker_pool, self.database)
        pipeline = pipeline_of(
            inbox,
            registry=TimescaleRegistry(database),
            store=TimescaleStore(database, NO_QUOTA),
            guard=DeadLetterGuard(1, 1),
        )

        async def done() -> bool:
            last = (await self.client.jetstream().stream_info(TELEMETRY_STREAM)).state.last_seq
            settled = await self.pool.fetchval(
                "SELECT count(*) FROM sens.settled WHERE stream > 0 AND outcomes IS NULL"
            )
            if killed_before_acknowledging:
                return bool(settled == last)
            info = await self.client.jetstream().consumer_info(TELEMETRY_STREAM, "telemetry-worker")
            return bool(settled == last) and not info.num_pending and not info.num_ack_pending

        async with inbox.open():
            running = asyncio.create_task(pipeline.run(stop))
            await eventually(done, "the stream is settled")
            stop.set()
            await running


@asynccontextmanager
async def setting(nats: NatsSettings, database: DatabaseSettings) -> AsyncIterator[Setting]:
    async with (
        connect(nats, "test") as client,
        owner_pool(database) as pool,
        open_pool(database, "test") as worker_pool,
    ):
        await ensure_consumer(client, nats)
        tenant = await pool.fetchval(
            "INSERT INTO sens.tenants (name) VALUES ('demo') ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"
        )
        yield Setting(client, nats, database, pool, worker_pool, tenant)


async def replay_all(
    letters: DeadLetters, log: TelemetryStream, wanted: Filter = EVERYTHING, *, limit: int = 700
) -> int:
    """Replay in calls of a limit until nothing is left; return how many were replayed."""
    replayed = 0
    above: int | None = 0
    until: int | None = None
    while above is not None:
        done = await service.replay_page(letters, log, wanted, above=above, until=until, limit=limit)
        replayed += done.replayed
        above, until = done.above, done.until
    return replayed


class TestReplayOfMany:
    async def test_sends_all_of_a_tenant_in_a_few_envelopes(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        async with setting(nats, database) as here:
            await here.put([*(letter(number, tenant="other") for number in range(50)), *map(letter, range(2500))])
            assert await replay_all(here.letters, here.log) == 2500
            envelopes, payloads = await here.logged()
            assert payloads == Counter(letter(number).payload for number in range(2500))
            assert envelopes <= 10
            assert len(await here.left()) == 50

    async def test_by_a_filter_leaves_the_others(self, nats: NatsSettings, database: DatabaseSettings) -> None:
        async with setting(nats, database) as here:
            numbers = await here.put([letter(number, reason=REASONS[number % 2]) for number in range(600)])
            assert await replay_all(here.letters, here.log, Filter(reason=Reason.MALFORMED_PAYLOAD)) == 300
            _, payloads = await here.logged()
            assert payloads == Counter(letter(number).payload for number in range(1, 600, 2))
            page = await service.list_page(here.letters, EVERYTHING, below=None, limit=1000)
            assert [summary.id for summary in page.letters] == sorted(numbers[::2], reverse=True)

    async def test_keeps_messages_apart_that_were_replayed_before(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        async with setting(nats, database) as here:
            await here.put([letter(0), letter(1, replays=4), letter(2)])
            await replay_all(here.letters, here.log)
            jetstream = here.client.jetstream()
            headers = [(await jetstream.get_msg(TELEMETRY_STREAM, seq=number)).headers or {} for number in (1, 2)]
            assert [(each["Sens-Replays"], each["Sens-Count"]) for each in headers] == [("1", "2"), ("5", "1")]


class TestShortenedDeadLetter:
    async def test_is_replayed_as_a_whole_while_the_log_has_it(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        async with setting(nats, database) as here:
            jetstream = here.client.jetstream()
            created = (await jetstream.stream_info(TELEMETRY_STREAM)).created
            assert created is not None
            stream = int(created.timestamp() * 1e6)
            whole = b"[" * 300_000
            messages = [envelope.Message("a", b"first", 1), envelope.Message("sens/v1/demo/d0/telemetry", whole, 2)]
            await jetstream.publish("sens.telemetry.test", envelope.encode(messages))
            [number] = await here.put(
                [dead_letter(device="d0", payload=whole[:4096], payload_bytes=300_000, origin=Origin(stream, 1, 1))]
            )
            await service.replay_one(here.letters, here.log, number)
            assert (await here.logged())[1][whole] == 2
            assert await here.left() == []

    async def test_is_refused_and_stays_when_the_log_no_longer_has_it(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        async with setting(nats, database) as here:
            [number] = await here.put([dead_letter(device="d0", payload_bytes=300_000)])
            with pytest.raises(AlreadyExistsError, match="only the beginning"):
                await service.replay_one(here.letters, here.log, number)
            done = await service.replay_page(here.letters, here.log, EVERYTHING, limit=10)
            assert (done.replayed, done.incomplete, done.above) == (0, 1, None)
            assert await here.left() == [("d0", 0)]


class InterruptionError(Exception):
    """What ends a replay in the middle."""


class Interrupted(DeadLetters):
    """Ends after messages were sent, before their dead letters are deleted."""

    async def delete_replayed(self, letters: Sequence[tuple[int, int]]) -> int:  # noqa: ARG002 - the method's signature
        raise InterruptionError


class TestInterruptedReplay:
    async def interrupt_and_finish(self, here: Setting) -> None:
        with pytest.raises(InterruptionError):
            await replay_all(here.letters_as(Interrupted), here.log, limit=7)
        # Other groups than before, so that it is not the stream that recognises them.
        first = (await here.letters.oldest(EVERYTHING, above=0, until=1 << 60, limit=1, max_bytes=1 << 20))[0]
        await service.replay_one(here.letters, here.log, first.summary.id)
        assert await replay_all(here.letters, here.log, limit=5) == 19

    async def test_stores_what_was_sent_twice_once(self, nats: NatsSettings, database: DatabaseSettings) -> None:
        async with setting(nats, database) as here:
            await here.put([letter(number) for number in range(20)])
            await self.interrupt_and_finish(here)
            assert (await here.logged())[1].total() == 27
            await here.settle()
            assert sorted(value for _, value in await here.stored()) == [float(number) for number in range(20)]
            assert await here.left() == []
            assert await here.unaccounted() == 0

    async def test_makes_one_dead_letter_of_what_is_refused_again(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        async with setting(nats, database) as here:
            await here.put([dead_letter(device=f"d{number:02}", payload=b"{") for number in range(20)])
            await self.interrupt_and_finish(here)
            await here.settle()
            assert await here.left() == [(f"d{number:02}", 1) for number in range(20)]
            assert await here.unaccounted() == 0


# What two replays of one dead letter and the worker do, in any order; each step may be the last of its replay, as if it was killed then.
STEPS = st.lists(
    st.sampled_from(["look 1", "send 1", "delete 1", "look 2", "send 2", "delete 2", "work", "work and die"]),
    max_size=14,
)


class Replays:
    """Two replays of one dead letter, a step at a time."""

    def __init__(self, here: Setting, number: int) -> None:
        self._here = here
        self._number = number
        self._found: dict[str, StoredDeadLetter] = {}
        self._sent: dict[str, StoredDeadLetter] = {}

    async def step(self, step: str) -> None:
        what, _, who = step.partition(" ")
        if step.startswith("work"):
            await self._here.settle(killed_before_acknowledging=step == "work and die")
        elif what == "look":
            self._sent.pop(who, None)
            try:
                self._found[who] = await self._here.letters.get(self._number)
            except NotFoundError:
                self._found.pop(who, None)
        elif what == "send" and who in self._found:
            found = self._found[who]
            # The second one's envelope is another, so that JetStream does not recognise it.
            await self._here.log.publish([found] if who == "1" else [found, found])
            self._sent[who] = found
        elif what == "delete" and who in self._sent:
            sent = self._sent.pop(who)
            await self._here.letters.delete_replayed([(sent.summary.id, sent.summary.replays)])


@settings(max_examples=tries(25, 500), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
@example(steps=["look 1", "send 1", "work", "delete 1"])
@example(steps=["look 1", "look 2", "send 1", "send 2", "work and die", "delete 1", "delete 2"])
@pytest.mark.parametrize("payload", [b"{", b'{"ts": 1700000000, "n": 1}'], ids=["refused again", "stored"])
def test_whatever_replays_and_workers_do_a_message_is_stored_once_or_is_one_dead_letter(
    nats: NatsSettings, database: DatabaseSettings, payload: bytes, steps: list[str]
) -> None:
    """A refused replay is never deleted, and twice has no effect, in whatever order replays, deletions and kills come."""

    async def work() -> None:
        async with setting(nats, database) as here:
            tables = [row["name"] for row in await here.pool.fetch(VALUE_TABLES)]
            await here.pool.execute(
                f"TRUNCATE {', '.join(tables)}, sens.settled, sens.message_counts, sens.dead_letters"
            )
            await here.client.jetstream().purge_stream(TELEMETRY_STREAM)
            await here.client.jetstream().delete_stream(TELEMETRY_STREAM)
            await ensure_consumer(here.client, nats)
            [number] = await here.put([dead_letter(device="d1", payload=payload)])
            replays = Replays(here, number)
            for step in steps:
                await replays.step(step)
            await here.settle()
            if payload == b"{":
                assert [device for device, _ in await here.left()] == ["d1"]
                assert await here.stored() == []
            else:
                # Gone, or still to be replayed: that stores nothing twice.
                await replay_all(here.letters, here.log)
                await here.settle()
                assert await here.left() == []
                assert await here.stored() == [("d1", 1.0)]
            assert await here.unaccounted() == 0

    asyncio.run(work())
