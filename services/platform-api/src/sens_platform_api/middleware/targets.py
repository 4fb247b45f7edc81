"""Limits of a request's target (path and query) and header."""

from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from sens_platform_api.errors import HeadersTooLargeError, RefusedError

MAX_TARGET_BYTES: Final = 8192
MAX_HEADER_BYTES: Final = 16_384


class Targets:
    """Refuses requests whose target or header can't be used."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; raises as `check_target`."""
        check_target(scope)
        await self._app(scope, receive, send)


def check_target(scope: Scope) -> None:
    """Refuse a request whose target or header is too large, or whose target holds characters that no parameter may have.

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
