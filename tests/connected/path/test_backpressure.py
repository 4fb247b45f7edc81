"""A hop that holds makes the one before it wait, back to the broker, and says so; when it goes on, everything arrives once."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamState

from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from support.brokers import MqttBroker
from support.servers import refusing_connections, wait_until
from support.workers import Publisher, TelemetryPath, Worker, running_path

TOPIC = "sens/v1/demo/d{}/telemetry"
RECEIVE_MAX = 20
LIMIT_BYTES = 4 << 20


def in_jetstream[T](settings: NatsSettings, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """Do something with JetStream."""

    async def run() -> T:
        async with connect(settings, "test") as client:
            return await work(client.jetstream())

    return asyncio.run(run())


def state(path: TelemetryPath, stream: str) -> StreamState:
    """Return what a stream holds."""

    async def ask(jetstream: JetStreamContext) -> StreamState:
        return (await jetstream.stream_info(stream)).state

    return in_jetstream(path.nats, ask)


def flow(worker: Worker) -> str:
    """Return what a worker's readiness says about the flow, "" when nothing answers."""
    body = worker.get("/readyz")[1]
    return str(json.loads(body)["flow"]) if body else ""


def says(worker: Worker, *texts: str) -> Callable[[], bool]:
    """Return whether the worker is alive, not ready, and says all this."""

    def check() -> bool:
        sentence = flow(worker)
        return worker.get("/readyz")[0] == 503 and all(text in sentence for text in texts)

    assert worker.get("/healthz")[0] == 200
    return check


def load(publisher: Publisher, first: int, count: int) -> None:
    """Publish messages of 40 kB whose value is their number."""
    texts = {f"t{number}": "x" * 4000 for number in range(10)}
    publisher.publish_all(
        [
            (
                TOPIC.format(number % 7),
                json.dumps({"ts": 1_700_000_000_000 + number, "n": number, **texts}).encode(),
            )
            for number in range(first, first + count)
        ]
    )


def stored(path: TelemetryPath) -> list[float | bool | str]:
    return sorted(value for _, metric, _, value in path.values() if metric == "n")


@pytest.fixture
def small_path(any_mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings) -> Iterator[TelemetryPath]:
    """The path with a stream of 4 MiB, and with few unacknowledged messages; room in the stream is made as soon as there is some."""
    small = nats.model_copy(update={"stream_max_bytes": LIMIT_BYTES})
    settings = {"SENS_MQTT__RECEIVE_MAX": str(RECEIVE_MAX), "SENS_HISTORY__TRIM_INTERVAL_SECONDS": "0.2"}
    with running_path(any_mqtt_broker, small, database, settings) as path:
        yield path


class TestDatabaseThatIsAway:
    def test_holds_all_hops_up_to_the_broker_and_lets_everything_pass_once(
        self, small_path: TelemetryPath, postgres: DatabaseSettings
    ) -> None:
        path = small_path
        with Publisher(path.broker) as publisher:
            with refusing_connections(postgres, path.database.name):
                load(publisher, 0, 200)
                wait_until(
                    says(path.telemetry, "the database holds", "not currently accepting", "storing"), "it says so"
                )
                wait_until(says(path.ingestion, "the stream is full", "PUBACKs stop", "not acknowledged"), "it says so")
                held = state(path, TELEMETRY_STREAM)
                acknowledged = path.ingestion.metric("sens_ingestion_messages_acknowledged_total")
                refusals = path.ingestion.metric("sens_ingestion_publish_retries_total")
                load(publisher, 200, 200)
                wait_until(
                    lambda: path.ingestion.metric("sens_ingestion_publish_retries_total") > refusals,
                    "it is refused again",
                )
                assert state(path, TELEMETRY_STREAM) == held
                assert held.first_seq == 1
                assert path.ingestion.metric("sens_ingestion_messages_acknowledged_total") == acknowledged < 200
                # How many more than those it took, depends on how the broker counts; some always stay with the broker.
                assert acknowledged < path.ingestion.metric("sens_ingestion_messages_received_total") < 400
                assert path.ingestion.metric("sens_ingestion_buffered_messages_count") > 0
                assert path.ingestion.metric("sens_ingestion_oldest_unacknowledged_seconds") > 0
                assert path.telemetry.metric("sens_telemetry_lanes_count") == 2
                wait_until(
                    lambda: path.telemetry.metric("sens_telemetry_stream_filled_ratio") > 0.5, "the stream fills up"
                )
                assert len(publisher.acknowledged) == 400  # by the broker, which queues
            path.wait_until_idle()
        assert stored(path) == list(range(400))
        wait_until(lambda: path.ingestion.metric("sens_ingestion_buffered_messages_count") == 0, "nothing is held")
        path.ingestion.wait_until_ready()
        assert flow(path.ingestion) == "passes everything on"
        assert path.ingestion.metric("sens_ingestion_oldest_unacknowledged_seconds") == 0


class TestDatabaseThatRefusesDeadLetters:
    def test_holds_the_worker_and_loses_none(self, path: TelemetryPath) -> None:
        path.fetch("ALTER TABLE sens.dead_letters ADD CONSTRAINT none CHECK (false)")
        with Publisher(path.broker) as publisher:
            publisher.publish_all([(TOPIC.format(n), b"%d malformed" % n) for n in range(80)])
        wait_until(says(path.telemetry, "the database refuses dead letters", "storing"), "it says so")
        assert path.telemetry.metric("sens_telemetry_messages_dead_lettered_total") == 0
        path.fetch("ALTER TABLE sens.dead_letters DROP CONSTRAINT none")
        path.telemetry.wait_until_ready()
        path.wait_until_idle()
        assert path.fetch("SELECT count(*) FROM sens.dead_letters")[0][0] == 80
        assert path.telemetry.metric("sens_telemetry_messages_dead_lettered_total") == 80


class TestFullQuota:
    def test_discards_counts_and_stops_nobody(self, path: TelemetryPath) -> None:
        path.fetch("UPDATE sens.tenants SET dead_letter_count_limit = 10")
        path.fetch("INSERT INTO sens.tenants (name) VALUES ('acme')")
        with Publisher(path.broker) as publisher:
            for _ in range(3):
                publisher.publish_all([(TOPIC.format(n), b"%d malformed" % n) for n in range(40)])
            publisher.publish("sens/v1/acme/d1/telemetry", b"malformed")
            publisher.publish("sens/v1/acme/d1/telemetry", b'{"n": 1}')
        path.wait_until_idle()
        found = path.fetch(
            """
            SELECT t.name, received::int, dead_lettered::int, discarded::int, unaccounted::int,
                (SELECT count(*)::int FROM sens.dead_letters d WHERE d.tenant_id = t.id)
            FROM sens.conservation() JOIN sens.tenants t ON t.id = tenant_id ORDER BY name
            """
        )
        acme, demo = map(tuple, found)
        assert acme == ("acme", 2, 1, 0, 0, 1)
        assert demo[1] == 121  # and what shows that the path is idle
        # It may be exceeded by a batch, not by more.
        assert demo[2] + demo[3] == 120
        assert demo[3] >= 40
        assert demo[4] == 0
        assert demo[5] == demo[2]
        assert path.telemetry.metric("sens_telemetry_messages_discarded_total") == demo[3]
        wait_until(lambda: path.telemetry.metric("sens_telemetry_dead_letters_filled_ratio") >= 1, "the metric says so")
        assert path.telemetry.get("/readyz")[0] == 200


class TestStreamThatDiscards:
    def test_is_reported(self, mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings) -> None:
        async def discard_old(jetstream: JetStreamContext) -> None:
            await ensure_streams(jetstream, nats)
            config = (await jetstream.stream_info(TELEMETRY_STREAM)).config
            config.discard = DiscardPolicy.OLD
            await jetstream.update_stream(config)

        with running_path(mqtt_broker, nats, database) as path:
            in_jetstream(path.nats, discard_old)
            wait_until(says(path.telemetry, "stream TELEMETRY discards old messages", "--discard new"), "it says so")
