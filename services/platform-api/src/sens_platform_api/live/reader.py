"""One reader's queue of live events."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from sens_platform_api import metrics

TAKE_BYTES: Final = 65_536
"""A reader takes about so much at once; the rest stays in its queue, where it is counted."""

_EVENT_OVERHEAD = 41
"""Bytes of an event beside its text: the bytes object and its reference in the queue (CPython, 64 bit)."""


class RenderedReading(NamedTuple):
    """A reading on its way to readers, who share its texts.

    Attributes:
        device: Whose.
        text: With the value as it is read.
        stored: With the value as it is stored.
    """

    device: str
    text: bytes
    stored: bytes


class TakenEvents(NamedTuple):
    """Events that a reader takes together.

    Attributes:
        events: Texts, in the order in which they came.
        dropped: Number of readings that were lost before these because the reader was slow.
    """

    events: list[bytes]
    dropped: int


class Reader:
    """One reader's queue, bounded in bytes: beyond the bound the oldest events are dropped, and `take` says how many."""

    def __init__(self, devices: frozenset[str], most_bytes: Callable[[], int], *, as_stored: bool = False) -> None:
        self._devices = devices
        self._most_bytes = most_bytes
        self._as_stored = as_stored
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._news = asyncio.Event()
        self.closed = False

    def give(self, events: list[RenderedReading]) -> None:
        """Put those that the reader wants into its queue; never waits."""
        for event in events:
            if not self._devices or event.device in self._devices:
                text = event.stored if self._as_stored else event.text
                self._queue.append(text)
                self._bytes += len(text) + _EVENT_OVERHEAD
        most, dropped = self._most_bytes(), 0
        while self._bytes > most:
            self._bytes -= len(self._queue.popleft()) + _EVENT_OVERHEAD
            dropped += 1
        if dropped:
            self.lose(dropped)
        if self._queue or self._dropped:
            self._news.set()

    def lose(self, count: int) -> None:
        """Note readings that the reader will not get, so that it is told."""
        self._dropped += count
        metrics.LIVE_DROPPED.inc(count)
        self._news.set()

    def close(self) -> None:
        """End the reader's stream."""
        self.closed = True
        self._news.set()

    async def take(self, seconds: float) -> TakenEvents:
        """Return the events that wait, or those that come within the time; none when none does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        events, size = [], 0
        while self._queue and size < TAKE_BYTES:
            text = self._queue.popleft()
            size += len(text)
            events.append(text)
        self._bytes -= size + len(events) * _EVENT_OVERHEAD
        taken = TakenEvents(events, self._dropped)
        self._dropped = 0
        if not self.closed and not self._queue:
            self._news.clear()
        return taken
