"""The operations port: ``/healthz``, ``/readyz``, ``/version`` and ``/metrics``, in one form for every service.

``/healthz`` says that the event loop turns, and asks no dependency; ``/readyz`` is `sens_common.readiness`; ``/metrics`` is Prometheus' text
format (Prometheus documentation, "Exposition formats"). The API answers them at its own port, and documents them in its OpenAPI document.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NoReturn

import msgspec
import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, disable_created_metrics, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sens_common.connections import DEFAULT_LIMITS, ConnectionLimits, bounded_protocol
from sens_common.errors import UnavailableError
from sens_common.health import Check
from sens_common.readiness import Describe, Readiness
from sens_common.settings import OperationsSettings
from sens_common.version import service_version

log = structlog.get_logger()

# The time at which a counter was made doubles the number of series and tells nobody anything.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library carries no type for it

HEARTBEAT_SECONDS: Final = 1.0
HEALTHY_WITHIN_SECONDS: Final = 15.0


class Heartbeat:
    """Knows when the work last went round.

    A loop that works calls `beat`; one that waits for work on purpose runs `keep` beside it, which tells that the event loop turns.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, interval_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._last = clock()

    def beat(self) -> None:
        """Say that the loop went round."""
        self._last = self._clock()

    async def keep(self) -> NoReturn:
        """Beat for as long as the event loop turns."""
        while True:
            self.beat()
            await asyncio.sleep(self._interval_seconds)

    @property
    def age_seconds(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last


class Operations:
    """Answers the operations paths, in one form for every service."""

    def __init__(
        self, service: str, readiness: Readiness, heartbeat: Heartbeat, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._service = service
        self._readiness = readiness
        self._heartbeat = heartbeat
        self._registry = registry

    async def healthz(self, _request: Request) -> Response:
        """Tell whether the event loop turns; no other server is asked."""
        age = self._heartbeat.age_seconds
        if age < HEALTHY_WITHIN_SECONDS:
            return _json({"status": "ok"}, HTTPStatus.OK)
        detail = f"the loop last went round {age:.0f} s ago"
        return _json({"status": "failed", "detail": detail}, HTTPStatus.SERVICE_UNAVAILABLE)

    async def readyz(self, _request: Request) -> Response:
        """Tell whether the service can do its work."""
        answer = await self._readiness.answer()
        return _json(answer.document(), answer.http_status)

    async def version(self, _request: Request) -> Response:
        """Tell name, version and commit."""
        return _json(service_version(self._service), HTTPStatus.OK)

    async def metrics(self, _request: Request) -> Response:
        """Give the metrics of this process."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def routes(self) -> list[Route]:
        """Return the routes of the operations paths."""
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/version", self.version),
            Route("/metrics", self.metrics),
        ]


def _json(body: object, status: HTTPStatus) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def _unforeseen(_request: Request, _error: Exception) -> Response:
    """Answer with problem details (RFC 9457); the server logs what it was."""
    document = {
        "type": "about:blank",
        "title": "Internal error",
        "status": 500,
        "code": "internal",
        "detail": "something unforeseen went wrong; it was logged",
    }
    return Response(msgspec.json.encode(document), 500, media_type="application/problem+json")


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the process's signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    graceful_seconds: float = 3,
    trusted_proxies: Sequence[str] = (),
    limits: ConnectionLimits = DEFAULT_LIMITS,
) -> AsyncIterator[None]:
    """Serve an ASGI application while the context is open.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on.
        graceful_seconds: For requests under way at the end.
        trusted_proxies: Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed.
        limits: Of the connections.

    Raises:
        UnavailableError: The address can't be listened on.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=bounded_protocol(limits),  # type: ignore[arg-type]  # uvicorn calls what it is given; its annotation wants a class
        ws="none",
        # Without a setting uvicorn would believe everybody who connects from this machine.
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
    )
    server = _Server(config)
    sockets = [listening_socket(config.host, config.port, config.backlog)]
    task = asyncio.create_task(server.serve(sockets=sockets), name=f"http server on port {port}")
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if task.done():
            task.result()
            raise UnavailableError(f"the HTTP server on {host} port {port} did not start")
        yield
    finally:
        server.should_exit = True
        await task


def listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UnavailableError: The address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)  # two sockets may share an address until one of them listens
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"can't listen on {host} port {port}: {error.strerror}. Stop what uses the port, or choose another one."
        ) from error
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def serve_operations(
    service: str,
    settings: OperationsSettings,
    checks: Mapping[str, Check],
    heartbeat: Heartbeat,
    describe: Describe | None = None,
    *,
    notes: Mapping[str, Check] | None = None,
) -> AsyncIterator[None]:
    """Serve the operations port, and keep the heartbeat, while the context is open.

    Raises:
        UnavailableError: The port can't be listened on.
    """
    readiness = Readiness(checks, describe=describe, notes=notes)
    app = Starlette(
        routes=Operations(service, readiness, heartbeat).routes(),
        exception_handlers={Exception: _unforeseen},
    )
    beating = asyncio.create_task(heartbeat.keep(), name="heartbeat")
    try:
        async with serve(app, settings.host, settings.port, graceful_seconds=1):
            log.info("operations port is open", host=settings.host, port=settings.port)
            yield
    finally:
        beating.cancel()
