"""The telemetry worker's parts on real servers: outages, poison, dead letters, live data, the log's history."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from sens_common import envelope, live
from sens_common.dead_letters import Origin
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import LIVE_INTEREST_SUBJECT, TELEMETRY_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_telemetry_worker.guard import DeadLetterGuard, JudgedMessages
from sens_telemetry_worker.jetstream.consumer import ensure_consumer
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.jetstream.trimming import StreamTrimmer
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.settings import BatchSettings, HistorySettings
from sens_telemetry_worker.status import Status
from sens_telemetry_worker.timescale.bookkeeping import Bookkeeping
from sens_telemetry_worker.timescale.database import Database, open_pool
from support.brokers import MqttBroker
from support.servers import eventually, free_port, nats_server, owner_pool, scratch_folder, wait_until
from support.workers import Publisher, TelemetryPath, running_path

TOPIC = "sens/v1/demo/d1/telemetry"


class TestPoison:
    def test_that_only_the_database_refuses_is_isolated(self, path: TelemetryPath) -> None:
        path.fetch("ALTER TABLE sens.measurements ADD CONSTRAINT no_666 CHECK (value <> 666)")
        with Publisher(path.broker) as publisher:
            publisher.publish_all(
                [
                    (TOPIC, json.dumps({"ts": 1_700_000_000 + n, "n": 666 if n == 42 else n}).encode())
                    for n in range(100)
                ]
            )
        path.wait_until_idle()
        assert [value[3] for value in path.values() if value[1] == "n"] == [n for n in range(100) if n != 42]
        assert path.telemetry.metric("sens_telemetry_messages_dead_lettered_total") == 1
        stored = path.fetch("SELECT count(DISTINCT (device_id, ts))::int FROM sens.measurements")[0][0]
        counts = "SELECT stored::int, duplicate::int, dead_lettered::int, unaccounted::int FROM sens.conservation()"
        assert [tuple(row) for row in path.fetch(counts)] == [(stored, 0, 1, 0)]


def dead_letters_in(path: TelemetryPath) -> int:
    """Return how many dead letters there are."""
    return int(path.fetch("SELECT count(*) FROM sens.dead_letters")[0][0])


class TestGuard:
    def test_one_tenants_malformed_messages_stop_nobody(
        self, mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        everything = {"SENS_DEAD_LETTERS__MAX_SHARE": "0.9", "SENS_DEAD_LETTERS__WINDOW_MESSAGES": "1000"}
        with running_path(mqtt_broker, nats, database, everything) as path:
            path.fetch("INSERT INTO sens.tenants (name) VALUES ('hostile')")
            with Publisher(path.broker) as publisher:
                publisher.publish_all([(f"sens/v1/hostile/d{number % 20}/telemetry", b"{") for number in range(2000)])
                publisher.publish_all([(TOPIC, b'{"ts": 1700000000, "n": 1}')])
            path.wait_until_idle()
            assert [value[3] for value in path.values() if value[1] == "n"] == [1]
            assert path.telemetry.get("/readyz")[0] == 200
            assert path.telemetry.metric("sens_telemetry_rejected_tenants_count") == 1
            assert dead_letters_in(path) == 2000

    def test_stops_a_worker_that_rejects_all_tenants_which_says_so_and_goes_on_after_a_restart(
        self, path: TelemetryPath
    ) -> None:
        everything = path.telemetry.environment
        path.telemetry.stop()
        path.fetch("INSERT INTO sens.tenants (name, late_days) VALUES ('acme', 36500)")
        share, window = {"SENS_DEAD_LETTERS__MAX_SHARE": "0.5"}, {"SENS_DEAD_LETTERS__WINDOW_MESSAGES": "500"}
        path.telemetry.environment = {**everything, **share, **window}
        path.telemetry.start()
        path.telemetry.wait_until_ready()
        topics = [f"sens/v1/{tenant}/d{number}/telemetry" for tenant in ("demo", "acme") for number in range(10)]
        good = [
            (topic, f'{{"ts": {1_700_000_000 + second}, "n": 1}}'.encode()) for topic in topics for second in range(20)
        ]
        with Publisher(path.broker) as publisher:
            publisher.publish_all(good)
            publisher.publish_all([(topics[number % 20], b"{") for number in range(3000)])
            wait_until(lambda: path.telemetry.get("/readyz")[0] == 503, "the worker is not ready")
            publisher.publish_all(
                [(topics[0], f'{{"ts": {1_700_000_100 + second}, "n": 1}}'.encode()) for second in range(20)]
            )
        problem = json.loads(path.telemetry.get("/readyz")[1])["checks"]["dead_letter_share"]
        assert "SENS_DEAD_LETTERS__MAX_SHARE" in problem
        assert path.telemetry.get("/healthz")[0] == 200
        assert "every tenant's messages would be dead-lettered" in path.telemetry.log.read_text()
        assert dead_letters_in(path) < 3000
        path.telemetry.stop()
        path.telemetry.environment = everything
        path.telemetry.start()
        path.wait_until_idle()
        assert dead_letters_in(path) == 3000
        assert len([value for value in path.values() if value[1] == "n"]) == len(good) + 20


class TestLive:
    async def test_readings_are_published_to_who_is_interested(self, path: TelemetryPath) -> None:
        async def work() -> list[live.Reading]:
            readings: asyncio.Queue[list[live.Reading]] = asyncio.Queue()
            async with connect(path.nats, "test") as client:

                async def note(message: object) -> None:
                    readings.put_nowait(live.decode(message.data))  # type: ignore[attr-defined]  # nats-py's Msg

                await client.subscribe(live.subject("demo"), cb=note)
                with Publisher(path.broker) as publisher:
                    # Interest is not kept for a worker that begins to listen later, so it is shown again, as the API does.
                    for second in range(20):
                        await client.publish(LIVE_INTEREST_SUBJECT, b"demo")
                        await client.flush()
                        payload = f'{{"ts": {1_700_000_000 + second}, "open": true}}'
                        await asyncio.to_thread(publisher.publish, TOPIC, payload)
                        with contextlib.suppress(TimeoutError):
                            return await asyncio.wait_for(readings.get(), 1)
            return []

        [reading] = await work()
        assert (reading.device, reading.metric, reading.value) == ("d1", "open", True)
        assert reading.measured_at % 1_000_000 == 0


async def publish(client: Client, count: int) -> None:
    jetstream = client.jetstream()
    for _ in range(count):
        await jetstream.publish("sens.telemetry.test", envelope.encode([envelope.Message(TOPIC, b"{}", 1)]))


async def settle(inbox: StreamInbox, count: int) -> None:
    """Take and acknowledge so many envelopes."""
    stop = asyncio.Event()
    while count > 0:
        envelopes = await inbox.take(stop)
        await inbox.acknowledge(envelopes)
        count -= len(envelopes)


class TestInbox:
    async def test_gives_back_what_was_not_taken(self, nats: NatsSettings) -> None:
        stop = asyncio.Event()
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            await publish(client, 3)
            for _ in range(2):
                inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
                async with inbox.open():
                    assert await inbox.take(stop)

    async def test_hands_over_a_foreign_message_as_one_without_a_topic(self, nats: NatsSettings) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            await client.jetstream().publish("sens.telemetry.foreign", b"not an envelope")
            inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
            async with inbox.open():
                (taken_envelope,) = await inbox.take(asyncio.Event())
            assert [(message.topic, message.payload) for message in taken_envelope.messages] == [
                ("", b"not an envelope")
            ]

    async def test_takes_no_more_than_its_size_at_once(self, nats: NatsSettings) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            body = envelope.encode([envelope.Message(TOPIC, bytes(900_000), 1)])
            for _ in range(20):
                await client.jetstream().publish("sens.telemetry.test", body)
            inbox = StreamInbox(client, nats, BatchSettings(messages=1000, linger_milliseconds=5000))
            sizes: list[int] = []
            async with inbox.open():
                while sum(sizes) < 20:
                    envelopes = await inbox.take(asyncio.Event())
                    await inbox.acknowledge(envelopes)
                    sizes.append(len(envelopes))
        assert sum(sizes) == 20
        assert max(sizes) * 900_000 <= 8 << 20

    @pytest.mark.parametrize(("rejected_share", "taken"), [(0.0, 4), (0.5, 8), (0.9, 8)])
    async def test_takes_as_many_more_as_are_rejected(
        self, nats: NatsSettings, rejected_share: float, taken: int
    ) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            await publish(client, 20)
            inbox = StreamInbox(client, nats, BatchSettings(messages=4, linger_milliseconds=5000))
            async with inbox.open():
                assert len(await inbox.take(asyncio.Event(), rejected_share=rejected_share)) == taken

    @pytest.mark.parametrize(("behind_seconds", "taken"), [(-60.0, 2), (60.0, 1)])
    async def test_waits_for_more_only_when_it_is_behind(
        self, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch, behind_seconds: float, taken: int
    ) -> None:
        monkeypatch.setattr("sens_telemetry_worker.jetstream.inbox.BEHIND_SECONDS", behind_seconds)

        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            inbox = StreamInbox(
                client,
                nats,
                BatchSettings(messages=2, linger_milliseconds=0, linger_milliseconds_behind=5000),
            )
            async with inbox.open():
                taking = asyncio.create_task(inbox.take(asyncio.Event()))
                await publish(client, 1)
                if taken == 1:
                    await asyncio.wait({taking})
                await publish(client, 1)
                assert len(await taking) == taken


async def take_one(inbox: StreamInbox, seconds: float) -> Origin:
    """Take and acknowledge one envelope; return its origin."""
    async with asyncio.timeout(seconds):
        (taken_envelope,) = await inbox.take(asyncio.Event())
    await inbox.acknowledge([taken_envelope])
    return taken_envelope.origin(0)


class TestInboxAfterALoss:
    async def test_of_its_request_in_a_restart_of_nats_asks_again(self) -> None:
        port, password = free_port(), "secret"

        async def run(folder: Path) -> None:
            with contextlib.ExitStack() as server:
                nats = server.enter_context(nats_server(folder, port, password))
                async with connect(nats, "test") as client:
                    inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
                    async with inbox.open():
                        await publish(client, 1)
                        await take_one(inbox, 10)
                        server.close()
                        server.enter_context(nats_server(folder, port, password))
                        await eventually(lambda: publishes(client), "NATS takes messages again")
                        # The forgotten request would have ended after 20 s.
                        await take_one(inbox, 12)

        with scratch_folder("sens-nats-") as folder:
            await run(folder)

    async def test_of_stream_and_consumer_makes_them_again_and_tells_their_messages_apart(
        self, nats: NatsSettings
    ) -> None:
        async with connect(nats, "test") as client:
            inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
            async with inbox.open():
                await publish(client, 1)
                before = await take_one(inbox, 10)
                await client.jetstream().delete_stream(TELEMETRY_STREAM)
                taking = asyncio.create_task(take_one(inbox, 10))
                await eventually(lambda: publishes(client), "the stream is there again")
                after = await taking
            # Both were the first message of their stream; a dead letter of one must not pass for one of the other.
            assert before.sequence == after.sequence == 1
            assert before != after


async def publishes(client: Client) -> bool:
    """Publish an envelope if the log takes it."""
    try:
        await publish(client, 1)
    except (NatsError, TimeoutError):
        return False
    return True


class MemorySettled:
    """The memory of settled envelopes, as `trimming.SettledEnvelopes`."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[int, int]] = []

    async def forget_before(self, stream: int, sequence: int) -> None:
        self.forgotten.append((stream, sequence))


def trimmer_of(client: Client, settings: HistorySettings, guard: DeadLetterGuard | None = None) -> StreamTrimmer:
    return StreamTrimmer(
        client.jetstream(),
        settings,
        status=Status(),
        guard=guard or DeadLetterGuard(1, 1),
        settled=MemorySettled(),
    )


class TestSettledEnvelopes:
    async def test_are_forgotten_once_the_log_no_longer_has_them(
        self, nats: NatsSettings, database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sens_telemetry_worker.jetstream.trimming.KEPT_ENVELOPES", 0)

        # The negative one is not of a stream of envelopes.
        async with (
            connect(nats, "test") as client,
            owner_pool(database) as owner,
            open_pool(database, "test") as pool,
        ):
            created = await ensure_consumer(client, nats)
            await publish(client, 10)
            await client.jetstream().purge_stream(TELEMETRY_STREAM, seq=8)
            rows = [(created, sequence) for sequence in range(1, 11)] + [
                (created - 1, 99),
                (created + 1, 1),
                (-5, 1),
            ]
            await owner.executemany("INSERT INTO sens.settled (stream, sequence) VALUES ($1, $2)", rows)
            books = Bookkeeping(Database(pool, database), Quota(1, 1, 0, 0), lambda _tenants: None)
            trimmer = StreamTrimmer(
                client.jetstream(), HistorySettings(), status=Status(), guard=DeadLetterGuard(1, 1), settled=books
            )
            await trimmer.observe_and_trim()
            left = await owner.fetch("SELECT stream, sequence FROM sens.settled ORDER BY 1, 2")
            assert [(row[0] - created if row[0] > 0 else row[0], row[1]) for row in left] == [
                (-5, 1),
                (0, 8),
                (0, 9),
                (0, 10),
            ]


class TestTenantsOfTheLastDay:
    async def test_are_told_once_by_the_messages_that_were_stored(self, database: DatabaseSettings) -> None:
        told: list[list[str]] = []

        async def run() -> None:
            async with owner_pool(database) as owner, open_pool(database, "test") as pool:
                await owner.execute(
                    """
                    INSERT INTO sens.tenants (name) VALUES ('today'), ('last-week'), ('rejected');
                    INSERT INTO sens.message_counts (tenant_id, day, backend, received, stored, duplicate, dead_lettered)
                    SELECT t.id, (now() AT TIME ZONE 'UTC')::date - days, 0, 1, stored, 0, 1 - stored
                    FROM (VALUES ('today', 0, 1), ('last-week', 7, 1), ('rejected', 0, 0)) AS c (name, days, stored)
                        JOIN sens.tenants t USING (name)
                    """
                )
                books = Bookkeeping(
                    Database(pool, database), Quota(1, 1, 0, 0), lambda tenants: told.append(list(tenants))
                )
                await books.observe()
                await books.observe()

        await run()
        assert told == [["today"]]


class TestHistory:
    async def test_of_what_is_not_settled_stays(self, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sens_telemetry_worker.jetstream.trimming.KEPT_ENVELOPES", 0)

        async with connect(nats, "test") as client:
            await ensure_consumer(client, nats)
            await publish(client, 20)
            old = HistorySettings.model_construct(history_seconds=0, trim_interval_seconds=1)
            assert (await trimmer_of(client, old).observe_and_trim()) == 0

    async def test_that_is_settled_and_old_goes(self, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sens_telemetry_worker.jetstream.trimming.KEPT_ENVELOPES", 5)

        async with connect(nats, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, nats)
            await publish(client, 20)
            inbox = StreamInbox(client, nats, BatchSettings(messages=1000, linger_milliseconds=200))
            async with inbox.open():
                await settle(inbox, 20)
                await client.flush()
                trimmer = trimmer_of(
                    client, HistorySettings.model_construct(history_seconds=0, trim_interval_seconds=1)
                )
                removed = 0
                async with asyncio.timeout(20):
                    while removed < 15:
                        removed += await trimmer.observe_and_trim()
            assert (removed, (await jetstream.stream_info(TELEMETRY_STREAM)).state.messages) == (15, 5)

    async def test_stays_while_the_guard_finds_that_nothing_can_be_stored(
        self, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sens_telemetry_worker.jetstream.trimming.KEPT_ENVELOPES", 0)

        guard = DeadLetterGuard(0.5, 1)
        old = HistorySettings.model_construct(history_seconds=0, trim_interval_seconds=1)
        async with connect(nats, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, nats)
            await publish(client, 20)
            inbox = StreamInbox(client, nats, BatchSettings(messages=1000, linger_milliseconds=200))
            async with inbox.open():
                await settle(inbox, 20)
                await client.flush()

                async def is_settled() -> bool:
                    info = await jetstream.consumer_info(TELEMETRY_STREAM, "telemetry-worker")
                    return not info.num_pending and not info.num_ack_pending

                await eventually(is_settled, "the log is settled")
                trimmer = trimmer_of(client, old, guard)
                guard.note({"demo": JudgedMessages({TOPIC: 1}, {TOPIC: 1})})
                kept = await trimmer.observe_and_trim()
                guard.note({"demo": JudgedMessages({TOPIC: 1}, {})})
                assert (kept, await trimmer.observe_and_trim()) == (0, 20)

    async def test_goes_before_its_time_when_the_log_is_crowded(self, nats: NatsSettings) -> None:
        small = nats.model_copy(update={"stream_max_bytes": 1 << 20})

        async with connect(small, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, small)
            for _ in range(7):
                await jetstream.publish("sens.telemetry.test", bytes(100_000))
            inbox = StreamInbox(client, small, BatchSettings(messages=1000, linger_milliseconds=200))
            async with inbox.open():
                await settle(inbox, 7)
                await client.flush()
                removed = 0
                while not removed:
                    removed = await trimmer_of(client, HistorySettings()).observe_and_trim()
            assert 1 <= removed <= 4
