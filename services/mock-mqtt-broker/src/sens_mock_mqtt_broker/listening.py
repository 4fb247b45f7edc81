"""The broker's ports, and whether clients are greeted there: asked for `/readyz`, and by a watchdog that nothing can hold up."""

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from sens_common.errors import UnavailableError
from sens_mock_mqtt_broker.broker import Broker
from sens_mock_mqtt_broker.connection import ClientConnection
from sens_mock_mqtt_broker.settings import BrokerSettings
from sens_mock_mqtt_broker.wire import V5, V311

log = structlog.get_logger()

PORT_SECONDS: Final = 2.0
"""How long a taken port is waited for: a predecessor that was just killed may still be letting go of it."""

PROBE_SECONDS: Final = 0.8
"""Two probes fit into the time of a readiness check."""

_POLL_SECONDS: Final = 0.02
_BACKLOG: Final = 1024
_CONNACK: Final = 0x20
_CONNACK_BYTES: Final = 4  # type, length, flags, return or reason code; in version 5 properties follow
_LAST_WORDS_SECONDS: Final = 3.0
_PROBES: Final = itertools.count()


def client_host(host: str) -> str:
    """Return the address at which a client on this machine reaches a server that listens on the host."""
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - IP's version


class Listener:
    """A broker that listens."""

    def __init__(self, settings: BrokerSettings, broker: Broker, hangs: asyncio.Future[str]) -> None:
        self._broker = broker
        self._settings = settings
        self._hangs = hangs

    async def check(self) -> str | None:
        """Tell what is wrong, for ``/readyz``: clients of both versions must be greeted."""
        return (await asyncio.to_thread(greeting, self._settings, PROBE_SECONDS)).problem

    def reads(self, topics: Sequence[str]) -> bool:
        """See `publisher.Audience.reads`."""
        return self._broker.reads(topics)

    async def arrives(self, topics: Sequence[str]) -> None:
        """See `publisher.Audience.arrives`."""
        await self._broker.arrives(topics)

    def describe(self, _answers: Mapping[str, str]) -> str:
        """Tell of topics that nobody reads, for ``/readyz``; empty when there are none."""
        return self._broker.unread.sentence()

    async def watch(self) -> None:
        """Wait until clients have not been greeted for so long that only a new start helps.

        Raises:
            UnavailableError: That is so.
        """
        raise UnavailableError(f"{await self._hangs}. Start again.")


@contextlib.asynccontextmanager
async def run_broker(settings: BrokerSettings) -> AsyncIterator[Listener]:
    """Run the broker while the context is open.

    Raises:
        UnavailableError: A port is taken.
    """
    broker = Broker(settings)
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.callback(broker.close)
        for port in (settings.port, settings.port_v5):
            server = await _listen(broker, settings.host, port)
            cleanup.callback(server.close)
        sweeping = asyncio.create_task(broker.sweep(), name="end silent connections")
        cleanup.callback(sweeping.cancel)
        log.info("broker is listening", host=settings.host, port=settings.port, port_v5=settings.port_v5)
        if not ipaddress.ip_address(settings.host).is_loopback:
            log.warning("anybody who reaches the broker can write and read everything: it asks for no password")
        loop = asyncio.get_running_loop()
        hangs: asyncio.Future[str] = loop.create_future()

        def found(problem: str) -> None:
            if not hangs.done():
                hangs.set_result(problem)

        cleanup.enter_context(_watchdog(settings, lambda problem: loop.call_soon_threadsafe(found, problem)))
        yield Listener(settings, broker, hangs)


async def _listen(broker: Broker, host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PORT_SECONDS
    while True:
        try:
            return await loop.create_server(
                lambda: ClientConnection(broker), host, port, backlog=_BACKLOG, reuse_address=True
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE or loop.time() > deadline:
                raise UnavailableError(
                    f"the MQTT broker can't listen on {host} port {port}: {os.strerror(error.errno or 0)}. "
                    "Stop what uses the port, or choose another one."
                ) from error
        await asyncio.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _watchdog(settings: BrokerSettings, tell: Callable[[str], object]) -> Iterator[None]:
    """Probe the broker from a thread while the context is open, so that an event loop that hangs is found too."""
    stop = threading.Event()

    def work() -> None:
        failures = 0
        while not stop.wait(settings.probe_seconds):
            found = greeting(settings, settings.probe_seconds)
            failures = 0 if found.is_alive else failures + 1
            if failures < settings.probe_failures:
                continue
            tell(f"{found.problem}, {failures} times in a row")
            # The event loop ends the service in order, if it still turns.
            if not stop.wait(_LAST_WORDS_SECONDS):
                log.error("stopped by an error", error=f"{found.problem}, {failures} times in a row, and nothing moves")
                os._exit(UnavailableError.exit_code)
            return

    threading.Thread(target=work, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


class Greeting(NamedTuple):
    """How clients are received.

    Attributes:
        is_alive: Whether they get an answer.
        problem: Why it is none that lets them in; None when it is.
    """

    is_alive: bool
    problem: str | None


def greeting(settings: BrokerSettings, seconds: float) -> Greeting:
    """Connect to each port as clients of both versions do; that something accepts connections says little.

    Args:
        settings: Where the broker listens.
        seconds: How long to wait for an answer.
    """
    for port, version in ((settings.port, V311), (settings.port, V5), (settings.port_v5, V5)):
        try:
            with socket.create_connection((client_host(settings.host), port), timeout=seconds) as client:
                client.settimeout(seconds)
                client.sendall(connect_packet(version, next(_PROBES) % 64))
                answer = b""
                while len(answer) < _CONNACK_BYTES and (more := client.recv(64)):
                    answer += more
                client.sendall(b"\xe0\x00")
        except OSError:
            answer = b""
        if len(answer) < _CONNACK_BYTES or answer[0] != _CONNACK:
            return Greeting(is_alive=False, problem=f"the broker accepts no MQTT client on port {port}")
        if code := answer[_CONNACK_BYTES - 1]:
            return Greeting(is_alive=True, problem=f"the broker refuses clients on port {port} with code {code:#04x}")
    return Greeting(is_alive=True, problem=None)


def connect_packet(version: int, probe: int) -> bytes:
    """Return a CONNECT packet: clean session, keep-alive 10 s (MQTT 3.1.1 and 5.0, section 3.1).

    Args:
        version: 4 for MQTT 3.1.1, 5 for MQTT 5.
        probe: Distinguishes the client from others.
    """
    name = f"sens-mock-broker-probe-{probe}".encode()
    properties = b"\x00" if version == V5 else b""
    rest = b"\x00\x04MQTT" + bytes([version, 0x02, 0, 10]) + properties + len(name).to_bytes(2) + name
    return bytes([0x10, len(rest)]) + rest
