"""The outermost layer of the API: what a request may be like, how long it may take, and what is noted of it.

It is plain ASGI (ASGI specification 3.0, "HTTP & WebSocket"), so that streamed answers pass through it chunk by chunk.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_common.errors import SchemaError, UnavailableError
from sens_platform_api import metrics
from sens_platform_api.errors import (
    BodyTooLargeError,
    HeadersTooLargeError,
    RefusedError,
    TooSlowError,
    WrongMethodError,
)
from sens_platform_api.gate import DATA_PATHS, Gate, address_of, request_id_of
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.messages import HeadAnswer, with_body, without_body
from sens_platform_api.problems import internal_problem, problem_response
from sens_platform_api.routes import RouteTable
from sens_platform_api.settings import LimitSettings
from sens_platform_api.streaming import STREAMS

log = structlog.get_logger()

MAX_TARGET_BYTES: Final = 8192
MAX_HEADER_BYTES: Final = 16_384

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    # Answers are data: nothing in them may load or run anything.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Limits:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, limits: LimitSettings, gate: Gate, routes: RouteTable) -> None:
        self._app = app
        self._limits = limits
        self._gate = gate
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, address = request_id_of(scope), address_of(scope)
        answer = _Answer(scope, send, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id, address=address):
            try:
                async with asyncio.timeout(self._limits.request_seconds) as timeout:
                    answer.on_start = lambda: timeout.reschedule(self._deadline(scope))
                    check_target(scope)
                    await self._answer(scope, receive, answer, address, request_id)
            except TimeoutError:
                await answer.refuse(TooSlowError(f"no answer within {self._limits.request_seconds:g} s"), receive)
            except (RefusedError, UnavailableError, SchemaError) as error:
                await answer.refuse(error, receive)
            except Exception:
                log.exception("unforeseen error", method=scope["method"], route=_route(scope))
                await answer.render(internal_problem(), receive)
            finally:
                answer.note()

    async def _answer(
        self, scope: Scope, receive: Receive, answer: "_Answer", address: str | None, request_id: str
    ) -> None:
        method, path = scope["method"], scope["path"]
        methods = self._routes.methods(path)
        if method == "OPTIONS" and methods:
            await answer.render(Response(status_code=204, headers={"Allow": ", ".join(methods)}), receive)
            return
        scope.setdefault("state", {})
        if path.startswith(DATA_PATHS):
            scope["state"]["owner"] = await self._gate.admit(scope, address, request_id)
            answer.owner = scope["state"]["owner"]
        if methods and method not in methods:
            raise WrongMethodError("this path takes another method; see the header Allow", methods)
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > self._limits.body_bytes:
            raise BodyTooLargeError(f"a request's body may have {self._limits.body_bytes} bytes")
        if method == "HEAD":
            head = HeadAnswer(receive, answer.send)
            inner = dict(scope, method="GET")
            await self._app(inner, head.receive, head.send)
            scope["route"] = inner.get("route")
            return
        receive = await self._buffered(receive) if self._routes.takes_body(method, path) else without_body(receive)
        await self._app(scope, receive, answer.send)

    def _deadline(self, scope: Scope) -> float | None:
        """Return by when an answer that has begun has to be read, in the loop's time; None where it has limits of its own."""
        if scope.get("state", {}).get(STREAMS):
            return None
        return asyncio.get_running_loop().time() + self._limits.answer_seconds

    async def _buffered(self, receive: Receive) -> Receive:
        """Read the body, which is small, so that its size is known before anybody works with it."""
        largest = self._limits.body_bytes
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            if len(body) > largest:
                raise BodyTooLargeError(f"a request's body may have {largest} bytes")
            if not message.get("more_body", False):
                break
        return with_body(bytes(body), receive)


def check_target(scope: Scope) -> None:
    """Refuse a request whose target or header is too large, or whose target holds what no parameter may.

    Raises:
        RefusedError: It is not percent-encoded UTF-8 without NUL characters.
        HeadersTooLargeError: It is too large.
    """
    target = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    if len(target) + len(query) > MAX_TARGET_BYTES:
        raise HeadersTooLargeError(f"path and query together may have {MAX_TARGET_BYTES} bytes")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise HeadersTooLargeError(f"the header may have {MAX_HEADER_BYTES} bytes")
    for part, text in (("path", target), ("query", query)):
        decoded = unquote_to_bytes(text)
        try:
            decoded.decode()
        except UnicodeDecodeError:
            raise RefusedError(f"the {part} is not percent-encoded UTF-8") from None
        if b"\0" in decoded:
            raise RefusedError(f"the {part} holds a NUL character")


class _Answer:
    """Follows an answer on its way out."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._status = 0
        self.started = False
        self.owner: KeyOwner | None = None
        self.on_start: Callable[[], None] | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._status = message["status"]
            self._seconds = time.perf_counter() - self._began
            if self.on_start is not None:
                self.on_start()
            request_id = (b"x-request-id", self._request_id.encode())
            message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS, request_id]
        await self._send(message)

    async def refuse(self, error: RefusedError | UnavailableError | SchemaError, receive: Receive) -> None:
        """Answer with a problem."""
        if self.started:
            log.warning("an answer broke off", route=_route(self._scope), error=str(error))
        await self.render(problem_response(error), receive)

    async def render(self, response: Response, receive: Receive) -> None:
        """Answer; an answer that has begun breaks off, so that its reader sees that it is not complete."""
        if not self.started:
            self.on_start = None  # the time limit is over
            await response(self._scope, receive, self.send)

    def note(self) -> None:
        """Count the request and log it; neither holds a path, a query or a key. The log's line has its address and its name as well."""
        route = _route(self._scope)
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        status = f"{self._status // 100}xx" if self._status else "none"
        metrics.REQUESTS.labels(method, route, status).inc()
        metrics.REQUEST_SECONDS.labels(route).observe(self._seconds)
        entry = log.debug if route in _OPERATIONS else log.info
        entry(
            "request",
            method=method,
            route=route,
            status=self._status,
            seconds=round(self._seconds, 6),
            tenant=None if self.owner is None else self.owner.tenant,
            key=None if self.owner is None else self.owner.key_id,
        )


def _route(scope: Scope) -> str:
    """Return the template of the route that answers, such as ``/api/v1/devices/{device}``."""
    template = getattr(scope.get("route"), "path_format", None)
    return template if isinstance(template, str) else "none"


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
