"""What a service behind a proxy that ends TLS has to see to: nothing is served that came over plain HTTP.

Proxies tell in ``X-Forwarded-Proto`` how they were asked; Traefik, NGINX and Envoy set it themselves and believe no client. Who asks
without a proxy (probes, Prometheus, a port-forward) has no such header, and is served.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_common.settings import HttpsSettings

log = structlog.get_logger()

REDIRECTED: Final = "redirected"
REFUSED: Final = "refused"
KEY_EXPOSED: Final = "key_exposed"
OUTCOMES: Final = (REDIRECTED, REFUSED, KEY_EXPOSED)
"""What becomes of a request over plain HTTP; the last one is refused too, and carried a key that can have been read on its way."""

# Traefik names a request that asks for a WebSocket by another scheme, whether or not it gets one.
_PLAIN: Final = frozenset({"http", "ws"})
_SAFE: Final = frozenset({"https", "wss"})
_READING: Final = frozenset({"GET", "HEAD"})
# Host and port of a URL (RFC 3986, section 3.2.2); the port is that of plain HTTP, and left out of the redirect.
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


class HttpsOnly:
    """Wraps an application: redirects requests over plain HTTP, and refuses those that carry a key or a body.

    A request with a key is not redirected: its sender would go on to send the key in clear first, each time, and never notice.

    Args:
        app: The application.
        settings: What is asked for; with their defaults everything is passed on.
        note: Called with one of `OUTCOMES` for each request over plain HTTP that is not passed on.
    """

    def __init__(self, app: ASGIApp, settings: HttpsSettings, note: Callable[[str], None]) -> None:
        self._app = app
        self._settings = settings
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        asked_by = _header(scope, b"x-forwarded-proto") if scope["type"] == "http" else ""
        # Of several proxies, the first one was asked by the client.
        scheme = asked_by.partition(",")[0].strip().lower()
        if scheme in _PLAIN and self._settings.only:
            outcome, response = _answer(scope)
            self._note(outcome)
            await response(scope, receive, send)
        elif scheme in _SAFE and self._settings.hsts_seconds:
            await self._app(scope, receive, self._with_hsts(send))
        else:
            await self._app(scope, receive, send)

    def _with_hsts(self, send: Send) -> Send:
        """Return what adds Strict-Transport-Security (RFC 6797, section 6.1) to an answer."""
        header = (b"strict-transport-security", f"max-age={self._settings.hsts_seconds}".encode())

        async def send_with_hsts(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        return send_with_hsts


def _answer(scope: Scope) -> tuple[str, Response]:
    """Return what becomes of a request over plain HTTP, and its answer."""
    host = _HOST.fullmatch(_header(scope, b"host"))
    with_key = bool(_header(scope, b"authorization"))
    if host is not None and scope["method"] in _READING and not with_key:
        target: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        location = f"https://{host['host']}{target.decode('latin-1')}{'?' if query else ''}{query.decode('latin-1')}"
        return REDIRECTED, Response(status_code=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": location})
    if with_key:
        log.warning("a key came over plain HTTP: it can have been read on the way, replace it")
    detail = f"this request came over plain HTTP, where it can be read on its way: ask https://{host['host'] if host else 'HOST'} instead"
    problem = {
        "type": "about:blank",
        "title": "Plain HTTP",
        "status": HTTPStatus.FORBIDDEN.value,
        "code": "plain_http",
        "detail": f"{detail}, and replace the key that was sent" if with_key else detail,
    }
    return KEY_EXPOSED if with_key else REFUSED, Response(
        msgspec.json.encode(problem), HTTPStatus.FORBIDDEN, media_type="application/problem+json"
    )


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
