"""How each server of the path is started. Tests start theirs in the same way."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sens_cli.up import nats as embedded_nats
from sens_cli.up import postgres as embedded_postgres
from sens_common.database import connect
from sens_common.errors import SensError
from sens_common.nats_permissions import ADMINISTRATOR, PERMISSIONS
from sens_common.settings import DatabaseSettings
from tools.ports import free_port
from tools.program import ProgramError
from tools.stack.server import HOST, Server

BROKER: Final = "broker"
NATS: Final = "nats"
POSTGRES: Final = "postgres"
MOSQUITTO_SESSIONS: Final = "mosquitto.db"
MOCK_BROKER: Final = (sys.executable, "-m", "sens_mock_mqtt_broker")


def listens(port: int) -> bool:
    """Tell whether something listens on a port of this machine."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((HOST, port)) == 0


def nats(folder: Path, *, port: int, password: str, store: Path | None = None) -> Server:
    """Return a NATS server with JetStream; all its users have one password.

    Args:
        folder: For its configuration and its log.
        port: Where it listens.
        password: Of the administrator and of each service's user.
        store: Folder of its data, None for one in the folder.
    """
    monitoring_port = free_port()
    configuration = folder / "nats.conf"
    embedded_nats.write_configuration(
        configuration,
        host=HOST,
        port=port,
        monitoring_port=monitoring_port,
        store=store or folder / "store",
        passwords=dict.fromkeys((ADMINISTRATOR, *PERMISSIONS), password),
    )
    command = [str(embedded_nats.embedded_program()), "-c", str(configuration)]
    address = f"http://{HOST}:{monitoring_port}/healthz"
    return Server(NATS, command, folder / "nats.log", ready=lambda: _is_healthy(address))


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310 - an address of this module
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's "OK"
    except OSError:
        return False


def postgres(
    folder: Path,
    superuser: DatabaseSettings,
    *,
    settings: Mapping[str, str],
    data: Path | None = None,
    programs: Path | None = None,
) -> Server:
    """Return a PostgreSQL server, with TimescaleDB where its programs have it.

    Args:
        folder: For its log; one that the server's account can reach.
        superuser: Its address, and its superuser's name and password.
        settings: Its own. Those whose name begins with ``timescaledb.`` are left out where there is no TimescaleDB.
        data: Folder of its data, None for one in the folder.
        programs: Folder with another PostgreSQL's programs, None for the embedded one.
    """
    password = superuser.password.get_secret_value() if superuser.password is not None else ""
    cluster = embedded_postgres.prepare(data or folder / "data", password, programs=programs)
    return Server(
        POSTGRES,
        cluster.command(host=HOST, port=superuser.port, settings=dict(settings)),
        folder / "postgres.log",
        ready=lambda: _takes_logins(superuser),
        stop_signal=signal.SIGINT,
        cwd="/",
        **embedded_postgres.identity(cluster.account),
    )


def _takes_logins(settings: DatabaseSettings) -> bool:
    """Tell whether the server takes a login, which it does a moment after it listens."""

    async def log_in() -> None:
        connection = await connect(settings, "stack")
        await connection.close()

    if not listens(settings.port):
        return False
    try:
        asyncio.run(log_in())
    except SensError:
        return False
    return True


def mosquitto_program() -> str | None:
    """Return the path of Mosquitto, None where it is not installed."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def mosquitto(
    folder: Path,
    *,
    port: int,
    store: Path | None = None,
    in_flight: int | None = None,
    access: Sequence[str] = ("allow_anonymous true",),
) -> Server:
    """Return Eclipse Mosquitto, with MQTT 3.1.1 and 5 on one port, which drops nothing from its queues.

    Args:
        folder: For its configuration and its log.
        port: Where it listens.
        store: Folder of its sessions, None for the folder itself.
        in_flight: Messages on their way to one client, at most: 0 for no limit but the client's, None for Mosquitto's own.
        access: Lines of its configuration that say who is let in.

    Raises:
        ProgramError: It is not installed.
    """
    program = mosquitto_program()
    if program is None:
        raise ProgramError("mosquitto is not installed: install it, or choose the mock MQTT broker")
    lines = [
        f"listener {port} {HOST}",
        *access,
        "persistence true",
        f"persistence_location {store or folder}/",
        "max_queued_messages 0",
        *([f"max_inflight_messages {in_flight}"] if in_flight is not None else []),
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    configuration = folder / "mosquitto.conf"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Server(BROKER, [program, "-c", str(configuration)], folder / "broker.log", ready=lambda: listens(port))


def mock_broker_environment(ports: tuple[int, int, int], settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of a mock broker without its fleet, on ports for MQTT 3.1.1, MQTT 5 and operations."""
    mqtt3, mqtt5, operations = map(str, ports)
    return os.environ | {
        "SENS_BROKER__PORT": mqtt3,
        "SENS_BROKER__PORT_V5": mqtt5,
        "SENS_OPERATIONS__PORT": operations,
        "SENS_FLEET__ENABLED": "false",
        **(settings or {}),
    }


def mock_broker(folder: Path, ports: tuple[int, int, int], settings: Mapping[str, str] | None = None) -> Server:
    """Return the mock MQTT broker without its fleet.

    Args:
        folder: For its log.
        ports: For MQTT 3.1.1, MQTT 5 and operations.
        settings: Further variables by name.
    """
    environment = mock_broker_environment(ports, settings)
    # The operations port opens last.
    return Server(BROKER, MOCK_BROKER, folder / "broker.log", ready=lambda: listens(ports[2]), env=environment)
