"""From the log to the database: take, route, store, dead-letter, acknowledge. The order is the promise.

An envelope is acknowledged to the log only after the transaction with its messages' rows is committed and its dead letters are
stored. Whatever is cut short before that comes again, and storing or dead-lettering it again has no effect.
"""

import asyncio
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from sens_common import live
from sens_common.dead_letters import DeadLetter, Origin, Reason
from sens_common.envelope import Message
from sens_common.health import Problems
from sens_common.lifecycle import wait_or_stop
from sens_common.names import native_route
from sens_telemetry_worker import metrics
from sens_telemetry_worker.columns import Rejected
from sens_telemetry_worker.flow import Flow, Lane, State
from sens_telemetry_worker.guard import DeadLetterGuard, counts, judged
from sens_telemetry_worker.routing import Routed, Router
from sens_telemetry_worker.rows import NumberRows, Prepared, TextRow, prepare

log = structlog.get_logger()

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 10.0
GUARD_POLL_SECONDS = 1.0
MAX_DETAIL_CHARACTERS = 1000


class StoreUnavailableError(Exception):
    """The database can't be reached or can't work just now; the same batch can be tried again."""


class StoreTooSlowError(StoreUnavailableError):
    """The database did not finish in time; less at once may be possible."""


class RowsRefusedError(Exception):
    """The database refuses the rows for what they are; the text is its reason.

    Attributes:
        suspect: The message of the row that it names, None where it names none.
    """

    def __init__(self, reason: str, suspect: int | None = None) -> None:
        super().__init__(reason)
        self.suspect = suspect


class Entry(Protocol):
    """An envelope taken from the log.

    Attributes:
        messages: Its messages.
        replays: How often its messages came from the dead letters.
    """

    messages: list[Message]
    replays: int

    def origin(self, index: int) -> Origin:
        """Return where a message came from, which names its dead letter."""


class Inbox[E: Entry](Protocol):
    """The log."""

    async def take(self, stop: asyncio.Event, *, rejected_share: float = 0.0) -> list[E]:
        """Return the next envelopes, a batch of them; nothing only after the stop.

        Args:
            stop: Ends the waiting.
            rejected_share: Of the messages lately; a batch is for those that are stored, and may hold as many more.
        """

    def holding(self, entries: list[E]) -> AbstractAsyncContextManager[None]:
        """Keep the envelopes from being given to another worker while the context is open."""

    async def acknowledge(self, entries: list[E]) -> None:
        """Settle the envelopes for good."""


class Written(NamedTuple):
    """What became of the rows.

    Attributes:
        new_values: int, for each message the number of its values that were not stored before.
        conflicting: Messages with a value other than the stored one of the same device, metric and time.
    """

    new_values: NDArray[np.int64]
    conflicting: set[int]


class Store(Protocol):
    """The database."""

    async def write(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written:
        """Store the rows, and count their messages, in one transaction; rows that are there already have no effect.

        Args:
            rows: Of some messages of a batch.
            tenants: For each message of the batch its tenant's number, 0 where its rows are not among these.

        Raises:
            StoreUnavailableError: Nothing is stored; try again.
            StoreTooSlowError: The same, with fewer rows.
            RowsRefusedError: Nothing is stored, and trying again would not help.
        """


class DeadLetterBox(Protocol):
    """Where messages go that can't be stored."""

    async def put(self, letters: Mapping[Origin, DeadLetter]) -> None:
        """Keep dead letters by their origin; returns once they are safe and tries again until then. Twice has no effect."""


class LiveFeed(Protocol):
    """Whoever watches."""

    def watched(self) -> set[str]:
        """Return the names of the tenants whose readings somebody wants to see."""

    async def publish(self, tenant: str, readings: Sequence[live.Reading]) -> None:
        """Send readings to whoever watches the tenant."""


class Pipeline[E: Entry]:
    """The worker's loop; several lanes of it share everything.

    Attributes:
        problems: Why a lane stores nothing just now, by lane; for the readiness check.
    """

    def __init__(
        self,
        inbox: Inbox[E],
        *,
        router: Router,
        store: Store,
        dead_letters: DeadLetterBox,
        feed: LiveFeed,
        guard: DeadLetterGuard,
        flow: Flow,
    ) -> None:
        self._inbox = inbox
        self._router = router
        self._store = store
        self._dead_letters = dead_letters
        self._feed = feed
        self._guard = guard
        self._flow = flow
        self._rejected_share = 0.0
        self.problems = Problems()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop; the batch under way is finished."""
        lane = self._flow.lane()
        while not stop.is_set():
            lane.enter(State.TAKING)
            entries = await self._inbox.take(stop, rejected_share=self._rejected_share)
            if not entries:
                continue
            async with self._inbox.holding(entries):
                await self._settle(entries, stop, lane)

    async def _settle(self, entries: list[E], stop: asyncio.Event, lane: Lane) -> None:
        """Settle a batch, or give up at the stop: what is not acknowledged comes again."""
        lane.enter(State.STORING)
        messages = [message for entry in entries for message in entry.messages]
        stored = await self._store_batch(messages, stop, lane)
        if stored is None:
            return
        routed, written = stored
        for message in sorted(written.conflicting):
            detail = "another value is already stored for the same device, metric and time; the stored one stays"
            routed.rejected.append(Rejected(message, Reason.CONFLICTING_VALUE, detail))
        if not await self._guarded(routed, stop, lane):
            return
        lane.enter(State.DEAD_LETTERING)
        await self._dead_letter(entries, routed)
        lane.enter(State.ACKNOWLEDGING)
        await self._inbox.acknowledge(entries)
        self._rejected_share = len(routed.rejected) / max(1, len(messages))
        self._count(routed, written)
        await self._show(routed, written)

    async def _store_batch(
        self, messages: list[Message], stop: asyncio.Event, lane: Lane
    ) -> tuple[Routed, Written] | None:
        """Route and store, again and again while the database is not available; None when the stop comes first."""
        retry_seconds = FIRST_RETRY_SECONDS
        started = time.perf_counter()
        while True:
            try:
                routed = await self._router.route(messages)
                written = await self._write(routed, lane)
            except (StoreUnavailableError, RowsRefusedError) as error:
                self.problems.set(lane.name, str(error))
                metrics.STORE_RETRIES.inc()
                log.warning("the database does not store; trying again", error=str(error), messages=len(messages))
                if await wait_or_stop(stop, retry_seconds):
                    return None
                retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)
            else:
                self.problems.clear(lane.name)
                self._flow.stored()
                metrics.STORE_SECONDS.observe(time.perf_counter() - started)
                if messages:
                    metrics.VISIBLE_SECONDS.observe(max(0.0, time.time() - min(m.received_at for m in messages) / 1e6))
                return routed, written

    async def _write(self, routed: Routed, lane: Lane) -> Written:
        written = Written(np.zeros(len(routed.messages), np.int64), set())
        present = np.bincount(routed.numbers.message, minlength=len(routed.messages))
        present[[row.message for row in routed.texts]] = 1
        await self._write_part(
            routed.numbers, routed.texts, np.flatnonzero(present).tolist(), written, routed, lane=lane
        )
        return written

    async def _write_part(
        self,
        numbers: NumberRows,
        texts: list[TextRow],
        present: list[int],
        written: Written,
        routed: Routed,
        *,
        lane: Lane,
        halving: bool = False,
    ) -> None:
        """Store the rows; when the database refuses them, divide the messages until the refused ones stand alone.

        Of n messages, k refused ones cost 3 k writes where the database names a row, 2 k log2(n) + 1 where it names none, at most.
        Each part is prepared anew: a value that was left out as another message's is stored when that message is refused.

        What the database does not finish in time is stored in halves: a batch that takes longer than a statement may would never be stored.

        Raises:
            StoreUnavailableError: The database can't be reached, or does not finish in time with the rows of a single message.
        """
        if not present:
            return
        rows = prepare(numbers, texts)
        tenants = np.zeros(len(routed.messages), np.int32)
        tenants[present] = [device.tenant.id for number in present if (device := routed.devices[number]) is not None]
        try:
            part = await self._store.write(rows, tenants)
        except RowsRefusedError as error:
            if len(present) == 1:
                routed.rejected.append(Rejected(present[0], Reason.REFUSED_BY_DATABASE, str(error)))
                return
            parts, halving = _divided(present, error.suspect, halving=halving), True
        except StoreTooSlowError as error:
            if len(present) == 1:
                raise
            self.problems.set(lane.name, str(error))
            metrics.STORE_RETRIES.inc()
            log.warning("the database does not store in time; trying halves", error=str(error), messages=len(present))
            parts = _divided(present, None, halving=True)
        else:
            np.add(written.new_values, part.new_values, out=written.new_values)
            written.conflicting.update(rows.conflicting, part.conflicting)
            return
        for messages in parts:
            chosen = np.zeros(len(routed.messages), np.bool_)
            chosen[messages] = True
            own_numbers = numbers.taken(chosen[numbers.message])
            own_texts = [row for row in texts if chosen[row.message]]
            await self._write_part(own_numbers, own_texts, messages, written, routed, lane=lane, halving=halving)

    async def _guarded(self, routed: Routed, stop: asyncio.Event, lane: Lane) -> bool:
        """Wait until the guard lets the batch be settled; False when the stop comes first."""
        spared = {rejected.message for rejected in routed.rejected if not counts(rejected.reason)}
        topics = [message.topic for message in routed.messages]
        counted = [
            topics[number]
            for number, device in enumerate(routed.devices)
            if device is not None and number not in spared
        ]
        rejected = [topics[each.message] for each in routed.rejected if each.message not in spared]
        tenants = {topic: device.tenant.name for topic, device in zip(topics, routed.devices, strict=True) if device}
        self._guard.note(judged(counted, rejected, tenants))
        while not self._guard.allows():
            if lane.state is not State.HALTED:
                lane.enter(State.HALTED)
                log.error("every tenant's messages would be dead-lettered", problem=self._guard.problem)
            if await wait_or_stop(stop, GUARD_POLL_SECONDS):
                return False
        return True

    async def _dead_letter(self, entries: list[E], routed: Routed) -> None:
        if not routed.rejected:
            return
        starts = list(accumulate((len(entry.messages) for entry in entries), initial=0))
        now = time.time_ns() // 1000
        letters = {}
        for number, reason, detail in routed.rejected:
            message = routed.messages[number]
            position = bisect_right(starts, number) - 1
            entry = entries[position]
            device = routed.devices[number]
            tenant, name = (device.tenant.name, device.name) if device is not None else native_route(message.topic)
            letters[entry.origin(number - starts[position])] = DeadLetter(
                tenant=tenant,
                device=name,
                topic=message.topic,
                payload=message.payload,
                received_at=message.received_at,
                reason=reason,
                detail=detail[:MAX_DETAIL_CHARACTERS],
                dead_lettered_at=now,
                replays=entry.replays,
            )
        await self._dead_letters.put(letters)

    def _count(self, routed: Routed, written: Written) -> None:
        names = [device.tenant.name if device is not None else metrics.UNKNOWN_TENANT for device in routed.devices]
        rejected = np.zeros(len(names), np.bool_)
        rejected[[entry.message for entry in routed.rejected]] = True
        stored = (written.new_values > 0) & ~rejected
        positions = {name: position for position, name in enumerate(dict.fromkeys(names))}
        tenants = np.fromiter(map(positions.__getitem__, names), np.int64, len(names))
        for counter, amounts in (
            (metrics.RECEIVED, np.bincount(tenants)),
            (metrics.STORED, np.bincount(tenants, stored)),
            (metrics.DUPLICATE, np.bincount(tenants, ~stored & ~rejected)),
            (metrics.VALUES, np.bincount(tenants, written.new_values)),
        ):
            for tenant, amount in zip(positions, amounts.tolist(), strict=True):
                counter.labels(tenant).inc(amount)
        reasons = {entry.message: entry.reason for entry in routed.rejected}
        for (tenant, reason), number in Counter(
            (names[message], reason) for message, reason in reasons.items()
        ).items():
            metrics.DEAD_LETTERED.labels(tenant, reason).inc(number)

    async def _show(self, routed: Routed, written: Written) -> None:
        watched = self._feed.watched()
        if not watched:
            return
        readings: dict[str, list[live.Reading]] = {}
        for number in np.flatnonzero(written.new_values).tolist():
            device = routed.devices[number]
            if device is not None and device.tenant.name in watched:
                readings.setdefault(device.tenant.name, []).extend(
                    live.Reading(device.name, *reading) for reading in self._router.readings(routed.messages[number])
                )
        for tenant, tenant_readings in readings.items():
            await self._feed.publish(tenant, tenant_readings)


def _divided(messages: list[int], suspect: int | None, *, halving: bool) -> list[list[int]]:
    """Return the parts to try next: the suspect alone and the others; these in halves when they are known to be many."""
    parts = []
    if suspect in messages:
        parts.append([suspect])
        messages = [message for message in messages if message != suspect]
        if not halving:
            return [*parts, messages]
    middle = len(messages) // 2
    return [*parts, messages[:middle], messages[middle:]]
