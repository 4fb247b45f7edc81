"""Answers that are sent while they are made."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from typing import Final

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from sens_common.errors import SensError
from sens_platform_api import metrics
from sens_platform_api.errors import TooManyAnswersError

log = structlog.get_logger()

STREAMS: Final = "streams"
"""Key of a request's state that says that its answer is a `ClosingStream`, which has time limits of its own."""


async def begin(body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Make the first chunk now, so that an error up to it can still become a problem; return all chunks."""
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


class AnswerCounter:
    """Counts the answers that are being streamed: each holds a page of rows, however slowly it is read."""

    def __init__(self, most: int, per_tenant: int) -> None:
        self._most = most
        self._per_tenant = per_tenant
        self._by_tenant: Counter[int] = Counter()

    @contextlib.contextmanager
    def counted(self, tenant_id: int) -> Iterator[None]:
        """Count an answer of a tenant while the context is open.

        Raises:
            TooManyAnswersError: There are as many as there may be.
        """
        if self._by_tenant[tenant_id] >= self._per_tenant or self._by_tenant.total() >= self._most:
            raise TooManyAnswersError(
                f"as many answers with measurements are being read as there may be, {self._per_tenant} of one tenant;"
                " read them to their ends, or try again later"
            )
        self._by_tenant[tenant_id] += 1
        metrics.ANSWERS.inc()
        try:
            yield
        finally:
            metrics.ANSWERS.dec()
            self._by_tenant[tenant_id] -= 1
            if not self._by_tenant[tenant_id]:
                del self._by_tenant[tenant_id]


class ClosingStream(StreamingResponse):
    """Streams chunks; however it ends, its source is closed at once, and a query with it.

    When the source fails, the answer takes too long, or its reader takes nothing for too long, it breaks off without its end, so that
    the reader knows.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes],
        *,
        media_type: str,
        seconds: float | None = None,
        stall_seconds: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._body = body
        self._seconds = seconds
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        scope["state"][STREAMS] = True

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._stall_seconds):
                await send(message)
            await asyncio.sleep(0)  # a reader that is fast enough never lets it wait; others want to go on as well

        try:
            async with asyncio.timeout(self._seconds), contextlib.aclosing(self._body):
                await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.warning("an answer broke off", error="it was not read in time")
        except BaseExceptionGroup as group:
            known, unknown = group.split((SensError, TimeoutError))
            if unknown is not None:
                raise
            error = known.exceptions[0] if known is not None else None
            log.warning("an answer broke off", error=str(error) or "it was not read in time")
