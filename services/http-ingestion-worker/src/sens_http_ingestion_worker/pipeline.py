"""From a request to the stream: receive, publish, answer. The order is the promise.

A request is answered with 2xx only after the stream has stored its message. While the stream takes one envelope, messages gather for the next
one, so that envelopes grow with the load and nothing waits when there is none. A message whose request carries an ``Idempotency-Key`` has an
envelope of its own: its identifier is how JetStream recognises a repeat.

What the stream has not stored in time is answered with 503. The stream may still have stored it, or store it later: the sender sends it again, and
a time of its own or the key makes it one.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from sens_common.envelope import Message
from sens_common.errors import UnavailableError
from sens_common.ingestion.clock import ReceiptClock
from sens_common.ingestion.metrics import DISCARDED, PUBLISHED
from sens_common.topics import TOPICS
from sens_http_ingestion_worker import metrics
from sens_http_ingestion_worker.reception import Done, Submission
from sens_http_ingestion_worker.refusals import busy, not_stored

MAX_TENANTS: Final = 50
"""In one envelope: its headers name each (`sens_common.envelope.OVERHEAD_BYTES`). So many may have discarded messages, too."""
_MAX_MESSAGES: Final = 2000
_MAX_WAITING: Final = 20_000
_MESSAGE_OVERHEAD_BYTES: Final = 32
_REPEATABLE_LANES: Final = 16
_SWEEP_SECONDS: Final = 0.1
_DISCARDED_SECONDS: Final = 1.0


class Stream(Protocol):
    """The stream that keeps the messages, in envelopes."""

    async def publish(
        self, messages: list[Message], discarded: Mapping[str, int], *, repeat_id: str | None, seconds: float
    ) -> bool:
        """Store messages as one envelope; return False when the stream had the same envelope already, by its `repeat_id`.

        Args:
            messages: What fits into one envelope.
            discarded: Messages of each tenant that were discarded, and are counted with this envelope.
            repeat_id: Of the envelope; None for one that is never repeated.
            seconds: How long it may take.

        Raises:
            UnavailableError: It is not known to be stored in time.
        """


class _Waiting:
    """A message that waits for the stream."""

    __slots__ = ("answered", "deadline", "done", "message", "repeat_id", "since")

    def __init__(self, message: Message, repeat_id: str | None, done: Done, since: float, deadline: float) -> None:
        self.message = message
        self.repeat_id = repeat_id
        self.done = done
        self.since = since
        self.deadline = deadline
        self.answered = False


class Pipeline:
    """The worker's loops, as `reception.Taker`."""

    def __init__(
        self,
        stream: Stream,
        receipt_clock: ReceiptClock,
        *,
        max_envelope_bytes: int,
        answer_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._receipt_clock = receipt_clock
        self._max_envelope_bytes = max_envelope_bytes
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._in_order: deque[_Waiting] = (
            deque()
        )  # the oldest first, those that are answered until they are at the front
        self._single: deque[_Waiting] = deque()
        self._repeatable: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._has_come = asyncio.Event()
        self._discarded: Counter[str] = Counter()
        self._waiting_count = 0

    # As `reception.Taker`.

    def take(self, submission: Submission, done: Done) -> None:
        """See `reception.Taker.take`."""
        if self._waiting_count >= _MAX_WAITING:
            done(busy(f"{_MAX_WAITING:,} messages wait for the stream already"))
            return
        at, _ = self._receipt_clock.next()
        self._receipt_clock.note_given(at)
        now = self._clock()
        waiting = _Waiting(
            Message(submission.topic, submission.payload, at),
            submission.repeat_id,
            done,
            now,
            now + self._answer_seconds,
        )
        self._waiting_count += 1
        self._in_order.append(waiting)
        if submission.repeat_id is None:
            self._single.append(waiting)
            self._has_come.set()
        else:
            self._repeatable.put_nowait(waiting)

    def note_discarded(self, tenant: str) -> None:
        """See `reception.Taker.note_discarded`."""
        self._discarded[tenant] += 1
        DISCARDED.labels(tenant).inc()

    # For `status`.

    @property
    def waiting_count(self) -> int:
        """Messages that are not answered."""
        return self._waiting_count

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited, 0 when there is none."""
        self._drop_answered()
        return self._clock() - self._in_order[0].since if self._in_order else 0.0

    # The loops.

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop; what waits then is stored, or answered as late, first."""
        loops = [self._publish_gathered, self._answer_late, self._publish_discarded]
        loops += [self._publish_repeatable] * _REPEATABLE_LANES
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop(), name=f"http ingestion {loop.__name__}") for loop in loops]
            await stop.wait()
            while self._waiting_count:  # noqa: ASYNC110 - for as long as an answer may take
                await asyncio.sleep(_SWEEP_SECONDS)
            for task in tasks:
                task.cancel()
        await self._flush_discarded()

    async def _publish_gathered(self) -> None:
        while True:
            await self._has_come.wait()
            batch = list(self._next_batch())
            if not batch:
                self._has_come.clear()
                continue
            await self._publish(batch, self._take_discarded(), None)

    async def _publish_repeatable(self) -> None:
        while True:
            waiting = await self._repeatable.get()
            if not waiting.answered:
                await self._publish([waiting], {}, waiting.repeat_id)

    async def _publish(self, batch: list[_Waiting], discarded: Mapping[str, int], repeat_id: str | None) -> None:
        seconds = batch[-1].deadline - self._clock()
        try:
            is_new = await self._stream.publish(
                [each.message for each in batch], discarded, repeat_id=repeat_id, seconds=seconds
            )
        except UnavailableError:
            self._discarded.update(discarded)
            for each in batch:
                self._answer_not_stored(each)
            return
        (PUBLISHED if is_new else metrics.REPEATS).inc(len(batch))
        now = self._clock()
        for each in batch:
            if self._mark_answered(each):
                metrics.ANSWER_SECONDS.observe(now - each.since)
                each.done(None)

    async def _answer_late(self) -> None:
        """Answer what has waited for too long, whatever its envelope does."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self._clock() + _SWEEP_SECONDS
            self._drop_answered()
            while self._in_order and self._in_order[0].deadline <= now:
                self._answer_not_stored(self._in_order[0])
                self._drop_answered()

    async def _publish_discarded(self) -> None:
        """Tell the stream of what was discarded, also while no message comes."""
        while True:
            await asyncio.sleep(_DISCARDED_SECONDS)
            await self._flush_discarded()

    async def _flush_discarded(self) -> None:
        discarded = self._take_discarded()
        if not discarded:
            return
        try:
            await self._stream.publish([], discarded, repeat_id=None, seconds=self._answer_seconds)
        except UnavailableError:
            self._discarded.update(discarded)

    def _take_discarded(self) -> dict[str, int]:
        taken = dict(self._discarded.most_common(MAX_TENANTS)) if self._discarded else {}
        for tenant in taken:
            del self._discarded[tenant]
        return taken

    def _next_batch(self) -> Iterator[_Waiting]:
        """Yield the messages of the next envelope."""
        size = count = 0
        tenants: set[str] = set()
        while self._single and count < _MAX_MESSAGES:
            waiting = self._single[0]
            if waiting.answered:
                self._single.popleft()
                continue
            message = waiting.message
            size += len(message.topic) + len(message.payload) + _MESSAGE_OVERHEAD_BYTES
            tenants.add(TOPICS.tenant_of(message.topic))
            if count and (size > self._max_envelope_bytes or len(tenants) > MAX_TENANTS):
                return
            count += 1
            yield self._single.popleft()

    def _answer_not_stored(self, waiting: _Waiting) -> None:
        if self._mark_answered(waiting):
            metrics.LATE.inc()
            # It may stay in a queue for a while, and is not counted among the bodies in memory any more.
            waiting.message = Message(waiting.message.topic, b"", waiting.message.received_at)
            waiting.done(not_stored())

    def _mark_answered(self, waiting: _Waiting) -> bool:
        """Tell whether it is not answered yet, and count it as answered."""
        if waiting.answered:
            return False
        waiting.answered = True
        self._waiting_count -= 1
        return True

    def _drop_answered(self) -> None:
        while self._in_order and self._in_order[0].answered:
            self._in_order.popleft()
