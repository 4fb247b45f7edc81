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
from sens_common.live import Reading
from sens_common.names import LIVE_INTEREST_SUBJECT
from sens_platform_api import metrics
from sens_platform_api.errors import TooManyReadersError
from sens_platform_api.settings import LimitSettings

log = structlog.get_logger()

INTEREST_INTERVAL_SECONDS: Final = 5.0
"""Three times as often as the workers need it (`sens_common.live.INTEREST_SECONDS`)."""
CHECK_INTERVAL_SECONDS: Final = 2.0
"""How often a reader's key is looked at; a revoked key's streams end within about two of these."""
KEEP_ALIVE_SECONDS: Final = 12.0
"""Silence after which a comment is sent, so that proxies do not take the connection for dead."""


class Batch(NamedTuple):
    """What a reader gets at once.

    Attributes:
        readings: In the order in which they came.
        dropped: How many were lost before these because the reader was slow.
    """

    readings: list[Reading]
    dropped: int


class Reader:
    """One reader's queue."""

    def __init__(self, devices: frozenset[str], size: int) -> None:
        self._devices = devices
        self._queue: deque[Reading] = deque(maxlen=size)
        self._dropped = 0
        self._news = asyncio.Event()
        self.closed = False

    def give(self, readings: list[Reading]) -> None:
        """Put those that the reader wants into its queue; never waits."""
        for reading in readings:
            if self._devices and reading.device not in self._devices:
                continue
            if len(self._queue) == self._queue.maxlen:
                self._dropped += 1
                metrics.LIVE_DROPPED.inc()
            self._queue.append(reading)
            self._news.set()

    def close(self) -> None:
        """End the reader's stream."""
        self.closed = True
        self._news.set()

    async def take(self, seconds: float) -> Batch:
        """Return what waits in the queue, or what comes within the time; an empty batch when nothing does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        if not self.closed:
            self._news.clear()
        batch = Batch(list(self._queue), self._dropped)
        self._queue.clear()
        self._dropped = 0
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
        for reader in self.readers:
            reader.give(readings)


class LiveHub:
    """Connects readers with the live data of their tenants."""

    def __init__(self, client: Client, limits: LimitSettings) -> None:
        self._client = client
        self._limits = limits
        self._channels: dict[str, _Channel] = {}
        self._lock = asyncio.Lock()
        self._closed = False

    @property
    def reader_count(self) -> int:
        """Readers of all tenants."""
        return sum(len(channel.readers) for channel in self._channels.values())

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
        reader = Reader(devices, self._limits.live_queue)
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
            raise TooManyReadersError("as many readers watch live data as there may be; try again later")
        if channel is None:
            channel = _Channel(tenant)
            await self._open(channel)
            self._channels[tenant] = channel
        channel.readers.add(reader)

    async def _open(self, channel: _Channel) -> None:
        try:
            channel.subscription = await self._client.subscribe(live.subject(channel.tenant), cb=channel.receive)
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
        if batch.readings or batch.dropped:
            quiet_since = now
            yield batch
        elif now - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = now
            yield None
