"""Time limits until an answer starts, and until it is read."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_platform_api.errors import TooSlowError
from sens_platform_api.settings import LimitSettings
from sens_platform_api.streaming import STREAMS


class TimeLimits:
    """Ends requests that take too long."""

    def __init__(self, app: ASGIApp, limits: LimitSettings) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            TooSlowError: The answer did not start in time, or was not read in time.
        """
        seconds = self._limits.request_seconds
        try:
            async with asyncio.timeout(seconds) as timeout:

                async def send_in_time(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        timeout.reschedule(self._deadline(scope))
                    await send(message)

                await self._app(scope, receive, send_in_time)
        except TimeoutError:
            raise TooSlowError(f"no answer within {seconds:g} s") from None

    def _deadline(self, scope: Scope) -> float | None:
        """Return by when an answer that has begun has to be read, in the loop's time; None for a stream, which has limits of its own."""
        if scope["state"].get(STREAMS):
            return None
        return asyncio.get_running_loop().time() + self._limits.answer_seconds
