"""A real MQTT broker for tests: the mock broker without its fleet, on free ports."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.servers import HOST, free_port, scratch_folder
from tools.stack import programs


@dataclass(frozen=True, slots=True)
class MqttBroker:
    """Where a broker listens, for MQTT 3.1.1 and 5 on both ports."""

    host: str
    port: int
    port_v5: int
    operations_port: int
    pid: int
    log: Path


@contextmanager
def mock_broker(
    port: int | None = None, port_v5: int | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[MqttBroker]:
    """Run a mock broker while the context is open; give ports to start one again where another one was."""
    ports = (port or free_port(), port_v5 or free_port(), free_port())
    with (
        scratch_folder("sens-mock-broker-") as folder,
        programs.mock_broker(folder, ports, settings).running_until_left() as server,
    ):
        assert server.process is not None
        yield MqttBroker(HOST, *ports, server.process.pid, server.log)


@contextmanager
def mosquitto(
    port: int | None = None, *, store: Path | None = None, access: Sequence[str] = ("allow_anonymous true",)
) -> Iterator[MqttBroker]:
    """Run Eclipse Mosquitto while the context is open; both versions on one port, sessions kept in `store`.

    It is a system package: a test that asks for it where it is not installed is skipped, and says so.
    """
    if programs.mosquitto_program() is None:
        pytest.skip("mosquitto is not installed")
    port = port or free_port()
    with (
        scratch_folder("sens-mosquitto-") as folder,
        programs.mosquitto(folder, port=port, store=store, access=access).running_until_left() as server,
    ):
        assert server.process is not None
        yield MqttBroker(HOST, port, port, 0, server.process.pid, server.log)


def let_in(folder: Path, username: str, password: str) -> list[str]:
    """Return the lines of Mosquitto's configuration by which one user is let in, and nobody else; the password's file is in a folder."""
    return ["allow_anonymous false", f"password_file {passwords(folder, {username: password})}"]


def passwords(folder: Path, users: Mapping[str, str]) -> Path:
    """Return a file of Mosquitto's with users and their passwords."""
    file = folder / "passwords"
    file.touch(mode=0o600)
    for username, password in users.items():
        subprocess.run(["mosquitto_passwd", "-b", file, username, password], check=True, capture_output=True)
    return file


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
