"""What an MQTT session is subscribed to follows the settings, on real sessions of a real broker."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager

import pytest

from sens_common import tenant_limits as limits
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.jetstream import connect
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_common.topics import NATIVE_PATTERN
from sens_mqtt_ingestion_worker.mqtt import MqttConnection, MqttSource, PlatformBroker
from sens_mqtt_ingestion_worker.sessions import SessionRecord
from sens_mqtt_ingestion_worker.settings import MqttSettings
from sens_mqtt_ingestion_worker.source_routes import SourceRoutes
from support.brokers import MqttBroker, mock_broker, mosquitto
from support.memory import MemoryRecord
from support.servers import eventually
from support.workers import Publisher, running_path

TOPIC = "sens/v1/demo/{}/telemetry"
NATIVE_TOPIC_FILTER = NATIVE_PATTERN.filter
SHARED = f"$share/sens/{NATIVE_TOPIC_FILTER}"
NARROWER = "sens/v1/demo/+/telemetry"
ALL = "sens/#"


@pytest.fixture(params=["mosquitto", "mock-mqtt-broker"])
def broker(request: pytest.FixtureRequest) -> Iterator[MqttBroker]:
    """Each kind of broker in turn."""
    with mosquitto() if request.param == "mosquitto" else mock_broker() as running:
        yield running


@asynccontextmanager
async def session(broker: MqttBroker, record: MemoryRecord, *filters: str) -> AsyncIterator[MqttConnection]:
    """Connect the session and wait until the broker has answered everything."""
    settings = MqttSettings(url=f"mqtt://{broker.host}:{broker.port_v5}", client_id="w", topic_filters=list(filters))
    source = MqttSource(
        PlatformBroker(settings, None), ReceiptClock(time_slot("w")), record, max_packet_bytes=1_000_000
    )
    async with source.connect() as connection:
        assert await connection.settled() == []
        await eventually(lambda: record.holds(filters), "the filters are recorded")
        yield connection


async def times_received(broker: MqttBroker, record: MemoryRecord, *filters: str) -> int:
    """Connect with the filters, publish a message, and return how often it is received."""

    def publish() -> None:
        with Publisher(broker) as publisher:
            publisher.publish_all([(TOPIC.format(device), b"{}") for device in ("d1", "last")])

    async with session(broker, record, *filters) as connection:
        await asyncio.to_thread(publish)
        topics: list[str] = []
        while TOPIC.format("last") not in topics:
            topics += [message.topic for message in (await connection.receive()).messages]
        return topics.count(TOPIC.format("d1"))


async def run[T](work: Coroutine[None, None, T]) -> T:
    async with asyncio.timeout(20):
        return await work


class TestSession:
    @pytest.mark.parametrize(
        ("before", "after"),
        [(NATIVE_TOPIC_FILTER, SHARED), (SHARED, NATIVE_TOPIC_FILTER), (NATIVE_TOPIC_FILTER, NARROWER), (ALL, SHARED)],
    )
    async def test_that_is_given_another_filter_gets_every_message_once(
        self, broker: MqttBroker, before: str, after: str
    ) -> None:
        async def work() -> int:
            record = MemoryRecord()
            async with session(broker, record, before):
                pass
            return await times_received(broker, record, after)

        assert await run(work()) == 1

    @pytest.mark.parametrize("has", [[ALL], [ALL, NATIVE_TOPIC_FILTER], [NATIVE_TOPIC_FILTER], []])
    async def test_whose_worker_was_killed_while_the_filter_changed_gets_every_message_once(
        self, broker: MqttBroker, has: list[str]
    ) -> None:
        """Before the broker subscribed, before it unsubscribed, before that was recorded; or the broker has lost the session."""

        async def work() -> int:
            for each in has:
                async with session(
                    broker, MemoryRecord(each), each
                ):  # nothing else is known, so nothing else is unsubscribed
                    pass
            return await times_received(broker, MemoryRecord(ALL, NATIVE_TOPIC_FILTER), NATIVE_TOPIC_FILTER)

        assert await run(work()) == 1

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (NATIVE_TOPIC_FILTER, SHARED),
            (SHARED, NATIVE_TOPIC_FILTER),
            (NATIVE_TOPIC_FILTER, NARROWER),
            (SHARED, NARROWER),
        ],
    )
    async def test_of_which_nothing_is_recorded_is_rid_of_the_usual_filters(
        self, broker: MqttBroker, before: str, after: str
    ) -> None:
        async def work() -> int:
            async with session(broker, MemoryRecord(), before):
                pass
            return await times_received(broker, MemoryRecord(), after)

        assert await run(work()) == 1


class TestRecord:
    async def test_is_kept_for_each_session_and_broker(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:

                def record(client_id: str, url: str) -> SessionRecord:
                    return SessionRecord(client.jetstream(), nats, client_id, url)

                mine = record(".w-0.", "mqtt://a:1")
                assert await mine.load() is None
                await mine.save(frozenset({ALL}))
                await mine.save(frozenset({SHARED, ALL}))
                assert await record(".w-0.", "mqtt://a:1").load() == frozenset({SHARED, ALL})
                assert await record(".w-0.", "mqtt://b:1").load() is None
                assert await record("w-1", "mqtt://a:1").load() is None

        await run(work())


class TestWorker:
    def test_that_begins_to_share_its_subscription_stores_every_message_once(
        self, broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        """Scaling from one to two replicas: what is published before, during and after."""
        with running_path(broker, nats, database) as path, Publisher(broker) as publisher:
            worker = path.ingestion

            def publish(first: int) -> None:
                publisher.publish_all(
                    [(TOPIC.format("d1"), b'{"n": %d}' % number) for number in range(first, first + 10)]
                )

            publish(0)
            worker.stop(signal.SIGKILL)
            publish(10)
            worker.environment = {**worker.environment, "SENS_MQTT__TOPIC_FILTERS": f'["{SHARED}"]'}
            worker.start()
            worker.wait_until_ready()
            publish(20)
            path.wait_until_idle()
            numbers = [value for device, _, _, value in path.values() if device == "d1"]
            assert sorted(numbers) == list(range(30))
            assert worker.metric("sens_ingestion_subscriptions_ended_total") == 1

    def test_that_changes_its_subscription_under_load_loses_nothing_and_counts_what_may_be_doubled(
        self, broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        with running_path(broker, nats, database) as path, Publisher(broker) as publisher:
            worker = path.ingestion
            doubled = 0.0
            filters = itertools.cycle([SHARED, NATIVE_TOPIC_FILTER])
            for start in range(0, 4000, 1000):
                worker.stop()
                worker.environment = {**worker.environment, "SENS_MQTT__TOPIC_FILTERS": f'["{next(filters)}"]'}
                worker.start()
                publisher.publish_all(
                    [(TOPIC.format("d1"), b'{"n": %d}' % number) for number in range(start, start + 1000)]
                )
                worker.wait_until_ready()
                path.wait_until_idle()
                doubled += worker.metric("sens_ingestion_messages_between_subscriptions_total")
            numbers = [value for device, _, _, value in path.values() if device == "d1"]
            assert set(numbers) == set(range(4000))
            assert len(numbers) <= 4000 + doubled


class TestSources:
    async def test_are_followed_without_a_new_connection_and_no_message_is_missed_or_comes_twice(
        self, broker: MqttBroker
    ) -> None:
        routes = SourceRoutes([NATIVE_TOPIC_FILTER])
        record = MemoryRecord()
        settings = MqttSettings(url=f"mqtt://{broker.host}:{broker.port_v5}", client_id="w")
        source = MqttSource(
            PlatformBroker(settings, None), ReceiptClock(time_slot("w")), record, routes, max_packet_bytes=1_000_000
        )

        def publish(*topics: str) -> None:
            with Publisher(broker) as publisher:
                publisher.publish_all([(topic, b"{}") for topic in topics])

        async def change(*sources: tuple[str, str]) -> None:
            routes.set({"demo": [limits.MqttSource(*each) for each in sources]})
            await eventually(
                lambda: record.holds((NATIVE_TOPIC_FILTER, *(topic_filter for _, topic_filter in sources))),
                "the session follows",
            )

        async def work() -> list[str]:
            async with source.connect() as connection:
                assert await connection.settled() == []
                topics: list[str] = []
                await change(("a", "tele/#"))
                await asyncio.to_thread(publish, "tele/1", "stat/1", TOPIC.format("d1"))
                await change(("a", "tele/#"), ("b", "stat/#"))
                await asyncio.to_thread(publish, "tele/2", "stat/2")
                await change(("b", "stat/#"))
                await asyncio.to_thread(publish, "tele/3", "stat/3", TOPIC.format("last"))
                while TOPIC.format("last") not in topics:
                    topics += [message.topic for message in (await connection.receive()).messages]
                return topics

        assert sorted(await run(work())) == sorted(
            [
                "ingest/v1/demo/a/tele/1",
                TOPIC.format("d1"),
                "ingest/v1/demo/a/tele/2",
                "ingest/v1/demo/b/stat/2",
                "ingest/v1/demo/b/stat/3",
                TOPIC.format("last"),
            ]
        )
