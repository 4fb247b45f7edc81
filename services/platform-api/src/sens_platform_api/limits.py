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
from sens_platform_api.errors import BodyTooLargeError, HeadersTooLargeError, RefusedError, TooSlowError
from sens_platform_api.problems import internal_problem, problem_response
from sens_platform_api.settings import LimitSettings

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

    def __init__(self, app: ASGIApp, limits: LimitSettings) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            async with asyncio.timeout(self._limits.request_seconds) as timeout:
                answer.on_start = lambda: timeout.reschedule(None)  # what goes on from there has limits of its own
                check_target(scope)
                await self._app(scope, await self._buffered(scope, receive), answer.send)
        except TimeoutError:
            await answer.refuse(TooSlowError(f"no answer within {self._limits.request_seconds:g} s"), receive)
        except (RefusedError, UnavailableError, SchemaError) as error:
            await answer.refuse(error, receive)
        except Exception:
            log.exception("unforeseen error", method=scope["method"], route=_route(scope))
            await answer.render(internal_problem(), receive)
        finally:
            answer.note()

    async def _buffered(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body, which is small, so that its size is known before anybody works with it."""
        largest = self._limits.body_bytes
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > largest:
            raise BodyTooLargeError(f"a request's body may have {largest} bytes")
        if not declared and not _header(scope, b"transfer-encoding"):
            return receive
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
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay


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

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._status = 0
        self.started = False
        self.on_start: Callable[[], None] | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._status = message["status"]
            self._seconds = time.perf_counter() - self._began
            if self.on_start is not None:
                self.on_start()
            message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS]
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
        """Count the request and log it; neither holds a path, a query or a key."""
        route = _route(self._scope)
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        status = f"{self._status // 100}xx" if self._status else "none"
        metrics.REQUESTS.labels(method, route, status).inc()
        metrics.REQUEST_SECONDS.labels(route).observe(self._seconds)
        entry = log.debug if route in _OPERATIONS else log.info
        entry("request", method=method, route=route, status=self._status, seconds=round(self._seconds, 6))


def _route(scope: Scope) -> str:
    """Return the template of the route that answers, such as ``/api/v1/devices/{device}``."""
    template = getattr(scope.get("route"), "path_format", None)
    return template if isinstance(template, str) else "none"


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
