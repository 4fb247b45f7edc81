"""Names each request, counts and logs it, and adds the headers of every answer."""

import re
import secrets
import time
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_platform_api import metrics
from sens_platform_api.caller import Caller
from sens_platform_api.middleware.routes import route_template

log = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
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


class RequestLog:
    """The outermost layer: puts ``request_id`` and ``address`` into the request's state, and finds the ``caller`` there afterwards.

    Neither the log's line nor the metrics hold a path, a query or a key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        request_id, address = request_id_of(scope), address_of(scope)
        scope.setdefault("state", {}).update(request_id=request_id, address=address)
        began = time.perf_counter()
        status, seconds = 0, 0.0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
                name = (b"x-request-id", request_id.encode())
                message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS, name]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, address=address):
            try:
                await self._app(scope, receive, send_with_headers)
            finally:
                _note(scope, status, seconds)


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = route_template(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.REQUESTS.labels(method, route, f"{status // 100}xx" if status else "none").inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    caller: Caller | None = scope["state"].get("caller")
    write = log.debug if route in _OPERATIONS else log.info
    write(
        "request",
        method=method,
        route=route,
        status=status,
        seconds=round(seconds, 6),
        tenant=None if caller is None else caller.tenant,
        key=None if caller is None else caller.key_id,
    )


def address_of(scope: Scope) -> str | None:
    """Return the address that the request comes from: behind a trusted proxy, the one that it says (`SENS_HTTP__TRUSTED_PROXIES`)."""
    client = scope.get("client")
    return str(client[0]) if client else None


def request_id_of(scope: Scope) -> str:
    """Return the request's name: the one in X-Request-Id if that is a short plain word, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
