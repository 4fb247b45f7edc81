"""What becomes of a batch: built, judged, stored, told."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Self

import structlog

from sens_common.health import Problems
from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import add_to_metrics
from sens_telemetry_worker.batch import Batch, Envelope, EnvelopeProgress
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.guard import DeadLetterGuard, Verdict
from sens_telemetry_worker.live import LivePublisher
from sens_telemetry_worker.rejection_counting import judge, note_rejections_of_database
from sens_telemetry_worker.status import Lane, LaneState
from sens_telemetry_worker.storing import ProgressMadeElsewhereError, Store, store_in_parts

log = structlog.get_logger()


class BatchOutcome(Enum):
    """What became of a batch."""

    SETTLED = "settled"
    HALTED = "halted"
    """The guard does not allow to store it now."""
    STOPPED = "stopped"
    """The stop came first."""


@dataclass
class BatchWork:
    """A batch on its way.

    Attributes:
        progress: Its envelopes, each once.
        is_judged: Whether the guard has judged and allowed it.
        rejected_share: Of the messages that were stored last, how many were rejected.
    """

    progress: list[EnvelopeProgress]
    is_judged: bool = False
    rejected_share: float = 0.0

    @classmethod
    def of(cls, envelopes: Iterable[Envelope]) -> Self:
        """Return envelopes of which nothing is known. One that was given out again while it waited comes twice at once."""
        return cls(list({envelope.position: EnvelopeProgress.of(envelope) for envelope in envelopes}.values()))

    def adopt_recorded(self, error: ProgressMadeElsewhereError) -> None:
        """Take over what others have settled."""
        for each in self.progress:
            if each.envelope.position in error.recorded:
                each.adopt_recorded(error.recorded[each.envelope.position])


class BatchProcessor:
    """Processes batches; several lanes share it.

    Attributes:
        is_halting: Whether the guard lets nothing be stored, as long as no tenant's messages pass.
    """

    def __init__(
        self, *, builder: BatchBuilder, guard: DeadLetterGuard, store: Store, live: LivePublisher, problems: Problems
    ) -> None:
        self._builder = builder
        self._guard = guard
        self._store = store
        self._live = live
        self._problems = problems

    @property
    def is_halting(self) -> bool:
        return self._guard.is_halting

    async def process(self, work: BatchWork, lane: Lane) -> BatchOutcome:
        """Build, judge and store all that is left of a batch.

        Raises:
            StoreUnavailableError: Try what is left again.
            RowsRefusedError: The same; it was not a message's rows that were refused.
        """
        while True:
            if not self._guard.is_halting:
                lane.enter(LaneState.STORING)
            batch = await self._builder.build(work.progress)
            if batch.undecided.all_envelopes_settled:
                return BatchOutcome.SETTLED
            if not work.is_judged and judge(self._guard, batch) is Verdict.HALT:
                return BatchOutcome.HALTED
            work.is_judged = True
            lane.enter(LaneState.STORING)
            try:
                await self._store_batch(batch, work, lane)
            except ProgressMadeElsewhereError as error:
                log.info("envelopes of the batch are settled already", envelopes=len(error.recorded))
                work.adopt_recorded(error)

    async def _store_batch(self, batch: Batch, work: BatchWork, lane: Lane) -> None:
        """Store what is left of a batch, and tell of each part what became of it.

        Raises:
            StoreUnavailableError: Try what is left again.
            ProgressMadeElsewhereError: Less is left than it seems.
        """
        rejected = 0
        async for written in store_in_parts(self._store, batch, self._problems, lane.name):
            add_to_metrics(batch, written)
            note_rejections_of_database(self._guard, batch, written)
            await self._live.publish(batch, written.new_values)
            rejected += len(written.letters) + len(written.discarded)
        if batch.messages:
            oldest = min(message.received_at for message in batch.messages)
            metrics.VISIBLE_SECONDS.observe(max(0.0, time.time() - oldest / 1e6))
            work.rejected_share = rejected / len(batch.messages)
