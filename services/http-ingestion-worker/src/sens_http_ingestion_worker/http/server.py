"""The HTTP server: its connections, and what all of them together may use."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

import structlog

from sens_common.connections import allowed_by_files
from sens_common.metrics import CONNECTIONS_CLOSED
from sens_common.operations import listening_socket
from sens_http_ingestion_worker.http.answers import Answers
from sens_http_ingestion_worker.http.connection import HttpConnection, Receiver
from sens_http_ingestion_worker.settings import IngestionHttpSettings

log = structlog.get_logger()

_BUFFER_BYTES: Final = 65_536
_BACKLOG: Final = 2048
_LOOK_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 5.0
_REFUSED_AT_ONCE: Final = 50
"""Connections that may be told that there is no room, of the files that are spared for other things (`sens_common.connections`)."""


class HttpServer:
    """See `http.connection.Owner`."""

    def __init__(self, receiver: Receiver, settings: IngestionHttpSettings) -> None:
        self.receiver = receiver
        self.answers = Answers()
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.header_seconds = settings.header_seconds
        self.body_seconds = settings.body_seconds
        self.idle_seconds = settings.idle_seconds
        self.is_stopping = False
        self._max_connections = allowed_by_files(settings.max_connections)
        self._connections: set[HttpConnection] = set()
        # Those without a request under way, the one that has been so for longest first: of strangers, and of who has shown a key.
        self._idle: dict[HttpConnection, None] = {}
        self._idle_known: dict[HttpConnection, None] = {}

    # As `http.connection.Owner`.

    def opened(self, connection: HttpConnection) -> bool:
        """See `http.connection.Owner.opened`."""
        self._connections.add(connection)
        if len(self._connections) <= self._max_connections:
            return True
        oldest = next(iter(self._idle), None) or next(iter(self._idle_known), None)
        if oldest is None:
            if len(self._connections) > self._max_connections + _REFUSED_AT_ONCE:
                connection.abort()
            return False
        CONNECTIONS_CLOSED.labels("room").inc()
        self.is_busy(oldest)
        self._connections.discard(oldest)
        oldest.abort()
        return True

    def is_idle(self, connection: HttpConnection, *, known: bool) -> None:
        """See `http.connection.Owner.is_idle`."""
        (self._idle_known if known else self._idle)[connection] = None

    def is_busy(self, connection: HttpConnection) -> None:
        """See `http.connection.Owner.is_busy`."""
        self._idle.pop(connection, None)
        self._idle_known.pop(connection, None)

    def closed(self, connection: HttpConnection) -> None:
        """See `http.connection.Owner.closed`."""
        self.is_busy(connection)
        self._connections.discard(connection)

    # For `serve_http`.

    async def look_for_late(self) -> None:
        """End what takes too long, again and again."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for connection in [each for each in self._connections if each.deadline <= now]:
                connection.is_late()

    async def stop(self) -> None:
        """End idle connections at once, and the others with their answers."""
        self.is_stopping = True
        for connection in [*self._idle, *self._idle_known]:
            connection.give_up()
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline and any(self._busy()):  # noqa: ASYNC110 - answers come from several places
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()

    def _busy(self) -> Iterator[HttpConnection]:
        return (connection for connection in self._connections if not connection.is_answered)


@contextlib.asynccontextmanager
async def serve_http(receiver: Receiver, settings: IngestionHttpSettings) -> AsyncIterator[None]:
    """Take requests while the context is open; those that are under way at its end are answered.

    Raises:
        UnavailableError: The port can't be listened on.
    """
    server = HttpServer(receiver, settings)
    listener = listening_socket(settings.host, settings.port, _BACKLOG)
    accepting = await asyncio.get_running_loop().create_server(lambda: HttpConnection(server), sock=listener)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(server.look_for_late(), name="look for late connections")
        log.info("takes messages", host=settings.host, port=settings.port)
        try:
            yield
        finally:
            accepting.close()
            await server.stop()
            looking.cancel()
