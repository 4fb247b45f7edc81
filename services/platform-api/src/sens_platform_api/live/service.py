"""Live data: one NATS subscription per tenant that somebody watches, and a bounded queue per reader.

A slow reader loses its oldest waiting readings and is told how many; nothing waits for it.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from sens_common import live
from sens_common.errors import UnavailableError
from sens_common.names import LIVE_INTEREST_SUBJECT
from sens_platform_api import metrics
from sens_platform_api.errors import TooManyReadersError
from sens_platform_api.live import schemas
from sens_platform_api.settings import LimitSettings

log = structlog.get_logger()

INTEREST_INTERVAL_SECONDS: Final = 5.0
"""Three times as often as the workers need it (`sens_common.live.INTEREST_SECONDS`)."""
CHECK_INTERVAL_SECONDS: Final = 2.0
"""How often a reader's key is looked at; a revoked key's streams end within about two of these."""
KEEP_ALIVE_SECONDS: Final = 12.0
"""Silence after which a comment is sent, so that proxies do not take the connection for dead."""
TAKE_BYTES: Final = 65_536
"""A reader takes about so much at once; the rest stays in its queue, where it is counted."""

PENDING_BYTES: Final = 16 << 20
"""What may wait for this process to look at it, of one tenant; NATS' client drops what is more and reports it."""

_EVENT_OVERHEAD = 41
"""What an event takes beside its text: the bytes object and its place in the queue (CPython, 64 bit)."""


class Event(NamedTuple):
    """A reading on its way to readers; they share its text."""

    device: str
    text: bytes


class Batch(NamedTuple):
    """What a reader gets at once.

    Attributes:
        events: Texts, in the order in which they came.
        dropped: How many were lost before these because the reader was slow.
    """

    events: list[bytes]
    dropped: int


class Reader:
    """One reader's queue, bounded in bytes: what is too much drops the oldest, and `take` says how many."""

    def __init__(self, devices: frozenset[str], most_bytes: Callable[[], int]) -> None:
        self._devices = devices
        self._most_bytes = most_bytes
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._news = asyncio.Event()
        self.closed = False

    def give(self, events: list[Event]) -> None:
        """Put those that the reader wants into its queue; never waits."""
        for event in events:
            if not self._devices or event.device in self._devices:
                self._queue.append(event.text)
                self._bytes += len(event.text) + _EVENT_OVERHEAD
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

    async def take(self, seconds: float) -> Batch:
        """Return what waits in the queue, or what comes within the time; an empty batch when nothing does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        events, size = [], 0
        while self._queue and size < TAKE_BYTES:
            text = self._queue.popleft()
            size += len(text)
            events.append(text)
        self._bytes -= size + len(events) * _EVENT_OVERHEAD
        batch = Batch(events, self._dropped)
        self._dropped = 0
        if not self.closed and not self._queue:
            self._news.clear()
        return batch


class _Channel:
    """A tenant's readers and what feeds them."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.readers: set[Reader] = set()
        self.subscription: Subscription | None = None
        self.interest: asyncio.Task[None] | None = None

    async def receive(self, message: Msg) -> None:
        try:
            readings = live.decode(message.data)
        except ValueError as error:
            log.warning("live message left out", error=str(error))
            return
        events = [Event(reading.device, schemas.render_reading(reading)) for reading in readings]
        lost = live.dropped(message.headers)  # before these; of which devices nobody knows
        for reader in self.readers:
            if lost:
                reader.lose(lost)
            reader.give(events)


class LiveHub:
    """Connects readers with the live data of their tenants.

    Attributes:
        reader_count: Readers of all tenants.
    """

    def __init__(self, client: Client, limits: LimitSettings) -> None:
        self._client = client
        self._limits = limits
        self._channels: dict[str, _Channel] = {}
        self._lock = asyncio.Lock()
        self._closed = False
        self.reader_count = 0

    def _reader_bytes(self) -> int:
        """Return how much may wait for one reader: its part of what may wait for all."""
        return min(self._limits.live_bytes, self._limits.live_total_bytes // max(1, self.reader_count))

    @contextlib.asynccontextmanager
    async def reader(self, tenant: str, devices: frozenset[str]) -> AsyncIterator[Reader]:
        """Keep a reader connected while the context is open.

        Args:
            tenant: Whose readings.
            devices: Canonical names of the devices to see; none means all.

        Raises:
            TooManyReadersError: As many are connected as there may be.
            UnavailableError: NATS can't be used.
        """
        reader = Reader(devices, self._reader_bytes)
        async with self._lock:
            await self._join(tenant, reader)
        metrics.LIVE_READERS.inc()
        try:
            yield reader
        finally:
            metrics.LIVE_READERS.dec()
            await asyncio.shield(self._leave(tenant, reader))

    def close(self) -> None:
        """End all streams, and take no new readers."""
        self._closed = True
        for channel in self._channels.values():
            for reader in channel.readers:
                reader.close()

    async def _join(self, tenant: str, reader: Reader) -> None:
        if self._closed or not self._client.is_connected:
            raise UnavailableError("live data need NATS, which can't be reached")
        channel = self._channels.get(tenant)
        if self.reader_count >= self._limits.live_readers or (
            channel is not None and len(channel.readers) >= self._limits.live_readers_per_tenant
        ):
            metrics.REFUSED.labels("live_readers").inc()
            raise TooManyReadersError("as many readers watch live data as there may be; try again later")
        if channel is None:
            channel = _Channel(tenant)
            await self._open(channel)
            self._channels[tenant] = channel
        channel.readers.add(reader)
        self.reader_count += 1

    async def _open(self, channel: _Channel) -> None:
        try:
            channel.subscription = await self._client.subscribe(
                live.subject(channel.tenant), cb=channel.receive, pending_bytes_limit=PENDING_BYTES
            )
            await self._client.flush(5)  # from here on nothing that is published is missed
        except (NatsError, TimeoutError, OSError) as error:
            if channel.subscription is not None:
                await _unsubscribe(channel.subscription)
            raise UnavailableError(f"live data need NATS: {str(error) or 'no answer in time'}") from error
        channel.interest = asyncio.create_task(
            self._show_interest(channel.tenant), name=f"live interest of {channel.tenant}"
        )

    async def _leave(self, tenant: str, reader: Reader) -> None:
        async with self._lock:
            channel = self._channels[tenant]
            channel.readers.discard(reader)
            self.reader_count -= 1
            if channel.readers:
                return
            del self._channels[tenant]
            if channel.interest is not None:
                channel.interest.cancel()
            if channel.subscription is not None:
                await _unsubscribe(channel.subscription)

    async def _show_interest(self, tenant: str) -> None:
        while True:
            try:
                await self._client.publish(LIVE_INTEREST_SUBJECT, tenant.encode())
            except (NatsError, OSError) as error:
                log.warning("interest in live data can't be shown", error=str(error))
            await asyncio.sleep(INTEREST_INTERVAL_SECONDS)


async def _unsubscribe(subscription: Subscription) -> None:
    with contextlib.suppress(NatsError, OSError):
        await subscription.unsubscribe()


async def events(reader: Reader, check: Callable[[], Awaitable[bool]]) -> AsyncIterator[Batch | None]:
    """Yield what a reader gets, and None when it is time for a sign of life, until the reader is closed.

    Args:
        reader: Whose queue.
        check: Asked every `CHECK_INTERVAL_SECONDS` whether the reader may go on.
    """
    quiet_since = checked = time.monotonic()
    while not reader.closed:
        batch = await reader.take(CHECK_INTERVAL_SECONDS)
        now = time.monotonic()
        if now - checked >= CHECK_INTERVAL_SECONDS:
            if not await check():
                return
            checked = now
        if batch.events or batch.dropped:
            quiet_since = now
            yield batch
        elif now - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = now
            yield None
