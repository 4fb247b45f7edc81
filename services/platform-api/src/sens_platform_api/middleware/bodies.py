"""Reads the body of a request whose path takes one, up to a limit; any other body is not read."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_platform_api.errors import BodyTooLargeError
from sens_platform_api.middleware.routes import RouteTable
from sens_platform_api.settings import LimitSettings


class Bodies:
    """Gives the application a body that is complete, so that its size is known before anybody works with it."""

    def __init__(self, app: ASGIApp, routes: RouteTable, limits: LimitSettings) -> None:
        self._app = app
        self._routes = routes
        self._most = limits.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            BodyTooLargeError: Its body is over the limit.
        """
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if declared.isdigit() and int(declared) > self._most:
            raise self._too_large()
        takes_body = self._routes.takes_body(scope["method"], scope["path"])
        body = await self._read(receive) if takes_body else b""
        await self._app(scope, with_body(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            if len(body) > self._most:
                raise self._too_large()
            if not message.get("more_body", False):
                break
        return bytes(body)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"a request's body may have {self._most} bytes")


def with_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives this body, no further one, and tells when the client goes away."""
    given = False

    async def receive_with_body() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_with_body
