"""A real MQTT broker for tests: the mock broker without its fleet, on free ports."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.servers import HOST, accepts_connections, free_port, process, scratch_folder, wait_until


@dataclass(frozen=True, slots=True)
class MqttBroker:
    """Where a broker listens, for MQTT 3.1.1 and 5 on both ports."""

    host: str
    port: int
    port_v5: int
    operations_port: int
    pid: int
    log: Path


def mock_broker_environment(ports: tuple[int, int, int], settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a mock broker without fleet, unless the settings (variables by name) say otherwise."""
    port, port_v5, operations_port = ports
    return os.environ | {
        "SENS_BROKER__PORT": str(port),
        "SENS_BROKER__PORT_V5": str(port_v5),
        "SENS_OPERATIONS__PORT": str(operations_port),
        "SENS_FLEET__ENABLED": "false",
        **(settings or {}),
    }


MOCK_BROKER = [sys.executable, "-m", "sens_mock_mqtt_broker"]


@contextmanager
def mock_broker(
    port: int | None = None, port_v5: int | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[MqttBroker]:
    """Run a mock broker while the context is open; give ports to start one again where another one was."""
    ports = (port or free_port(), port_v5 or free_port(), free_port())
    with scratch_folder("sens-mock-broker-") as folder:
        log = folder / "log"
        with process(MOCK_BROKER, log, env=mock_broker_environment(ports, settings)) as child:
            # The operations port opens last.
            wait_until(lambda: child.poll() is not None or accepts_connections(ports[2]), "the mock broker starts")
            if child.poll() is not None:
                pytest.fail(log.read_text())
            yield MqttBroker(HOST, *ports, child.pid, log)


@contextmanager
def mosquitto(port: int | None = None, *, store: Path | None = None) -> Iterator[MqttBroker]:
    """Run Eclipse Mosquitto while the context is open; both versions on one port, sessions kept in `store`.

    It is a system package: a test that asks for it where it is not installed is skipped, and says so.
    """
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port = port or free_port()
    with scratch_folder("sens-mosquitto-") as folder:
        configuration = folder / "mosquitto.conf"
        lines = [
            f"listener {port} {HOST}",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {store or folder}/",
            "max_queued_messages 0",
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        configuration.write_text("\n".join(lines) + "\n")
        log = folder / "log"
        with process([program, "-c", str(configuration)], log) as child:
            wait_until(lambda: child.poll() is not None or accepts_connections(port), "mosquitto starts")
            if child.poll() is not None:
                pytest.fail(log.read_text())
            yield MqttBroker(HOST, port, port, 0, child.pid, log)


@pytest.fixture(params=["mock-mqtt-broker", "mosquitto"])
def any_mqtt_broker(request: pytest.FixtureRequest) -> Iterator[MqttBroker]:
    """Each kind of broker in turn: one that marks what it delivers again, and one that does not."""
    unmarked = {"SENS_BROKER__MARK_REPEATED": "false"}
    with mock_broker(settings=unmarked) if request.param == "mock-mqtt-broker" else mosquitto() as broker:
        yield broker


@pytest.fixture
def mqtt_broker() -> Iterator[MqttBroker]:
    """A broker of the test's own, without sessions or retained messages."""
    with mock_broker() as broker:
        yield broker
