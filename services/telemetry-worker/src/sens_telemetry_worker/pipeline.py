"""From the stream to the database: take, interpret, judge, store, acknowledge. The order is the promise.

An envelope is acknowledged to the stream only after the transactions are committed that hold all that it leads to: rows, dead letters,
counts. Whatever is cut short before that comes again, and storing it again has no effect.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import structlog

from sens_common.attempts import Attempts, Backoff
from sens_common.health import Problems
from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import add_to_metrics
from sens_telemetry_worker.batch import Batch, Envelope, EnvelopeProgress, UndecidedMessages
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.guard import DeadLetterGuard, Verdict
from sens_telemetry_worker.live import LivePublisher
from sens_telemetry_worker.rejection_counting import rejections_found_by_database, rejections_found_by_worker
from sens_telemetry_worker.status import Lane, LaneState, TelemetryStatus
from sens_telemetry_worker.storing import (
    ProgressMadeElsewhereError,
    RowsRefusedError,
    Store,
    StoreUnavailableError,
    store_in_parts,
)

log = structlog.get_logger()

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


class BatchOutcome(Enum):
    """What became of a batch."""

    STORED = "stored"
    HALTED = "halted"
    """The guard does not allow to store it now."""
    STOPPED = "stopped"
    """The stop came first."""


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
        self._inbox = inbox
        self._builder = builder
        self._guard = guard
        self._store = store
        self._live = live
        self._status = status
        self._backoff = backoff
        self._rejected_share = 0.0
        self.problems = Problems("store")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop; the batch under way is finished."""
        lane = self._status.add_lane()
        while not stop.is_set():
            # A worker that has stopped still looks at what comes: a tenant whose messages pass lets it go on.
            lane.enter(LaneState.HALTED if self._guard.has_stopped else LaneState.TAKING)
            envelopes = await self._inbox.take(stop, rejected_share=self._rejected_share)
            if not envelopes:
                continue
            async with self._inbox.keep_in_progress(envelopes):
                outcome = await self._process(envelopes, lane, stop)
                if outcome is BatchOutcome.STORED:
                    lane.enter(LaneState.ACKNOWLEDGING)
                    await self._inbox.acknowledge(envelopes)
            if outcome is BatchOutcome.HALTED:
                await self._inbox.postpone(envelopes)

    async def _process(self, envelopes: list[E], lane: Lane, stop: asyncio.Event) -> BatchOutcome:
        """Store a batch, again and again while the database is not available."""
        started = time.perf_counter()
        # One that was given out again while it waited here comes twice at once; both deliveries are acknowledged.
        taken = {envelope.position: EnvelopeProgress.of(envelope) for envelope in envelopes}
        work = _BatchWork(list(taken.values()))
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
                outcome = await self._attempt(work, lane)
                if outcome is BatchOutcome.STORED:
                    self._status.note_stored()
                    metrics.STORE_SECONDS.observe(time.perf_counter() - started)
                return outcome
        return BatchOutcome.STOPPED

    async def _attempt(self, work: "_BatchWork", lane: Lane) -> BatchOutcome:
        """Interpret, judge and store all that is left.

        Raises:
            StoreUnavailableError: Try what is left again.
            RowsRefusedError: The same; it was not a message's rows that were refused.
        """
        while not (undecided := UndecidedMessages.of(work.progress)).is_done:
            if not self._guard.has_stopped:
                lane.enter(LaneState.STORING)
            batch = await self._builder.build(undecided)
            if not work.is_judged:
                self._guard.note(rejections_found_by_worker(batch))
                if self._guard.decide() is Verdict.HALT:
                    return BatchOutcome.HALTED
                work.is_judged = True
            lane.enter(LaneState.STORING)
            try:
                await self._store_batch(batch, lane)
            except ProgressMadeElsewhereError as error:
                log.info("envelopes of the batch are settled already", envelopes=len(error.recorded))
                work.adopt_recorded(error)
        return BatchOutcome.STORED

    async def _store_batch(self, batch: Batch, lane: Lane) -> None:
        """Store what is left of a batch, and tell of each part what became of it.

        Raises:
            StoreUnavailableError: Try what is left again.
            ProgressMadeElsewhereError: Less is left than it seems.
        """
        rejected = 0
        async for written in store_in_parts(self._store, batch, self.problems, lane.name):
            add_to_metrics(batch, written)
            self._guard.note(rejections_found_by_database(batch, written))
            await self._live.publish(batch, written.new_values)
            rejected += len(written.letters) + len(written.discarded)
        if batch.messages:
            oldest = min(message.received_at for message in batch.messages)
            metrics.VISIBLE_SECONDS.observe(max(0.0, time.time() - oldest / 1e6))
            self._rejected_share = rejected / len(batch.messages)


@dataclass
class _BatchWork:
    """A batch on its way.

    Attributes:
        progress: Its envelopes, each once.
        is_judged: Whether the guard has judged and allowed it.
    """

    progress: list[EnvelopeProgress]
    is_judged: bool = False

    def adopt_recorded(self, error: ProgressMadeElsewhereError) -> None:
        """Take over what others have settled."""
        for each in self.progress:
            if each.envelope.position in error.recorded:
                each.adopt_recorded(error.recorded[each.envelope.position])
