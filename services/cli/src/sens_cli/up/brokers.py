"""The MQTT broker of ``sens up``: the embedded one, or Mosquitto with a configuration of its own; and the simulated fleet."""

import asyncio
import contextlib
import ipaddress
import os
import shutil
from pathlib import Path
from typing import Final

from sens_cli.up.components import (
    EMBEDDED,
    TENANT,
    Component,
    Launch,
    Options,
    http_ready,
    operations,
    reachable,
    service,
)
from sens_cli.up.data import DataFolder
from sens_cli.up.ports import Ports
from sens_common.command_line.local_settings import HOST
from sens_common.errors import SensError

FLEET: Final = "simulated-fleet"
"""Name of the fleet where it runs without the embedded broker."""

MOSQUITTO_STORE: Final = "mosquitto"
MOSQUITTO_CONFIGURATION: Final = "mosquitto.conf"
"""Folder in the data folder, and file in its ``run``."""

MALFORMED_ONE_IN: Final = 1000
"""The fleet's own default (``SENS_FLEET__MALFORMED_SHARE``)."""

_PROBE_SECONDS: Final = 2.0
_CONNECT: Final = b"\x10\x19\x00\x04MQTT\x04\x02\x00\x0a\x00\x0dsens-up-probe"  # MQTT 3.1.1, section 3.1
_DISCONNECT: Final = b"\xe0\x00"
_LARGEST_PACKET: Final = 1 << 20
_QUEUED_BYTES: Final = 256 << 20


def brokers(data: DataFolder, table: Ports, options: Options) -> list[Component]:
    """Return the broker and the fleet; neither where the broker runs already.

    Raises:
        SensError: Mosquitto is wanted and not installed.
    """
    if options.house_broker is not None:
        return []
    embedded = options.broker == EMBEDDED
    found = [] if embedded else [_mosquitto(data, table, options)]
    if embedded or options.simulator:
        found.append(
            Component(
                name=EMBEDDED if embedded else FLEET,
                launch=service("sens_mock_mqtt_broker"),
                environment=operations(table.broker_operations)
                | _settings(table, options)
                | {"SENS_BROKER__ENABLED": "true" if embedded else "false"},
                after=() if embedded else (options.broker,),
                ready=http_ready(table.broker_operations),
                address=_address(table, options) if embedded else f"operations {HOST}:{table.broker_operations}",
                stop_stage=0,
                operations=f"http://{HOST}:{table.broker_operations}",
            )
        )
    return found


def is_open(host: str) -> bool:
    """Tell whether other machines reach what listens on the host."""
    return not ipaddress.ip_address(host).is_loopback


def _address(table: Ports, options: Options) -> str:
    return f"{options.mqtt_host}:{table.mqtt} (MQTT 3.1.1 and 5)"


def _settings(table: Ports, options: Options) -> dict[str, str]:
    environment = {
        "SENS_BROKER__HOST": options.mqtt_host,
        "SENS_BROKER__PORT": str(table.mqtt),
        "SENS_BROKER__PORT_V5": str(table.mqtt5),
        "SENS_FLEET__ENABLED": "true" if options.simulator else "false",
        "SENS_FLEET__TENANT": TENANT,
    }
    if options.quiet_fleet:
        environment["SENS_FLEET__MALFORMED_SHARE"] = "0"
    if options.devices is not None:
        environment["SENS_FLEET__DEVICES"] = str(options.devices)
    if options.rate is not None:
        environment["SENS_FLEET__RATE"] = str(options.rate)
    return environment


def _mosquitto(data: DataFolder, table: Ports, options: Options) -> Component:
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SensError(
            "mosquitto is not installed: install it (for example 'apt install mosquitto'), or leave out --broker mosquitto"
        )
    configuration = data.run / MOSQUITTO_CONFIGURATION
    store = data.path / MOSQUITTO_STORE
    store.mkdir(mode=0o700, exist_ok=True)
    configuration.write_text(mosquitto_configuration(table, options.mqtt_host, store), encoding="utf-8")

    async def ready() -> str | None:
        return await _greets(reachable(options.mqtt_host), table.mqtt)

    return Component(
        name="mosquitto",
        launch=lambda: Launch([program, "-c", str(configuration)], {}),
        environment={},
        after=(),
        ready=ready,
        address=_address(table, options),
        stop_stage=0,
        restart_when_stuck=True,
    )


def mosquitto_configuration(table: Ports, host: str, store: Path) -> str:
    """Return the configuration file (mosquitto.conf(5)): sessions are kept and saved, and what waits for them is bounded in bytes.

    Args:
        table: Where it listens.
        host: Address it listens on.
        store: Folder for its sessions.
    """
    lines = [
        "per_listener_settings false",
        f"listener {table.mqtt} {host}",
        f"listener {table.mqtt5} {host}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {store}/",
        "autosave_interval 30",
        "max_queued_messages 0",
        f"max_queued_bytes {_QUEUED_BYTES}",
        "max_inflight_messages 0",
        f"max_packet_size {_LARGEST_PACKET}",
        "log_dest stderr",
        *(["user root"] if os.geteuid() == 0 else []),  # else it takes an account that can't write into the data folder
    ]
    return "\n".join(lines) + "\n"


async def _greets(host: str, port: int) -> str | None:
    """Return None when a broker accepts a client (CONNACK, return code 0), else what is missing."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_CONNECT)
                answer = await reader.readexactly(4)
                writer.write(_DISCONNECT)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, asyncio.IncompleteReadError):
        return f"no MQTT client is greeted on port {port}"
    return None if answer == b"\x20\x02\x00\x00" else f"MQTT clients are refused on port {port}"
