"""What passes between server and application (ASGI specification 3.0, "HTTP & WebSocket"), changed on its way."""

import asyncio

from starlette.types import Message, Receive, Send


def with_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives this body, and then what comes."""
    given = False

    async def receive_with_body() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_with_body


def without_body(receive: Receive) -> Receive:
    """Return a `receive` that gives no body, whatever the client sends; it still tells when the client goes away."""
    given = False

    async def receive_nothing() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_nothing


class HeadAnswer:
    """Makes the answer of a GET that of a HEAD (RFC 9110, section 9.3.2): its header, without its body.

    A stream, which has no length, is ended after its header: to its source the client seems to go away.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = without_body(receive)
        self._send = send
        self._complete = asyncio.Event()
        self._body_given = False

    async def receive(self) -> Message:
        """Give an empty body, and then a disconnection once the header is sent."""
        if not self._body_given:
            self._body_given = True
            return await self._receive()
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass the header on, end the answer, and drop what comes of the body."""
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._complete.set()
