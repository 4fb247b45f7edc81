"""Bounds on the connections of an HTTP server, which uvicorn has none for.

Who opens connections and sends nothing, or sends slowly, takes from nobody else: a header has to be complete within a time, a body
is read only when the application asks for it, and when there are too many connections the one that has been idle for longest makes
room: one of a stranger first, and one of a client that the application knows (`KNOWN`) only when there is no other. Connections with a
request under way are never closed for that.
"""

import asyncio
import resource
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final, NamedTuple

import h11
import msgspec
import structlog
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from sens_common.metrics import CONNECTIONS, CONNECTIONS_CLOSED

log = structlog.get_logger()

_SPARE_FILES = 100
_SMALL_READ_BYTES = 4096
_LARGE_READ_BYTES = 65_536


KNOWN: Final = "known"
"""Key of a request's state by which the application says that it knows the client."""


class ConnectionLimits(NamedTuple):
    """What connections may be like.

    Attributes:
        connections: How many at the same time.
        header_seconds: For a request's header, from the connection's start or the request's first byte; also for what is left of a body
            that the application did not want.
    """

    connections: int = 1000
    header_seconds: float = 10


DEFAULT_LIMITS = ConnectionLimits()


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with these bounds; `bounded_protocol` makes the class for one server."""

    limits: ClassVar[ConnectionLimits]
    idle: ClassVar[dict["BoundedProtocol", None]]
    """Strangers' connections without a request under way, the one that has been so for longest first."""
    idle_known: ClassVar[dict["BoundedProtocol", None]]
    """The same of clients that the application knows."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: asyncio.TimerHandle | None = None
        self._cutting: asyncio.TimerHandle | None = None
        self._is_known = False
        self._application = self.app
        self.app = self._run

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take the connection; an idle one makes room for it if need be."""
        super().connection_made(transport)
        CONNECTIONS.inc()
        if len(self.connections) > self.limits.connections:
            oldest = next(iter(self.idle), None) or next(iter(self.idle_known), None)
            if oldest is None:
                CONNECTIONS_CLOSED.labels("full").inc()
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "as many connections are busy as there may be")
                return
            CONNECTIONS_CLOSED.labels("room").inc()
            oldest.give_up()
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        CONNECTIONS.dec()
        self._stop_waiting()
        if self._cutting is not None:
            self._cutting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, and no more of a body until the application asks for it."""
        super().data_received(data)
        if self.is_busy:
            self._stop_waiting()
            if self.conn.their_state is h11.SEND_BODY:
                self.flow.pause_reading()  # uvicorn goes on reading when the application receives, and after the answer
        elif self._deadline is None and not self.transport.is_closing():
            self._await_header()

    def on_response_complete(self) -> None:
        """Wait for the next request, and keep nothing of a body that the application did not want."""
        self.cycle.body = bytearray()
        self._is_known = KNOWN in self.cycle.scope.get("state", {})
        self._await_header()
        super().on_response_complete()
        if self.is_busy:
            self._stop_waiting()  # the next request had come already

    def send_400_response(self, msg: str) -> None:
        """Say in problem details that this is not HTTP."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)
        else:
            self.give_up()  # an answer has begun: it breaks off

    def give_up(self) -> None:
        """Close the connection, which has no request under way."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.close()
        self._cut_off_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._cut_off_later()

    async def _run(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the application for one request; if it leaves its answer incomplete, the connection ends in any case."""
        cycle = self.cycle
        try:
            await self._application(scope, receive, send)
        finally:
            if not cycle.response_complete:
                self._cut_off_later()

    def _cut_off_later(self) -> None:
        """Give the client a while to read what was written: closing a connection waits for that, for ever if need be."""
        if self._cutting is None:
            self._cutting = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request, whatever its annotation says
        return cycle is not None and not cycle.response_complete

    def _await_header(self) -> None:
        self._stop_waiting()
        (self.idle_known if self._is_known else self.idle)[self] = None
        self._deadline = self.loop.call_later(self.limits.header_seconds, self._header_is_late)

    def _stop_waiting(self) -> None:
        self.idle.pop(self, None)
        self.idle_known.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _header_is_late(self) -> None:
        CONNECTIONS_CLOSED.labels("header_timeout").inc()
        self.give_up()

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """Answer with problem details (RFC 9457), past the application, and close."""
        document = {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "code": code,
            "detail": detail[:1].lower() + detail[1:],
        }
        body = msgspec.json.encode(document)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"5"))
        events = [
            h11.Response(status_code=status.value, headers=headers, reason=status.phrase.encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        self._stop_waiting()
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
        self._cut_off_later()


class _SmallReads(asyncio.BufferedProtocol):
    """Passes what comes on to uvicorn's protocol, in small pieces until a request's header is complete.

    Otherwise the loop reads 256 KiB at once, and the body that comes with a header is in memory before the application has asked for it.
    """

    def __init__(self, protocol: BoundedProtocol, small: memoryview, large: memoryview) -> None:
        self._protocol = protocol
        self._small = small  # the server's connections share both: what was read is copied out at once
        self._large = large
        self._buffer = small

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Pass it on."""
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._protocol.connection_lost(exc)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the buffer to read into: the small one until the application asks for the body."""
        self._buffer = self._large if self._protocol.is_busy else self._small
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self._protocol.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        """Pass it on."""
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()


def bounded_protocol(limits: ConnectionLimits) -> Callable[..., asyncio.BaseProtocol]:
    """Return what makes the protocols of one server, for `uvicorn.Config(http=...)`."""
    wanted = limits

    class Bounded(BoundedProtocol):
        limits = wanted._replace(connections=allowed_by_files(wanted.connections))
        idle: ClassVar[dict[BoundedProtocol, None]] = {}
        idle_known: ClassVar[dict[BoundedProtocol, None]] = {}

    small, large = memoryview(bytearray(_SMALL_READ_BYTES)), memoryview(bytearray(_LARGE_READ_BYTES))

    def protocol(**arguments: Any) -> asyncio.BaseProtocol:
        return _SmallReads(Bounded(**arguments), small, large)

    return protocol


def allowed_by_files(connections: int) -> int:
    """Raise the process's limit of open files to what so many connections need; return how many it then has room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning("fewer connections than wanted: the limit of open files (ulimit -n) is too low", open_files=allowed)
    return max(1, allowed - _SPARE_FILES)
