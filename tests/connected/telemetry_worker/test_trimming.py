"""Observing and trimming a real stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client

from sens_common.jetstream import connect, ensure_streams, flush_all
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_telemetry_worker.guard import DeadLetterGuard, TopicCounts
from sens_telemetry_worker.jetstream.consumer import ensure_consumer
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.jetstream.trimming import KEPT_ENVELOPES, StreamTrimmer
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.settings import BatchSettings, HistorySettings
from sens_telemetry_worker.status import TelemetryStatus
from sens_telemetry_worker.timescale.bookkeeping import Bookkeeping
from sens_telemetry_worker.timescale.database import Database, open_pool
from support.envelopes import TOPIC, publish_envelopes, settle_envelopes
from support.servers import eventually, owner_pool


class MemorySettled:
    """The memory of settled envelopes, as `trimming.SettledEnvelopes`."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[int, int]] = []

    async def forget_before(self, stream: int, sequence: int) -> None:
        self.forgotten.append((stream, sequence))


def trimmer_of(
    client: Client,
    settings: HistorySettings,
    guard: DeadLetterGuard | None = None,
    *,
    kept_envelopes: int = KEPT_ENVELOPES,
) -> StreamTrimmer:
    return StreamTrimmer(
        client.jetstream(),
        settings,
        status=TelemetryStatus(),
        guard=guard or DeadLetterGuard(1, 1),
        settled=MemorySettled(),
        kept_envelopes=kept_envelopes,
    )


class TestSettledEnvelopes:
    async def test_are_forgotten_once_the_stream_no_longer_has_them(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        # The negative one is not of a stream of envelopes.
        async with (
            connect(nats, "test") as client,
            owner_pool(database) as owner,
            open_pool(database, "test") as pool,
        ):
            created = await ensure_consumer(client, nats)
            await publish_envelopes(client, 10)
            await client.jetstream().purge_stream(TELEMETRY_STREAM, seq=8)
            rows = [(created, sequence) for sequence in range(1, 11)] + [
                (created - 1, 99),
                (created + 1, 1),
                (-5, 1),
            ]
            await owner.executemany("INSERT INTO sens.settled (stream, sequence) VALUES ($1, $2)", rows)
            books = Bookkeeping(Database(pool, database), Quota(1, 1, 0, 0), lambda _tenants: None)
            trimmer = StreamTrimmer(
                client.jetstream(),
                HistorySettings(),
                status=TelemetryStatus(),
                guard=DeadLetterGuard(1, 1),
                settled=books,
                kept_envelopes=0,
            )
            await trimmer.observe_and_trim()
            left = await owner.fetch("SELECT stream, sequence FROM sens.settled ORDER BY 1, 2")
            assert [(row[0] - created if row[0] > 0 else row[0], row[1]) for row in left] == [
                (-5, 1),
                (0, 8),
                (0, 9),
                (0, 10),
            ]


@asynccontextmanager
async def settled_envelopes(client: Client, nats: NatsSettings, count: int) -> AsyncIterator[None]:
    """Publish envelopes and settle them; the consumer is open meanwhile."""
    await ensure_streams(client.jetstream(), nats)
    await publish_envelopes(client, count)
    inbox = StreamInbox(client, nats, BatchSettings(messages=1000, linger_milliseconds=200))
    async with inbox.open():
        await settle_envelopes(inbox, count)
        await flush_all(client)
        yield


class TestHistory:
    async def test_of_what_is_not_settled_stays(self, nats: NatsSettings) -> None:
        async with connect(nats, "test") as client:
            await ensure_consumer(client, nats)
            await publish_envelopes(client, 20)
            old = HistorySettings.model_construct(history_seconds=0, trim_interval_seconds=1)
            assert (await trimmer_of(client, old, kept_envelopes=0).observe_and_trim()) == 0

    async def test_that_is_settled_and_old_goes(self, nats: NatsSettings) -> None:
        async with connect(nats, "test") as client:
            jetstream = client.jetstream()
            async with settled_envelopes(client, nats, 20):
                old = HistorySettings.model_construct(history_seconds=0, trim_interval_seconds=1)
                trimmer = trimmer_of(client, old, kept_envelopes=5)
                removed = 0
                async with asyncio.timeout(20):
                    while removed < 15:
                        removed += await trimmer.observe_and_trim()
            assert (removed, (await jetstream.stream_info(TELEMETRY_STREAM)).state.messages) == (15, 5)

    async def test_stays_while_the_guard_finds_that_nothing_can_be_stored(self, nats: NatsSettings) -> None:
        guard = DeadLetterGuard(0.5, 1)
        old = HistorySettings.model_construct(history_seconds=0, trim_interval_seconds=1)
        async with connect(nats, "test") as client:
            jetstream = client.jetstream()
            async with settled_envelopes(client, nats, 20):

                async def is_settled() -> bool:
                    info = await jetstream.consumer_info(TELEMETRY_STREAM, "telemetry-worker")
                    return not info.num_pending and not info.num_ack_pending

                await eventually(is_settled, "all envelopes are settled")
                trimmer = trimmer_of(client, old, guard, kept_envelopes=0)
                guard.note({"demo": TopicCounts({TOPIC: 1}, {TOPIC: 1})})
                kept = await trimmer.observe_and_trim()
                guard.note({"demo": TopicCounts({TOPIC: 1}, {})})
                assert (kept, await trimmer.observe_and_trim()) == (0, 20)

    async def test_goes_before_its_time_when_the_stream_is_crowded(self, nats: NatsSettings) -> None:
        small = nats.model_copy(update={"stream_max_bytes": 1 << 20})

        async with connect(small, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, small)
            for _ in range(7):
                await jetstream.publish("sens.telemetry.test", bytes(100_000))
            inbox = StreamInbox(client, small, BatchSettings(messages=1000, linger_milliseconds=200))
            async with inbox.open():
                await settle_envelopes(inbox, 7)
                await flush_all(client)
                removed = 0
                while not removed:
                    removed = await trimmer_of(client, HistorySettings()).observe_and_trim()
            assert 1 <= removed <= 4
