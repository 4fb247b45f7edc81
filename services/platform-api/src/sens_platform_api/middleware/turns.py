"""Lets requests of strangers take turns, so that no number of them holds up the others.

The event loop serves all connections that have sent something, one after the other, before it serves any of them again. A request that asks
the database is served in some ten such rounds. If each of 500 connections sent a wrong key again as soon as the last one was refused, each
round would hold 500 refusals, and that one request would wait for 5,000 of them. So a round starts a few requests of strangers, and the
others wait in their order; a request with a key that was valid before waits for none of them.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from sens_platform_api import metrics

PER_ROUND: Final = 4
"""Requests of strangers that one round of the event loop starts: about two milliseconds of work."""


class Turns:
    """Gives turns, in the order in which they are asked for, at most `PER_ROUND` in one round of the event loop."""

    def __init__(self, per_round: int = PER_ROUND) -> None:
        self._per_round = per_round
        self._given = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        if self._given == 0:
            loop.call_soon(self._begin_round, loop)
        if self._given < self._per_round:
            self._given += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        with metrics.WAITING.track_inprogress():
            await turn

    def _begin_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._given = 0
        while self._waiting and self._given < self._per_round:
            turn = self._waiting.popleft()
            if not turn.done():  # its client may have gone away
                turn.set_result(None)
                self._given += 1
        if self._given:
            loop.call_soon(self._begin_round, loop)


class Gate(Protocol):
    """Knows the callers."""

    turns: Turns

    def knows(self, scope: Scope) -> bool:
        """Tell whether a request carries a key that was valid when it was looked up last."""


class StrangersTakeTurns:
    """The outermost layer: whoever carries a key that was valid before goes on at once, all others take turns."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and not self._gate.knows(scope):
            await self._gate.turns.take()
        await self._app(scope, receive, send)
