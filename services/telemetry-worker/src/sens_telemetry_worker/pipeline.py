"""From the stream to the database: take, process (interpret, judge, store), acknowledge. The order is the promise.

An envelope is acknowledged to the stream only after the transactions are committed that hold all that it leads to: rows, dead letters,
counts. Whatever is cut short before that comes again, and storing it again has no effect.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from sens_common.attempts import Attempts, Backoff
from sens_common.health import Problems
from sens_telemetry_worker import metrics
from sens_telemetry_worker.batch import Envelope
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.live import LivePublisher
from sens_telemetry_worker.processing import BatchOutcome, BatchProcessor, BatchWork
from sens_telemetry_worker.status import Lane, LaneState, TelemetryStatus
from sens_telemetry_worker.storing import RowsRefusedError, Store, StoreUnavailableError

BACKOFF: Final = Backoff(0.1, 10)
"""Pauses between attempts to store a batch."""


class Inbox[E: Envelope](Protocol):
    """The stream."""

    async def take(self, stop: asyncio.Event, *, rejected_share: float = 0.0) -> list[E]:
        """Return the next envelopes, a batch of them; nothing only after the stop.

        Args:
            stop: Ends the waiting.
            rejected_share: Of the messages of the last batch; a batch is for those that are stored, and may have as many more.
        """

    def keep_in_progress(self, envelopes: list[E]) -> AbstractAsyncContextManager[None]:
        """Keep the envelopes from being given to another worker while the context is open."""

    async def acknowledge(self, envelopes: list[E]) -> None:
        """Settle the envelopes for good."""

    async def postpone(self, envelopes: list[E]) -> None:
        """Give the envelopes back; they come again later."""


class Pipeline[E: Envelope]:
    """The worker's loop; several lanes of it share everything.

    Attributes:
        problems: Why a lane stores nothing now, by lane.
    """

    def __init__(
        self,
        inbox: Inbox[E],
        *,
        builder: BatchBuilder,
        guard: DeadLetterGuard,
        store: Store,
        live: LivePublisher,
        status: TelemetryStatus,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.problems = Problems("store")
        self._inbox = inbox
        self._processor = BatchProcessor(builder=builder, guard=guard, store=store, live=live, problems=self.problems)
        self._status = status
        self._backoff = backoff
        self._rejected_share = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop; the batch under way is finished."""
        lane = self._status.add_lane()
        while not stop.is_set():
            # A worker that has stopped still looks at what comes: a tenant whose messages pass lets it go on.
            lane.enter(LaneState.HALTED if self._processor.is_halting else LaneState.TAKING)
            envelopes = await self._inbox.take(stop, rejected_share=self._rejected_share)
            if not envelopes:
                continue
            async with self._inbox.keep_in_progress(envelopes):
                outcome = await self._process(BatchWork.of(envelopes), lane, stop)
                if outcome is BatchOutcome.SETTLED:
                    lane.enter(LaneState.ACKNOWLEDGING)
                    await self._inbox.acknowledge(envelopes)
            if outcome is BatchOutcome.HALTED:
                await self._inbox.postpone(envelopes)

    async def _process(self, work: BatchWork, lane: Lane, stop: asyncio.Event) -> BatchOutcome:
        """Process a batch, again and again while the database is not available."""
        started = time.perf_counter()
        attempts = Attempts(
            self.problems,
            lane.name,
            "the database does not store",
            retry_on=(StoreUnavailableError, RowsRefusedError),
            backoff=self._backoff,
            stop=stop,
            retries=metrics.STORE_RETRIES,
        )
        async for attempt in attempts:
            with attempt:
                outcome = await self._processor.process(work, lane)
                if outcome is BatchOutcome.SETTLED:
                    self._rejected_share = work.rejected_share
                    self._status.note_stored()
                    metrics.STORE_SECONDS.observe(time.perf_counter() - started)
                return outcome
        return BatchOutcome.STOPPED
