"""Removes from the log what is stored and old, so that it never fills up with what nobody waits for.

What is not settled yet is never removed, and a stream whose limits would remove it is reported. When the log is more than half full,
settled envelopes go before their time: half of them at each look. Until then everything stays while the guard finds that nothing can be
stored: a repaired release may want to read it again.
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from sens_common.jetstream import discarding
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_telemetry_worker import metrics
from sens_telemetry_worker.flow import Flow, LogState
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.settings import LogSettings

log = structlog.get_logger()

KEPT_ENVELOPES: Final = 10_000
"""The newest envelopes stay while there is room: the ingestion workers recognise redelivered messages by them."""

_CROWDED_SHARE: Final = 0.5


class Settled(Protocol):
    """What is remembered of settled envelopes."""

    async def forget_before(self, stream: int, sequence: int) -> None:
        """Forget envelopes of other streams, and those with a lower sequence.

        Args:
            stream: When the stream was made, microseconds since the epoch.
            sequence: The first that it still has.
        """


class History:
    """The settled part of the log.

    Attributes:
        problem: Why the stream, as its operator made it, may lose what is not stored; None when it may not.
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        settings: LogSettings,
        *,
        flow: Flow,
        guard: DeadLetterGuard,
        remembered: Settled,
    ) -> None:
        self._jetstream = jetstream
        self._settings = settings
        self._flow = flow
        self._guard = guard
        self._remembered = remembered
        self.problem: str | None = None

    async def keep_trimmed(self) -> None:
        """Observe and trim the log, now and then again."""
        while True:
            try:
                await self.observe_and_trim()
            except (NatsError, TimeoutError) as error:
                log.warning("the log can't be trimmed; trying again later", error=str(error) or type(error).__name__)
            await asyncio.sleep(self._settings.trim_interval_seconds)

    async def observe_and_trim(self) -> int:
        """Set the metrics of the log, remove what may go, and return how many envelopes went."""
        consumer = await self._jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
        stream = await self._jetstream.stream_info(TELEMETRY_STREAM)
        pending, unacknowledged = consumer.num_pending or 0, consumer.num_ack_pending or 0
        settled = consumer.ack_floor.stream_seq if consumer.ack_floor is not None else 0
        self.problem = discarding(stream.config)
        self._flow.log = LogState(
            waiting=pending + unacknowledged,
            oldest_seconds=await self._age_seconds(settled + 1) if pending + unacknowledged else 0.0,
            filled=_filled(stream),
        )
        metrics.LAG.set(pending)
        metrics.UNACKNOWLEDGED.set(unacknowledged)
        metrics.LOG_BYTES.set(stream.state.bytes)
        metrics.OLDEST_SECONDS.set(self._flow.log.oldest_seconds)
        metrics.LOG_FILLED.set(self._flow.log.filled)
        first = stream.state.first_seq
        if stream.created is not None:
            await self._remembered.forget_before(int(stream.created.timestamp() * 1e6), first)
        limit = stream.config.max_bytes or 0
        if limit > 0 and stream.state.bytes > _CROWDED_SHARE * limit:
            keep_from = first + (settled + 1 - first + 1) // 2
        elif self._guard.rejects_everything():
            return 0
        else:
            cutoff = datetime.now(UTC) - timedelta(seconds=self._settings.history_seconds)
            newest_removable = min(settled, stream.state.last_seq - KEPT_ENVELOPES)
            keep_from = await self._first_after(cutoff, first, newest_removable + 1)
        if keep_from <= first:
            return 0
        await self._jetstream.purge_stream(TELEMETRY_STREAM, seq=keep_from)
        log.info("removed stored envelopes from the log", envelopes=keep_from - first)
        return keep_from - first

    async def _age_seconds(self, sequence: int) -> float:
        """Return how long ago the first envelope from a sequence on was stored, 0 without one."""
        with contextlib.suppress(NotFoundError):
            message = await self._jetstream.get_msg(TELEMETRY_STREAM, seq=sequence, next=True, subject=">")
            if message.time is not None:
                return max(0.0, (datetime.now(UTC) - message.time).total_seconds())
        return 0.0

    async def _first_after(self, cutoff: datetime, low: int, high: int) -> int:
        """Return the first sequence from `low` on that is newer than the cutoff, at most `high`; by halving."""
        while low < high:
            middle = (low + high) // 2
            message = await self._jetstream.get_msg(TELEMETRY_STREAM, seq=middle, next=True, subject=">")
            if message.time is not None and message.time < cutoff:
                low = middle + 1
            else:
                high = middle
        return low


def _filled(stream: StreamInfo) -> float:
    limit = stream.config.max_bytes or 0
    return stream.state.bytes / limit if limit > 0 else 0.0
