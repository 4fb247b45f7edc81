"""Refuses a method that a path does not take, and answers HEAD by the header of GET (RFC 9110, section 9.3.2)."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_platform_api.errors import WrongMethodError
from sens_platform_api.middleware.routes import RouteTable


class Methods:
    """Knows which methods a path takes."""

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            WrongMethodError: The path takes other methods.
        """
        method, methods = scope["method"], self._routes.methods(scope["path"])
        if methods and method not in methods:
            raise WrongMethodError("this path takes another method; see the header Allow", methods)
        if method != "HEAD":
            await self._app(scope, receive, send)
            return
        head = _HeadAnswer(send)
        inner = dict(scope, method="GET")
        await self._app(inner, head.receive, head.send)
        scope["route"] = inner.get("route")


class _HeadAnswer:
    """Sends the header of an answer without its body.

    A stream, which has no length, is ended after its header: to its source the client seems to go away.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._complete = asyncio.Event()

    async def receive(self) -> Message:
        """Return a disconnection once the header is sent."""
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass the header on, end the answer, and drop its body."""
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._complete.set()
