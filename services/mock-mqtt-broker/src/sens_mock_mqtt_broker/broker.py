"""The broker: rumqttd in a process of its own, watched.

rumqttd is what the ``iotcore`` package carries. It has no shutdown, and a panic in it would take its host along: so it gets a process,
which ends when this one does (see `rumqttd`).
"""

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from sens_common.errors import UnavailableError
from sens_mock_mqtt_broker.settings import BrokerSettings

log = structlog.get_logger()

START_SECONDS = 15.0
STOP_SECONDS = 3.0
PORT_SECONDS = 2.0
"""How long a taken port is waited for: a predecessor that was just killed may still be letting go of it."""

PROBE_SECONDS = 0.8
"""Two probes fit into the time of a readiness check."""

_POLL_SECONDS = 0.02
_SEGMENTS = 16

_PROBES = 64
_CONNACK = 0x20
_CONNACK_BYTES = 4  # type, length, flags, return or reason code; in version 5 properties follow


def configuration(settings: BrokerSettings) -> str:
    """Return rumqttd's configuration, TOML (rumqttd 0.20, ``rumqttd.toml``)."""
    listeners = "".join(
        f"""
[{version}.1]
name = "{version}"
listen = "{_authority(settings.host, port)}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 10000
max_payload_size = {settings.max_packet_bytes}
max_inflight_count = 100
"""
        for version, port in (("v4", settings.port), ("v5", settings.port_v5))
    )
    return f"""id = 0
[router]
id = 0
max_connections = {settings.max_connections}
max_outgoing_packet_count = 200
max_segment_size = {settings.buffer_bytes // _SEGMENTS}
max_segment_count = {_SEGMENTS}
{listeners}"""


def client_host(host: str) -> str:
    """Return the address at which a client on this machine reaches a server that listens on the host."""
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - IP's version


class Broker:
    """A running broker."""

    def __init__(self, settings: BrokerSettings, process: Process) -> None:
        self._settings = settings
        self._process = process
        # rumqttd keeps some statistics of every client name for ever, so the names come round again; not at once, as a probe that
        # is still being taken down would be taken for the same client.
        self._probes = itertools.cycle(range(_PROBES))

    async def check(self) -> str | None:
        """Tell what is wrong, for ``/readyz``: both listeners must greet a client."""
        if self._process.returncode is not None:
            return f"the broker's process has ended with code {self._process.returncode}"
        for port, level in ((self._settings.port, 4), (self._settings.port_v5, 5)):
            if not await _greets(self._settings.host, port, _connect_packet(level, next(self._probes))):
                return f"the broker accepts no MQTT client on port {port}"
        return None

    async def watch(self) -> None:
        """Wait until the broker's process ends by itself.

        Raises:
            UnavailableError: It has ended.
        """
        code = await self._process.wait()
        raise UnavailableError(
            f"the MQTT broker's process {self._process.pid} has ended with code {code}. Start again."
        )


@contextlib.asynccontextmanager
async def run_broker(settings: BrokerSettings) -> AsyncIterator[Broker]:
    """Run the broker while the context is open.

    Raises:
        UnavailableError: A port is taken, or the broker does not start.
    """
    for port in (settings.port, settings.port_v5):
        await _wait_for_port(settings.host, port)
    async with _process(settings) as process:
        log.info("broker is listening", host=settings.host, port=settings.port, port_v5=settings.port_v5)
        yield Broker(settings, process)


@contextlib.asynccontextmanager
async def _process(settings: BrokerSettings) -> AsyncIterator[Process]:
    """Hold a broker's process that has started."""
    async with contextlib.AsyncExitStack() as cleanup:
        # Only the start needs the file: gone early, it is not left behind by a SIGKILL.
        with tempfile.TemporaryDirectory(prefix="sens-broker-") as folder:
            path = Path(folder, "rumqttd.toml")
            path.write_text(configuration(settings))  # noqa: ASYNC240 - a few hundred bytes, before anything else runs
            # Its own session: a terminal's Ctrl-C reaches the service alone, which then stops things in order.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the folder of whoever started us is no place for modules
                "-m",
                f"{__package__}.rumqttd",
                str(path),
                stdin=PIPE,
                stdout=sys.stderr,
                start_new_session=True,
            )
            cleanup.push_async_callback(_stop, process)
            await _wait_for_start(Broker(settings, process), process)
        yield process


async def _wait_for_start(broker: Broker, process: Process) -> None:
    problem: str | None = f"it gave no answer within {START_SECONDS:g} s"
    try:
        async with asyncio.timeout(START_SECONDS):
            while (problem := await broker.check()) is not None:
                if process.returncode is not None:
                    break
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        pass
    if problem is not None:
        raise UnavailableError(f"the MQTT broker did not start: {problem}")


async def _stop(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    if process.stdin is not None:
        process.stdin.close()


async def _wait_for_port(host: str, port: int) -> None:
    deadline = asyncio.get_running_loop().time() + PORT_SECONDS
    while (error := _listen_error(host, port)) is not None:
        if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline:
            raise UnavailableError(
                f"the MQTT broker can't listen on {host} port {port}: {error.strerror}. "
                "Stop what uses the port, or choose another one."
            )
        await asyncio.sleep(_POLL_SECONDS)


def _listen_error(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as rumqttd's runtime does
        try:
            listener.bind((host, port))
        except OSError as error:
            return error
    return None


def _connect_packet(level: int, probe: int) -> bytes:
    """Return a CONNECT packet: clean session, keep-alive 10 s (MQTT 3.1.1 and 5.0, section 3.1).

    Args:
        level: 4 for MQTT 3.1.1, 5 for MQTT 5.
        probe: Distinguishes the client from others.
    """
    name = f"sens-mock-broker-probe-{probe}".encode()
    properties = b"\x00" if level == 5 else b""  # noqa: PLR2004 - MQTT 5, none of them
    rest = b"\x00\x04MQTT" + bytes([level, 0x02, 0, 10]) + properties + len(name).to_bytes(2) + name
    return bytes([0x10, len(rest)]) + rest


async def _greets(host: str, port: int, connect: bytes) -> bool:
    """Tell whether the broker accepts an MQTT client; that something accepts connections says little.

    There is no DISCONNECT at the end: when the connection's end follows it at once, rumqttd frees the client's place twice, and may
    throw out whoever has taken it in between.
    """
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(client_host(host), port)
            try:
                writer.write(connect)
                answer = await reader.readexactly(_CONNACK_BYTES)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return answer[0] == _CONNACK and answer[_CONNACK_BYTES - 1] == 0


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
