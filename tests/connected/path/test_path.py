"""From an ordinary MQTT client to rows in the database, with the workers' processes between."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiomqtt import ProtocolVersion

from sens_common.migrations import migrate
from sens_common.settings import DatabaseSettings, NatsSettings
from support.brokers import MqttBroker, mock_broker, mosquitto
from support.databases import Databases
from support.servers import accepts_connections, free_port, nats_server, scratch_folder, wait_until
from support.workers import Publisher, TelemetryPath, Worker, running_path

TOPIC = "sens/v1/demo/{}/telemetry"


def microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)


@pytest.fixture(scope="module")
def shared_path(databases: Databases) -> Iterator[TelemetryPath]:
    """A path for the tests that stop nothing; each has a device of its own."""
    with (
        mock_broker() as broker,
        scratch_folder("sens-nats-") as folder,
        nats_server(folder) as nats,
        databases.new(migrate) as database,
        running_path(broker, nats, database) as path,
    ):
        yield path


class TestMessage:
    @pytest.mark.parametrize("version", [ProtocolVersion.V311, ProtocolVersion.V5], ids=["MQTT 3.1.1", "MQTT 5"])
    def test_of_an_ordinary_client_is_stored_with_its_types(
        self, shared_path: TelemetryPath, version: ProtocolVersion
    ) -> None:
        with Publisher(shared_path.broker, version=version) as publisher:
            publisher.publish(
                TOPIC.format(f"00-04-A3-0B-00-1C-05-3{version.value}"),
                '{"ts": 1700000000, "temperature": 21.5, "open": false, "firmware": "1.2", "air": {"co2": 417}}',
            )
        shared_path.wait_until_idle()
        device, at = f"0004a30b001c053{version.value}", microseconds(1_700_000_000)
        assert values_of(shared_path, device) == [
            ("air.co2", at, 417.0),
            ("firmware", at, "1.2"),
            ("open", at, False),
            ("temperature", at, 21.5),
        ]

    def test_without_a_time_has_that_of_its_receipt(self, shared_path: TelemetryPath) -> None:
        before = microseconds(time.time())
        with Publisher(shared_path.broker) as publisher:
            publisher.publish(TOPIC.format("without-a-time"), '{"a": 1}')
        shared_path.wait_until_idle()
        ((_, at, value),) = values_of(shared_path, "without-a-time")
        assert value == 1.0
        assert before <= at <= microseconds(time.time())

    def test_of_last_year_is_stored(self, shared_path: TelemetryPath) -> None:
        with Publisher(shared_path.broker) as publisher:
            publisher.publish(TOPIC.format("last-year"), '{"ts": "2025-01-31T23:59:59.999999Z", "a": 1, "b": "x"}')
        shared_path.wait_until_idle()
        assert [value for _, _, value in values_of(shared_path, "last-year")] == [1.0, "x"]

    def test_of_a_tenant_made_just_now_is_stored(self, shared_path: TelemetryPath) -> None:
        dead_lettered = shared_path.telemetry.metric("sens_telemetry_messages_dead_lettered_total")
        with Publisher(shared_path.broker) as publisher:
            publisher.publish("sens/v1/new/of-a-new-tenant/telemetry", '{"a": 1}')
            shared_path.wait_until_idle()
            shared_path.fetch("INSERT INTO sens.tenants (name, late_days) VALUES ('new', 36500)")
            publisher.publish("sens/v1/new/of-a-new-tenant/telemetry", '{"a": 2}')
        shared_path.wait_until_idle()
        assert [value for _, _, value in values_of(shared_path, "of-a-new-tenant")] == [2.0]
        assert shared_path.telemetry.metric("sens_telemetry_messages_dead_lettered_total") == dead_lettered + 1


def values_of(path: TelemetryPath, device: str) -> list[tuple[str, int, float | bool | str]]:
    """Return metric, time (µs) and value of all that is stored of a device, by metric and time."""
    return [value[1:] for value in path.values() if value[0] == device]


def load(publisher: Publisher, first: int, count: int, *, timed: bool) -> None:
    """Publish messages whose value is their number; devices take turns."""
    publisher.publish_all(
        [
            (
                TOPIC.format(f"d{number % 7}"),
                json.dumps({"ts": 1_700_000_000_000 + number, "n": number} if timed else {"n": number}).encode(),
            )
            for number in range(first, first + count)
        ]
    )


def stored_numbers(path: TelemetryPath) -> list[float]:
    return sorted(row["number"] for row in path.fetch_stored("SELECT number FROM stored_values WHERE metric = 'n'"))


class TestKill:
    """Killing a worker under load loses nothing and stores nothing twice."""

    @pytest.mark.parametrize("timed", [True, False], ids=["with a device time", "without any time"])
    @pytest.mark.parametrize("worker", ["ingestion", "telemetry"])
    def test_loses_and_doubles_nothing(
        self, any_mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings, worker: str, *, timed: bool
    ) -> None:
        with running_path(any_mqtt_broker, nats, database) as path:
            self.kill(path, worker, timed=timed)

    def kill(self, path: TelemetryPath, worker: str, *, timed: bool) -> None:
        victim = path.ingestion if worker == "ingestion" else path.telemetry
        with Publisher(path.broker) as publisher:
            load(publisher, 0, 500, timed=timed)
            wait_until(lambda: path.settled() > 0, "the load has begun")
            victim.stop(signal.SIGKILL)
            load(publisher, 500, 500, timed=timed)
            victim.start()
            load(publisher, 1000, 500, timed=timed)
            path.wait_until_idle()
            assert len(publisher.acknowledged) == 1500
        assert stored_numbers(path) == list(range(1500))


class TestKilledBroker:
    """Mosquitto takes up the sessions that it had saved, and sends what was acknowledged long ago."""

    @pytest.mark.parametrize("in_flight", [0, 50])
    def test_doubles_nothing_that_was_unacknowledged_or_queued_when_it_saved(
        self, nats: NatsSettings, database: DatabaseSettings, tmp_path: Path, in_flight: int
    ) -> None:
        with ExitStack() as brokers:
            broker = brokers.enter_context(mosquitto(store=tmp_path))
            with running_path(broker, nats, database) as path:
                with Publisher(broker) as publisher:
                    load(publisher, 0, 20, timed=False)
                    path.wait_until_idle()
                    assert path.ingestion.process is not None
                    path.ingestion.process.send_signal(signal.SIGSTOP)
                    load(publisher, 20, in_flight, timed=False)
                    path.ingestion.stop(signal.SIGKILL)
                    load(publisher, 20 + in_flight, 50, timed=False)
                os.kill(broker.pid, signal.SIGUSR1)
                wait_until((tmp_path / "mosquitto.db").exists, "the broker has saved its sessions")
                path.ingestion.start()
                path.wait_until_idle()
                os.kill(broker.pid, signal.SIGKILL)
                wait_until(lambda: not accepts_connections(broker.port), "the broker is gone")
                brokers.enter_context(mosquitto(broker.port, store=tmp_path))
                path.ingestion.wait_until_ready()
                with Publisher(broker) as publisher:
                    load(publisher, 70 + in_flight, 20, timed=False)
                path.wait_until_idle()
                assert path.ingestion.metric("sens_ingestion_messages_redelivered_total") >= in_flight + 50
                assert stored_numbers(path) == list(range(90 + in_flight))

    def test_takes_no_new_message_for_one_that_came_after_it_had_saved(
        self, nats: NatsSettings, database: DatabaseSettings, tmp_path: Path
    ) -> None:
        """The broker gives it the same identifier, because it knows nothing of the other one."""
        constant = (TOPIC.format("d1"), b'{"n": 1}')
        with ExitStack() as brokers:
            broker = brokers.enter_context(mosquitto(store=tmp_path))
            with running_path(broker, nats, database) as path:
                os.kill(broker.pid, signal.SIGUSR1)
                wait_until((tmp_path / "mosquitto.db").exists, "the broker has saved its sessions")
                with Publisher(broker) as publisher:
                    publisher.publish_all([constant] * 20)
                wait_until(lambda: len(stored_numbers(path)) == 20, "everything is stored")
                os.kill(broker.pid, signal.SIGKILL)
                wait_until(lambda: not accepts_connections(broker.port), "the broker is gone")
                brokers.enter_context(mosquitto(broker.port, store=tmp_path))
                wait_until(
                    lambda: path.ingestion.metric("sens_ingestion_mqtt_connections_total") == 2,
                    "the session is resumed",
                )
                with Publisher(broker) as publisher:
                    publisher.publish_all([constant] * 5)
                path.wait_until_idle()
                assert len(stored_numbers(path)) == 25


class TestSharedSubscription:
    def test_spreads_the_load_over_two_workers_and_stores_everything_once(
        self, any_mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        with running_path(any_mqtt_broker, nats, database) as path:
            path.ingestion.stop()
            replicas = [
                Worker(
                    path.ingestion.module,
                    {
                        **path.ingestion.environment,
                        "SENS_MQTT__CLIENT_ID": f"replica-{number}",
                        "SENS_MQTT__TOPIC_FILTERS": '["$share/sens/sens/v1/+/+/telemetry"]',
                    },
                    free_port(),
                    path.ingestion.log.with_suffix(f".{number}"),
                )
                for number in range(2)
            ]
            try:
                for replica in replicas:
                    replica.start()
                for replica in replicas:
                    replica.wait_until_ready()
                with Publisher(path.broker) as publisher:
                    load(publisher, 0, 400, timed=False)
                wait_until(lambda: len(stored_numbers(path)) >= 400, "everything is stored")
                assert stored_numbers(path) == list(range(400))
                shares = [replica.metric("sens_ingestion_messages_published_total") for replica in replicas]
                assert sum(shares) == 400
                assert min(shares) > 0
            finally:
                for replica in replicas:
                    replica.stop()


class TestStop:
    def test_finishes_and_ends_with_success(self, path: TelemetryPath) -> None:
        with Publisher(path.broker) as publisher:
            load(publisher, 0, 200, timed=False)
        assert path.telemetry.stop() == 0
        assert path.ingestion.stop() == 0
        path.telemetry.start()
        path.ingestion.start()
        path.wait_until_idle()
        assert stored_numbers(path) == list(range(200))


class TestOperations:
    def test_never_say_ready_before_the_broker_is_subscribed(self, nats: NatsSettings, tmp_path: Path) -> None:
        """What is published before the first subscription reaches nobody, so whoever waits for readiness must wait for that."""
        assert nats.password is not None
        environment = {
            "SENS_NATS__URL": nats.url,
            "SENS_NATS__USER": nats.user or "",
            "SENS_NATS__PASSWORD": nats.password.get_secret_value(),
            "SENS_MQTT__URL": f"mqtt://127.0.0.1:{free_port()}",
        }
        worker = Worker("sens_mqtt_ingestion_worker", environment, free_port(), tmp_path / "log")
        worker.start()
        try:
            answers = [worker.get("/readyz")]

            def tries() -> bool:
                answers.append(worker.get("/readyz"))
                return "can't be reached" in answers[-1][1]

            wait_until(tries, "it tries to reach the broker")
            assert {status for status, body in answers if body} == {503}
        finally:
            worker.stop(signal.SIGKILL)

    def test_of_both_workers_answer(self, shared_path: TelemetryPath) -> None:
        for worker in (shared_path.ingestion, shared_path.telemetry):
            assert worker.get("/healthz") == (200, '{"status":"ok"}')
            status, body = worker.get("/readyz")
            assert status == 200
            assert set(json.loads(body)["checks"].values()) == {"ok"}
            assert set(json.loads(worker.get("/version")[1])) == {"name", "version", "product_commit"}
