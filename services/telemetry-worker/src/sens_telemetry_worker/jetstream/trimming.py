"""Removes old envelopes that are settled from the stream, so that it never becomes full of envelopes that nobody waits for.

An envelope that is not settled is never removed, and a stream whose limits would remove it is reported. When the stream is more than half
full, settled envelopes go before their time: half of them at each look. Until then everything stays while the guard finds that nothing can
be stored: a repaired release may want to read it again.
"""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError

from sens_common.attempts import Attempts
from sens_common.health import Problems
from sens_common.jetstream import discarding
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_telemetry_worker import metrics
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.settings import HistorySettings
from sens_telemetry_worker.status import StreamStatus, TelemetryStatus
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError

log = structlog.get_logger()

KEPT_ENVELOPES: Final = 10_000
"""The newest envelopes stay while there is room: the ingestion workers recognise redelivered messages by them."""

_CROWDED_SHARE: Final = 0.5
_LIMITS: Final = "limits"


class SettledEnvelopes(Protocol):
    """The memory of settled envelopes."""

    async def forget_before(self, stream: int, sequence: int) -> None:
        """Forget envelopes of other streams, and those with a lower sequence.

        Args:
            stream: When the stream was created, microseconds since the epoch.
            sequence: The first that it still has.

        Raises:
            StoreUnavailableError: The database can't be used.
        """


class StreamTrimmer:
    """Observes and trims the stream.

    Attributes:
        problems: Why the stream, as its operator made it, may lose envelopes that are not stored.
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        settings: HistorySettings,
        *,
        status: TelemetryStatus,
        guard: DeadLetterGuard,
        settled: SettledEnvelopes,
        kept_envelopes: int = KEPT_ENVELOPES,
    ) -> None:
        self._jetstream = jetstream
        self._settings = settings
        self._status = status
        self._guard = guard
        self._settled = settled
        self._kept_envelopes = kept_envelopes
        self.problems = Problems("stream_limits")

    async def keep_trimmed(self, problems: Problems) -> None:
        """Observe and trim the stream again and again."""
        attempts = Attempts(
            problems,
            "trimming",
            "the stream, or the memory of its settled envelopes, can't be trimmed",
            retry_on=(NatsError, TimeoutError, StoreUnavailableError, RowsRefusedError),
            interval_seconds=self._settings.trim_interval_seconds,
        )
        async for attempt in attempts:
            with attempt:
                await self.observe_and_trim()

    async def observe_and_trim(self) -> int:
        """Set the metrics of the stream, remove what may go, and return how many envelopes went.

        Raises:
            NatsError: JetStream refuses or does not answer.
            StoreUnavailableError: The database can't be used; the stream is trimmed.
        """
        consumer = await self._jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
        stream = await self._jetstream.stream_info(TELEMETRY_STREAM)
        await self._observe(stream, consumer)
        first = stream.state.first_seq
        keep_from = max(first, await self._first_to_keep(stream, _settled_up_to(consumer)))
        if keep_from > first:
            await self._jetstream.purge_stream(TELEMETRY_STREAM, seq=keep_from)
            log.info("removed stored envelopes from the stream", envelopes=keep_from - first)
        if stream.created is not None:
            # What went now is forgotten at the next look: a worker may still have a second delivery of it in hand.
            await self._settled.forget_before(int(stream.created.timestamp() * 1e6), first)
        return keep_from - first

    async def _observe(self, stream: StreamInfo, consumer: ConsumerInfo) -> None:
        """Tell readiness, status and metrics what the stream is like."""
        if (problem := discarding(stream.config)) is not None:
            self.problems.set(_LIMITS, problem)
        else:
            self.problems.clear(_LIMITS)
        pending, unacknowledged = consumer.num_pending or 0, consumer.num_ack_pending or 0
        unsettled = pending + unacknowledged
        self._status.stream = StreamStatus(
            unsettled=unsettled,
            oldest_seconds=await self._age_seconds(_settled_up_to(consumer) + 1) if unsettled else 0.0,
            filled=_filled(stream),
        )
        metrics.LAG.set(pending)
        metrics.UNACKNOWLEDGED.set(unacknowledged)
        metrics.STREAM_BYTES.set(stream.state.bytes)
        metrics.OLDEST_SECONDS.set(self._status.stream.oldest_seconds)
        metrics.STREAM_FILLED.set(self._status.stream.filled)

    async def _first_to_keep(self, stream: StreamInfo, settled_up_to: int) -> int:
        """Return the sequence of the first envelope that has to stay."""
        first = stream.state.first_seq
        limit = stream.config.max_bytes or 0
        if limit > 0 and stream.state.bytes > _CROWDED_SHARE * limit:
            return first + (settled_up_to + 1 - first + 1) // 2
        if self._guard.rejects_everything():
            return first
        cutoff = datetime.now(UTC) - timedelta(seconds=self._settings.history_seconds)
        newest_removable = min(settled_up_to, stream.state.last_seq - self._kept_envelopes)
        return await self._first_after(cutoff, first, newest_removable + 1)

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


def _settled_up_to(consumer: ConsumerInfo) -> int:
    return consumer.ack_floor.stream_seq if consumer.ack_floor is not None else 0


def _filled(stream: StreamInfo) -> float:
    limit = stream.config.max_bytes or 0
    return stream.state.bytes / limit if limit > 0 else 0.0
