"""From the log to the database: take, route, store, acknowledge. The order is the promise.

An envelope is acknowledged to the log only after the transactions are committed that hold all that it leads to: rows, dead letters, counts.
Whatever is cut short before that comes again, and storing it again has no effect.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from sens_common import live
from sens_common.health import Problems
from sens_common.stopping import wait_or_stop
from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import Batch, Entry, Envelope
from sens_telemetry_worker.flow import Flow, Lane, State
from sens_telemetry_worker.guard import DeadLetterGuard, counts, judged
from sens_telemetry_worker.routing import Routed, Router
from sens_telemetry_worker.storing import (
    RowsRefusedError,
    SettledElsewhereError,
    Store,
    StoreUnavailableError,
    Storing,
    Written,
)

log = structlog.get_logger()

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 10.0


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

    async def postpone(self, entries: list[E]) -> None:
        """Give the envelopes back, to be taken again in a while."""


class Settled(Enum):
    """What became of a batch."""

    DONE = "done"
    POSTPONED = "postponed"
    """The guard does not allow it now."""
    STOPPED = "stopped"
    """The stop came first."""


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
        self, inbox: Inbox[E], *, router: Router, store: Store, feed: LiveFeed, guard: DeadLetterGuard, flow: Flow
    ) -> None:
        self._inbox = inbox
        self._router = router
        self._store = store
        self._feed = feed
        self._guard = guard
        self._flow = flow
        self._rejected_share = 0.0
        self.problems = Problems("store")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop; the batch under way is finished."""
        lane = self._flow.lane()
        while not stop.is_set():
            # A worker that has stopped still looks at what comes: a tenant whose messages pass lets it go on.
            lane.enter(State.TAKING if self._guard.problem is None else State.HALTED)
            entries = await self._inbox.take(stop, rejected_share=self._rejected_share)
            if not entries:
                continue
            # One that was given out again while it waited here comes twice at once; both deliveries are acknowledged.
            envelopes = {entry.place: Envelope.of(entry) for entry in entries}
            async with self._inbox.holding(entries):
                settled = await self._settle(list(envelopes.values()), stop, lane)
                if settled is Settled.DONE:
                    lane.enter(State.ACKNOWLEDGING)
                    await self._inbox.acknowledge(entries)
            if settled is Settled.POSTPONED:
                await self._inbox.postpone(entries)

    async def _settle(self, envelopes: list[Envelope], stop: asyncio.Event, lane: Lane) -> Settled:
        """Store a batch, again and again while the database is not available."""
        retry_seconds = FIRST_RETRY_SECONDS
        started = time.perf_counter()
        is_judged = is_allowed = False
        while not (batch := Batch(envelopes)).is_done:
            if self._guard.problem is None:
                lane.enter(State.STORING)
            try:
                routed = await self._router.route(batch.messages)
                batch.take(routed, await self._router.tenant_ids(batch.names(routed)))
                if not is_judged:
                    self._judge(routed)
                    is_judged = True
                is_allowed = is_allowed or self._allowed()
                if not is_allowed:
                    return Settled.POSTPONED
                lane.enter(State.STORING)
                await self._store_once(batch, routed, lane)
            except SettledElsewhereError as error:
                log.info("some of it is settled already", envelopes=len(error.recorded))
                for envelope in envelopes:
                    if envelope.entry.place in error.recorded:
                        envelope.learn(error.recorded[envelope.entry.place])
            except (StoreUnavailableError, RowsRefusedError) as error:
                self._trouble(lane, str(error))
                log.warning("the database does not store; trying again", error=str(error), messages=len(batch.messages))
                if await wait_or_stop(stop, retry_seconds):
                    return Settled.STOPPED
                retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)
        self.problems.clear(lane.name)
        self._flow.stored()
        metrics.STORE_SECONDS.observe(time.perf_counter() - started)
        return Settled.DONE

    def _trouble(self, lane: Lane, problem: str) -> None:
        self.problems.set(lane.name, problem)
        metrics.STORE_RETRIES.inc()

    def _judge(self, routed: Routed) -> None:
        """Let the guard know what a batch is like."""
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

    def _allowed(self) -> bool:
        """Ask the guard whether a batch may be settled."""
        stopped = self._guard.problem is not None
        allowed = self._guard.allows()
        if self._guard.problem is not None and not stopped:
            log.error("every tenant's messages would be dead-lettered", problem=self._guard.problem)
        elif self._guard.problem is None and stopped:
            log.info("a tenant's messages can be stored again")
        return allowed

    async def _store_once(self, batch: Batch, routed: Routed, lane: Lane) -> None:
        """Store what is left of a batch.

        Raises:
            StoreUnavailableError: Try what is left again.
            SettledElsewhereError: Less is left than it seems.
        """
        new_values = np.zeros(len(batch.messages), np.int64)
        parts: list[Written] = []

        def take(written: Written) -> None:
            np.add(new_values, written.new_values, out=new_values)
            parts.append(written)
            self._count(batch, written)

        storing = Storing(self._store, batch, routed, written=take, slow=lambda problem: self._trouble(lane, problem))
        try:
            await storing.store()
        finally:
            self._judge_late(batch, routed, parts)
            await self._show(routed, new_values)
        if batch.messages:
            metrics.VISIBLE_SECONDS.observe(max(0.0, time.time() - min(m.received_at for m in batch.messages) / 1e6))
            rejected = sum(len(written.letters) + len(written.discarded) for written in parts)
            self._rejected_share = rejected / len(batch.messages)

    def _judge_late(self, batch: Batch, routed: Routed, parts: Sequence[Written]) -> None:
        """Let the guard know what only the database has rejected."""
        known = {rejected.message for rejected in routed.rejected}
        late = [
            letter
            for written in parts
            for letter in (*written.letters, *written.discarded)
            if letter.message not in known and counts(letter.reason)
        ]
        if late:
            names = {letter.topic: batch.tenant_names[letter.tenant_id] for letter in late}
            self._guard.note(judged((), (letter.topic for letter in late), names))

    def _count(self, batch: Batch, written: Written) -> None:
        names = batch.tenant_names
        for each in written.record.counts:
            tenant = names[each.tenant_id]
            metrics.RECEIVED.labels(tenant).inc(each.received)
            metrics.STORED.labels(tenant).inc(each.stored)
            metrics.DUPLICATE.labels(tenant).inc(each.duplicate)
            metrics.DISCARDED.labels(tenant).inc(each.discarded)
        for tenant_id, values in batch.by_tenant(written.new_values).items():
            metrics.VALUES.labels(names[tenant_id]).inc(values)
        reasons = Counter((names[letter.tenant_id], letter.reason) for letter in written.letters)
        for (tenant, reason), number in reasons.items():
            metrics.DEAD_LETTERED.labels(tenant, reason).inc(number)

    async def _show(self, routed: Routed, new_values: NDArray[np.int64]) -> None:
        watched = self._feed.watched()
        if not watched:
            return
        readings: dict[str, list[live.Reading]] = {}
        for number in np.flatnonzero(new_values).tolist():
            device = routed.devices[number]
            if device is not None and device.tenant.name in watched:
                readings.setdefault(device.tenant.name, []).extend(
                    live.Reading(device.name, *reading) for reading in self._router.readings(routed.messages[number])
                )
        for tenant, tenant_readings in readings.items():
            await self._feed.publish(tenant, tenant_readings)
