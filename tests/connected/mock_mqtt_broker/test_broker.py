"""The mock broker as its users meet it: ordinary MQTT clients, a supervisor, a terminal."""

import asyncio
import contextlib
import importlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from sens_common.attempts import Backoff
from sens_mock_mqtt_broker.fleet import Fleet
from sens_mock_mqtt_broker.publisher import Publisher, wall_clock
from support.brokers import MqttBroker, mock_broker
from support.servers import HOST, accepts_connections, eventually, free_port, process, wait_until
from tools.stack.metrics import samples
from tools.stack.programs import MOCK_BROKER, mock_broker_environment

# Loaded by name, untyped: the published stubs (types-paho-mqtt) describe paho-mqtt 1.6, which has another constructor.
paho = importlib.import_module("paho.mqtt.client")
V311, V5 = 4, 5
WAIT_SECONDS = 20.0


class Client:
    """An ordinary MQTT client."""

    def __init__(
        self,
        broker: MqttBroker,
        version: int,
        client_id: str = "",
        *,
        keep_session: bool = False,
        port: int | None = None,
    ) -> None:
        protocol = paho.MQTTProtocolVersion(version)
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._connected: queue.Queue[bool] = queue.Queue()
        self._subscribed: queue.Queue[bool] = queue.Queue()
        clean = None if version == V5 else not keep_session
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, clean, protocol=protocol, reconnect_on_failure=False
        )
        self._client.connect_callback()(lambda *_: self._connected.put(True))
        self._client.subscribe_callback()(lambda *_: self._subscribed.put(True))
        self._client.message_callback()(
            lambda _client, _data, message: self.messages.put((message.topic, message.payload))
        )
        port = port or broker.port
        if version == V5:
            properties = paho.Properties(paho.PacketTypes.CONNECT)
            for name, value in {"SessionExpiryInterval": 600 if keep_session else 0}.items():
                setattr(properties, name, value)
            self._client.connect(broker.host, port, clean_start=not keep_session, properties=properties)
        else:
            self._client.connect(broker.host, port)
        self._client.loop_start()
        self._connected.get(timeout=WAIT_SECONDS)

    def subscribe(self, topic_filter: str) -> None:
        self._client.subscribe(topic_filter, qos=1)
        self._subscribed.get(timeout=WAIT_SECONDS)

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(WAIT_SECONDS)

    def hold_acknowledgements(self) -> None:
        self._client.manual_ack_set(True)

    def receive(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=WAIT_SECONDS)

    def close(self) -> None:
        if (connection := self._client.socket()) is not None:
            with contextlib.suppress(OSError):  # the broker was first
                connection.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()


@contextlib.contextmanager
def client(broker: MqttBroker, version: int, client_id: str = "", *, keep_session: bool = False) -> Iterator[Client]:
    one = Client(broker, version, client_id, keep_session=keep_session)
    try:
        yield one
    finally:
        one.close()


def readiness(broker: MqttBroker) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"http://{broker.host}:{broker.operations_port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)["checks"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["checks"]


def flow(broker: MqttBroker) -> str:
    try:
        with urllib.request.urlopen(f"http://{broker.host}:{broker.operations_port}/readyz", timeout=5) as answer:
            return str(json.load(answer)["flow"])
    except urllib.error.HTTPError as error:  # not ready yet
        return str(json.load(error)["flow"])


def metric(broker: MqttBroker, name: str) -> float:
    with urllib.request.urlopen(f"http://{broker.host}:{broker.operations_port}/metrics", timeout=5) as answer:
        (value,) = samples(answer.read().decode(), name)
    return value


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def shared_broker() -> Iterator[MqttBroker]:
    """One broker for the tests that only talk to it."""
    with mock_broker() as broker:
        yield broker


class TestClients:
    @pytest.mark.parametrize("subscriber_version", [V311, V5], ids=["to 3.1.1", "to 5"])
    @pytest.mark.parametrize("publisher_version", [V311, V5], ids=["from 3.1.1", "from 5"])
    def test_messages_cross_between_versions(
        self, shared_broker: MqttBroker, publisher_version: int, subscriber_version: int
    ) -> None:
        with (
            client(shared_broker, subscriber_version) as subscriber,
            client(shared_broker, publisher_version) as publisher,
        ):
            subscriber.subscribe("sens/v1/+/+/telemetry")
            publisher.publish("sens/v1/demo/one/telemetry", b'{"temperature":21.5}')
            assert subscriber.receive() == ("sens/v1/demo/one/telemetry", b'{"temperature":21.5}')

    @pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
    def test_a_megabyte_passes(self, shared_broker: MqttBroker, version: int) -> None:
        payload = bytes(1_000_000)
        with client(shared_broker, version) as one:
            one.subscribe("large")
            one.publish("large", payload)
            assert one.receive() == ("large", payload)

    @pytest.mark.parametrize("second", [False, True], ids=["first port", "second port"])
    @pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
    def test_both_versions_are_spoken_on_both_ports(
        self, shared_broker: MqttBroker, version: int, second: bool
    ) -> None:
        port = shared_broker.port_v5 if second else shared_broker.port
        one = Client(shared_broker, version, port=port)
        one.subscribe(f"port/{port}/{version}")
        one.publish(f"port/{port}/{version}", b"1")
        assert one.receive() == (f"port/{port}/{version}", b"1")
        one.close()

    def test_a_session_keeps_what_arrives_while_its_client_is_away(self, shared_broker: MqttBroker) -> None:
        with client(shared_broker, V5, "worker", keep_session=True) as worker:
            worker.subscribe("sens/#")
        with client(shared_broker, V311) as publisher:
            publisher.publish("sens/one", b"1")
        with client(shared_broker, V5, "worker", keep_session=True) as worker:
            assert worker.receive() == ("sens/one", b"1")


CONNECT_V5 = b"\x10\x14\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x07hostile"


def read_until_closed(connection: socket.socket) -> bytes:
    connection.settimeout(WAIT_SECONDS)
    answer = b""
    while data := connection.recv(4096):
        answer += data
    return answer


class TestHostileClients:
    def test_a_connack_from_a_client_does_not_lock_others_out(self, mqtt_broker: MqttBroker) -> None:
        for port in (mqtt_broker.port, mqtt_broker.port_v5):
            for _ in range(3):
                with socket.create_connection((mqtt_broker.host, port)) as hostile:
                    hostile.sendall(CONNECT_V5 + bytes.fromhex("2003000000"))
                    assert read_until_closed(hostile).endswith(b"\xe0\x01\x81"), "it is told: malformed packet"
        assert readiness(mqtt_broker) == (200, {"broker": "ok"})
        with client(mqtt_broker, V5, "hostile") as one:
            one.subscribe("alive")
            one.publish("alive", b"1")
            assert one.receive() == ("alive", b"1")

    def test_the_last_member_of_a_share_may_go_with_messages_unacknowledged(self, mqtt_broker: MqttBroker) -> None:
        with client(mqtt_broker, V5, "worker", keep_session=True) as worker:
            worker.subscribe("$share/sens/a")
            worker.hold_acknowledgements()
            with client(mqtt_broker, V311) as publisher:
                publisher.publish("a", b"1")
            worker.receive()
        assert readiness(mqtt_broker) == (200, {"broker": "ok"})
        with client(mqtt_broker, V5, "worker", keep_session=True) as worker:
            assert worker.receive() == ("a", b"1")

    def test_connections_that_say_nothing_keep_nobody_out(self) -> None:
        with mock_broker(settings={"SENS_BROKER__MAX_CONNECTIONS": "5"}) as broker, contextlib.ExitStack() as idle:
            for _ in range(50):
                idle.enter_context(socket.create_connection((broker.host, broker.port)))
            with client(broker, V5) as one:
                one.subscribe("alive")
                one.publish("alive", b"1")
                assert one.receive() == ("alive", b"1")


class TestTopicsThatNobodyReads:
    def test_are_counted_and_named(self, mqtt_broker: MqttBroker) -> None:
        with client(mqtt_broker, V311) as one:
            one.publish("tele/x/SENSOR", b"1")
            one.publish("tele/x/SENSOR", b"2")
        assert metric(mqtt_broker, "sens_broker_messages_without_subscriber_total") == 2
        with urllib.request.urlopen(f"http://{HOST}:{mqtt_broker.operations_port}/readyz", timeout=5) as answer:
            assert json.load(answer)["flow"] == (
                "2 messages were published to topics that nobody reads, most recently tele/x/SENSOR (2)"
            )
        assert "nobody reads this topic" in mqtt_broker.log.read_text()


class TestFleet:
    def test_its_messages_arrive_and_are_counted(self) -> None:
        settings = {"SENS_FLEET__ENABLED": "true", "SENS_FLEET__RATE": "500", "SENS_FLEET__DEVICES": "5"}
        with mock_broker(settings=settings) as broker, client(broker, V311) as subscriber:
            subscriber.subscribe("sens/v1/demo/+/telemetry")
            received = [subscriber.receive() for _ in range(200)]
            assert {topic for topic, _ in received} <= {f"sens/v1/demo/sensor-{n:04d}/telemetry" for n in range(1, 6)}
            assert sum(payload[:6] in {b'{"ts":', b'[{"ts"'} for _, payload in received) > 190
            assert readiness(broker) == (200, {"broker": "ok", "fleet": "ok"})
            # A message may reach its subscriber before its acknowledgement reaches the fleet.
            wait_until(lambda: metric(broker, "sens_fleet_messages_acknowledged_total") >= 200, "they are counted")
            assert metric(broker, "sens_fleet_connections_total") == 1

    def test_publishes_nothing_before_somebody_reads_it(self) -> None:
        settings = {"SENS_FLEET__ENABLED": "true", "SENS_FLEET__RATE": "500", "SENS_FLEET__DEVICES": "5"}
        with mock_broker(settings=settings) as broker, client(broker, V311) as subscriber:
            waits = "the fleet waits: nobody reads sens/v1/demo/+/telemetry"
            wait_until(lambda: flow(broker) == waits, "the fleet says that it waits")
            subscriber.subscribe("something/else")
            assert metric(broker, "sens_fleet_messages_published_total") == 0
            assert readiness(broker) == (200, {"broker": "ok", "fleet": "ok"})
            subscriber.subscribe("sens/v1/demo/+/telemetry")
            for _ in range(50):
                subscriber.receive()
            assert metric(broker, "sens_broker_messages_without_subscriber_total") == 0
            assert flow(broker) == ""

    async def test_keeps_what_a_broker_elsewhere_had_no_reader_for(self) -> None:
        fleet = Fleet.create(seed=1, tenant="demo", devices=3, rate=50, malformed_share=0, start=wall_clock())
        with mock_broker() as broker:
            publisher = Publisher(fleet, HOST, broker.port, readers_backoff=Backoff(0.01, 0.01))
            working = asyncio.create_task(publisher.run())
            tries = "the fleet waits: nobody reads sens/v1/demo/+/telemetry"

            async def has_tried_again() -> bool:
                return metric(broker, "sens_broker_messages_without_subscriber_total") > 5

            await eventually(has_tried_again, "the fleet tries again")
            assert publisher.readers.problem == tries
            with client(broker, V5) as subscriber:
                await asyncio.to_thread(subscriber.subscribe, "sens/#")
                received = [await asyncio.to_thread(subscriber.receive) for _ in range(50)]
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        first = fleet.message(0)
        assert first is not None
        # Not always the first one: the subscription can come between two messages of one try.
        assert (first.topic, first.payload) in received
        assert len(set(received)) == len(received)
        assert publisher.readers.problem is None

    def test_publishes_again_after_the_broker_was_away(self) -> None:
        async def scenario() -> None:
            fleet = Fleet.create(seed=1, tenant="demo", devices=3, rate=50, malformed_share=0, start=wall_clock())
            ports = (free_port(), free_port())
            publisher = Publisher(fleet, HOST, ports[1])

            async def connected() -> bool:
                return publisher.problems.problem is None

            async def lost() -> bool:
                return publisher.problems.problem is not None

            working = asyncio.create_task(publisher.run())
            for _ in range(2):
                with mock_broker(*ports) as broker:
                    await eventually(connected, "the fleet connects")
                    with client(broker, V5) as subscriber:
                        await asyncio.to_thread(subscriber.subscribe, "sens/#")
                        await asyncio.to_thread(subscriber.receive)
                await eventually(lost, "the fleet notices")
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working

        uvloop.run(scenario())  # as the service does: its transports fail in their own way


class TestProcess:
    def test_is_ready_when_both_listeners_greet_and_stays_so(self, mqtt_broker: MqttBroker) -> None:
        with client(mqtt_broker, V311) as one:
            one.subscribe("still/here")
            for _ in range(40):
                assert readiness(mqtt_broker) == (200, {"broker": "ok"})
            one.publish("still/here", b"1")
            assert one.receive() == ("still/here", b"1")

    def test_is_not_ready_while_it_lets_nobody_in(self) -> None:
        with mock_broker(settings={"SENS_BROKER__MAX_CONNECTIONS": "2"}) as broker:
            with client(broker, V5), client(broker, V311):
                status, checks = readiness(broker)
            assert status == 503
            assert "refuses clients" in checks["broker"]
            wait_until(lambda: readiness(broker)[0] == 200, "there is room again")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stop_ends_connections(self, mqtt_broker: MqttBroker, number: signal.Signals) -> None:
        service = psutil.Process(mqtt_broker.pid)
        with client(mqtt_broker, V5):
            service.send_signal(number)
            wait_until(lambda: has_ended(service), "the service ends", 8)
        assert not accepts_connections(mqtt_broker.port)
        assert not accepts_connections(mqtt_broker.port_v5)

    def test_the_next_one_starts_on_the_ports_of_one_that_was_killed(self, mqtt_broker: MqttBroker) -> None:
        with client(mqtt_broker, V5):
            os.kill(mqtt_broker.pid, signal.SIGKILL)
            with mock_broker(mqtt_broker.port, mqtt_broker.port_v5) as successor, client(successor, V311) as one:
                one.publish("alive", b"1")

    def test_a_broker_that_hangs_ends_so_that_it_is_started_again(self, tmp_path: Path) -> None:
        ports = (free_port(), free_port(), free_port())
        settings = {"SENS_BROKER__PROBE_SECONDS": "0.2", "SENS_BROKER__PROBE_FAILURES": "2"}
        hanging = (
            "import signal, sys, time\n"
            "from sens_mock_mqtt_broker.__main__ import SERVICE, MockBrokerSettings, main, run\n"
            "signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))\n"  # the event loop's own thread
            "run(SERVICE, MockBrokerSettings, main)\n"
        )
        environment = mock_broker_environment(ports, settings)
        with process([sys.executable, "-c", hanging], tmp_path / "log", env=environment) as child:
            wait_until(lambda: accepts_connections(ports[2]), "the broker starts")
            child.send_signal(signal.SIGUSR1)
            assert child.wait(WAIT_SECONDS) == 69
        assert "2 times in a row" in (tmp_path / "log").read_text()

    @pytest.mark.parametrize("taken", [0, 1, 2], ids=["3.1.1", "5", "operations"])
    def test_a_taken_port_is_named(self, taken: int) -> None:
        ports = [free_port(), free_port(), free_port()]
        with socket.socket() as other:
            other.bind((HOST, 0))
            other.listen()
            ports[taken] = other.getsockname()[1]
            result = subprocess.run(
                MOCK_BROKER,
                env=mock_broker_environment((ports[0], ports[1], ports[2])),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        assert result.returncode == 69
        assert f"port {ports[taken]}: " in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_wrong_setting_is_named(self) -> None:
        environment = os.environ | {"SENS_FLEET__RATE": "fast"}
        result = subprocess.run(MOCK_BROKER, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 78
        assert "SENS_FLEET__RATE" in result.stderr
