"""Workers that read births of Sparkplug B, on one database and one stream in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from sens_common.database import Connection
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.replays import ReplayedMessage
from sens_common.settings import DatabaseSettings
from sens_common.topics import SOURCES
from sens_telemetry_worker.batch import StreamPosition
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.birth_reading import BirthReader, SentEarlier
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.earlier_envelopes import UnsettledAnnouncements
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.timescale.birth_reading import TimescaleBirths
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.explained_letters import ExplainedLetters
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from sens_telemetry_worker.timescale.unsettled import UnsettledEnvelopes
from support.memory import MemoryEnvelope, MemoryInbox
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of
from support.servers import owner
from support.sparkplug import metric, payload

TIME: Final = 1_785_000_000_123
RECEIVED_AT: Final = 1_785_000_100_000_000
SOURCE: Final = """
    INSERT INTO sens.sources (tenant_id, name, transport, topic_filter, format)
    SELECT id, 'plant', 'mqtt', 'spBv1.0/#', 'sparkplug_b' FROM sens.tenants WHERE name = 'demo'
"""
VALUES: Final = """
    SELECT d.name, m.name, (extract(epoch FROM r.ts) * 1000)::int8, v.value
    FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
    JOIN sens.devices d ON d.id = r.device_id JOIN sens.tenants t ON t.id = d.tenant_id, unnest(s.number_ids, r.numbers) AS v (metric, value)
    JOIN sens.metrics m ON m.id = v.metric WHERE t.name = 'demo' ORDER BY 1, 3, 2
"""
LETTERS: Final = """
    SELECT l.reason, l.device, l.replays FROM sens.dead_letters l JOIN sens.tenants t ON t.id = l.tenant_id WHERE t.name = 'demo' ORDER BY l.id
"""
DEVICE: Final = "plant.line1.press7"
EDGE_NODE: Final = "plant.line1"


class Log:
    """A stream in memory, which workers read past each other."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.envelopes: dict[int, MemoryEnvelope] = {}
        self.read: list[int] = []

    def add(self, *messages: Message, replays: int = 0, origins: Sequence[Origin] = ()) -> MemoryEnvelope:
        sequence = len(self.envelopes) + 1
        envelope = MemoryEnvelope(sequence, list(messages), replays=replays, origins=list(origins), stream=self.number)
        self.envelopes[sequence] = envelope
        return envelope

    async def sent(self, position: StreamPosition) -> list[SentEarlier]:
        self.read.append(position.sequence)
        envelope = self.envelopes[position.sequence]
        return [SentEarlier(message, envelope.origin(index)) for index, message in enumerate(envelope.messages)]

    async def settled_up_to(self) -> int:
        return 0

    async def replay(self, messages: Sequence[ReplayedMessage]) -> None:
        for each in messages:
            self.add(
                Message(each.topic, each.payload, each.received_at), replays=each.replays + 1, origins=[each.origin]
            )


class Worker:
    """A telemetry worker's way from messages to the database."""

    def __init__(self, database: Database, log: Log) -> None:
        earlier = UnsettledAnnouncements(UnsettledEnvelopes(database, log), log)
        births = BirthReader(TimescaleBirths(database), earlier)
        self.builder = BatchBuilder(TimescaleRegistry(database), decoder("native"), births=births)
        self.store = TimescaleStore(database, NO_QUOTA)
        self.explained = ExplainedLetters(database, log)

    async def put(self, *envelopes: MemoryEnvelope) -> None:
        stop = asyncio.Event()
        inbox = MemoryInbox([list(envelopes)], stop)
        await pipeline_of(inbox, builder=self.builder, store=self.store, guard=DeadLetterGuard(1, 1)).run(stop)


class World:
    """A database, a stream and two workers."""

    def __init__(self, connection: Connection, log: Log, workers: list[Worker]) -> None:
        self.connection = connection
        self.log = log
        self.workers = workers

    async def fetch(self, query: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await self.connection.fetch(query)]

    async def replay(self) -> int:
        """Replay what births explain, and let a worker take it; return how many messages that were."""
        known = len(self.log.envelopes)
        while await self.workers[0].explained.replay_next():
            pass
        replayed = [envelope for sequence, envelope in self.log.envelopes.items() if sequence > known]
        for envelope in replayed:
            await self.workers[1].put(envelope)
        return len(replayed)

    async def values(self) -> list[tuple[object, ...]]:
        return await self.fetch(VALUES)

    async def letters(self) -> list[tuple[object, ...]]:
        return await self.fetch(LETTERS)


@asynccontextmanager
async def made_world(settings: DatabaseSettings, number: int = 1) -> AsyncIterator[World]:
    """Make a world of its own in a database: another tenant and stream for each number."""
    log = Log(number)
    async with AsyncExitStack() as resources:
        connection = await resources.enter_async_context(owner(settings))
        await connection.execute("UPDATE sens.tenants SET name = name || '-' || id")
        await connection.execute("INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 36500)")
        await connection.execute(SOURCE)
        pools = [await resources.enter_async_context(open_pool(settings, "test")) for _ in range(2)]
        yield World(connection, log, [Worker(Database(pool, settings), log) for pool in pools])


def message(kind: str, *metrics: bytes, time: int = TIME, device: str = "press7") -> Message:
    level = f"/{device}" if kind.startswith("D") else ""
    topic = SOURCES.topic("demo", "plant", f"spBv1.0/plant/{kind}/line1{level}")
    return Message(topic, payload(time, *metrics), RECEIVED_AT)


def birth(name: str = "temperature", *, kind: str = "DBIRTH", time: int = TIME, session: int | None = None) -> Message:
    """Return a birth with one metric, which has the alias 1."""
    number = [metric("bdSeq", session, datatype=4)] if session is not None else []
    return message(kind, metric(name, 20.0, alias=1), *number, time=time)


def data(value: float, *, kind: str = "DDATA", time: int = TIME) -> Message:
    return message(kind, metric(None, value, alias=1), time=time)
