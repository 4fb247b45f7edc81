"""Answers that are sent while they are made."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sens_common.errors import SensError

log = structlog.get_logger()


async def begin(body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Make the first chunk now, so that what is wrong so far can still become a problem; return all chunks."""
    try:
        first = await anext(body)
    except BaseException:
        await body.aclose()
        raise

    async def chunks() -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(body):
            yield first
            async for chunk in body:
                yield chunk

    return chunks()


class ClosingStream(StreamingResponse):
    """Streams chunks; whatever ends it, its source is closed at once, and a query with it.

    When the source fails or takes too long, the answer breaks off without its end, by which the reader knows.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes],
        *,
        media_type: str,
        seconds: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._body = body
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            async with asyncio.timeout(self._seconds), contextlib.aclosing(self._body):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.warning("an answer broke off", error=f"it was not complete after {self._seconds:g} s")
        except BaseExceptionGroup as group:
            known, unknown = group.split((SensError, TimeoutError))
            if unknown is not None:
                raise
            log.warning("an answer broke off", error=str(known.exceptions[0]) if known is not None else "")
