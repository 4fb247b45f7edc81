"""The operations port: ``/healthz``, ``/readyz``, ``/version`` and ``/metrics`` of every service.

``/healthz`` says that the event loop turns, and asks no dependency; ``/readyz`` runs the named checks and answers 503
when one fails, and a worker's says there which hop is the bottleneck; what works but should be otherwise is a note there; ``/metrics`` is Prometheus' text format (Prometheus documentation,
"Exposition formats").
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import NoReturn, Protocol

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
from sens_common.settings import OperationsSettings
from sens_common.version import service_version

log = structlog.get_logger()

# The time at which a counter was made doubles the number of series and tells nobody anything.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library carries no type for it

Describe = Callable[[Mapping[str, str]], str]
"""Says in one sentence, given the checks' answers, what a service passes on, and which hop is the bottleneck when it can't."""


class Reporting(Protocol):
    """A part of a service that knows what is wrong with it."""

    problem: str | None


def problem_check(part: Reporting) -> Check:
    """Return the readiness check of a part that keeps its own problem up to date."""

    async def check() -> str | None:
        return part.problem

    return check


async def not_started() -> str:
    """Readiness check that stands for a part until there is one: a service that is starting is not ready."""
    return "not started yet"


CHECK_TIMEOUT_SECONDS = 2.0
HEARTBEAT_SECONDS = 1.0
HEALTHY_WITHIN_SECONDS = 15.0


class Heartbeat:
    """Knows when the work last went round.

    A loop that works calls `beat`; one that waits for work on purpose runs `keep` beside it, which tells that the event loop turns.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Say that the loop went round."""
        self._last = self._clock()

    async def keep(self) -> NoReturn:
        """Beat for as long as the event loop turns."""
        while True:
            self.beat()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    @property
    def age_seconds(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last


async def readiness(checks: Mapping[str, Check]) -> tuple[bool, dict[str, str]]:
    """Run all checks at once, each within `CHECK_TIMEOUT_SECONDS`; return whether all passed, and each one's answer."""

    async def run(check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                return await check() or "ok"
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - a check that fails in an unforeseen way has failed
            return f"{type(error).__name__}: {error}"

    # A service that is starting may exchange checks meanwhile.
    names = list(checks)
    answers = await asyncio.gather(*(run(check) for check in checks.values()))
    results = dict(zip(names, answers, strict=True))
    return all(answer == "ok" for answer in answers), results


async def noted(notes: Mapping[str, Check]) -> dict[str, str]:
    """Return what works but should be otherwise, by name; nothing of what can't be asked just now, which a check says."""

    async def ask(note: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                return await note()
        except Exception as error:  # noqa: BLE001 - as with checks; a missing note changes nothing for who reads it
            log.debug("a note can't be asked for", error=f"{type(error).__name__}: {error}")
            return None

    names = list(notes)
    answers = await asyncio.gather(*(ask(note) for note in notes.values()))
    return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}


def operations_routes(
    service: str,
    checks: Mapping[str, Check],
    heartbeat: Heartbeat,
    describe: Describe | None = None,
    registry: CollectorRegistry = REGISTRY,
    *,
    notes: Mapping[str, Check] | None = None,
) -> list[Route]:
    """Return the routes of the operations port."""

    async def healthz(_request: Request) -> Response:
        age = heartbeat.age_seconds
        healthy = age < HEALTHY_WITHIN_SECONDS
        body = (
            {"status": "ok"} if healthy else {"status": "failed", "detail": f"the loop last went round {age:.0f} s ago"}
        )
        return _json(body, 200 if healthy else 503)

    async def readyz(_request: Request) -> Response:
        ready, results = await readiness(checks)
        body: dict[str, object] = {"status": "ok" if ready else "failed", "checks": results}
        if describe is not None:
            body["flow"] = describe(results)
        if notes and (found := await noted(notes)):
            body["notes"] = found
        return _json(body, 200 if ready else 503)

    async def version(_request: Request) -> Response:
        return _json(service_version(service), 200)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/version", version),
        Route("/metrics", metrics),
    ]


def _json(body: object, status: int) -> Response:
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
        # Without a setting uvicorn would believe whoever connects from this machine.
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
    )
    server = _Server(config)
    sockets = [_listen(config)]
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


def _listen(config: uvicorn.Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(config.backlog)  # two sockets may share an address until one of them listens
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"can't listen on {config.host} port {config.port}: {error.strerror}. Stop what uses the port, or choose another one."
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
    app = Starlette(
        routes=operations_routes(service, checks, heartbeat, describe, notes=notes),
        exception_handlers={Exception: _unforeseen},
    )
    beating = asyncio.create_task(heartbeat.keep(), name="heartbeat")
    try:
        async with serve(app, settings.host, settings.port, graceful_seconds=1):
            log.info("operations port is open", host=settings.host, port=settings.port)
            yield
    finally:
        beating.cancel()
