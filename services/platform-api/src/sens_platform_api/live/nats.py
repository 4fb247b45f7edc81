"""Live data from core NATS: one subscription per tenant that somebody watches.

A slow reader loses its oldest waiting readings and is told how many; nothing waits for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from sens_common import live
from sens_common.attempts import Attempts
from sens_common.errors import SchemaError, UnavailableError, words_of
from sens_common.health import Problems
from sens_common.jetstream import flush_all
from sens_common.names import LIVE_INTEREST_SUBJECT
from sens_platform_api import metrics
from sens_platform_api.caller import Caller
from sens_platform_api.errors import TooManyReadersError, TooSlowError
from sens_platform_api.live import schemas
from sens_platform_api.live.meanings import StoredMeanings, TenantMeanings
from sens_platform_api.live.reader import Reader, RenderedReading
from sens_platform_api.settings import LimitSettings

log = structlog.get_logger()

INTEREST_INTERVAL_SECONDS: Final = 5.0
"""Three times as often as the workers need it (`sens_common.live.INTEREST_SECONDS`)."""
PENDING_BYTES: Final = 16 << 20
"""Bytes of one tenant's messages that may wait to be decoded; NATS' client drops further ones and reports it."""


class _Channel:
    """A tenant's readers and the subscription that feeds them."""

    def __init__(self, tenant: str, meanings: TenantMeanings) -> None:
        self.tenant = tenant
        self._meanings = meanings
        self.readers: set[Reader] = set()
        self.subscription: Subscription | None = None
        self.interest: asyncio.Task[None] | None = None

    async def receive(self, message: Msg) -> None:
        try:
            readings = live.decode(message.data)
        except ValueError as error:
            log.warning("live message left out", error=str(error))
            return
        lost = live.dropped(message.headers)  # before these; their devices are unknown
        events: list[RenderedReading] = []
        try:
            events = list(map(schemas.render, readings, await self._meanings.of(readings)))
        except (UnavailableError, SchemaError, TooSlowError) as error:  # better none than wrong ones
            log.warning("live readings are left out, for it can't be known what they mean", error=str(error))
            lost += len(readings)
        for reader in self.readers:
            if lost:
                reader.lose(lost)
            reader.give(events)


class NatsLive:
    """Connects readers with the live data of their tenants.

    Attributes:
        reader_count: Readers of all tenants.
    """

    def __init__(self, client: Client, limits: LimitSettings, meanings: StoredMeanings) -> None:
        self._client = client
        self._limits = limits
        self._meanings = meanings
        self._channels: dict[str, _Channel] = {}
        self._lock = asyncio.Lock()
        self._closed = False
        self._problems = Problems("live")
        self.reader_count = 0

    def _reader_bytes(self) -> int:
        """Return how much may wait for one reader: its part of what may wait for all."""
        return min(self._limits.live_bytes, self._limits.live_total_bytes // max(1, self.reader_count))

    @contextlib.asynccontextmanager
    async def reader(
        self, caller: Caller, devices: frozenset[str], *, as_stored: bool = False
    ) -> AsyncIterator[Reader]:
        """Keep a reader connected while the context is open.

        Args:
            caller: Of the tenant whose readings it gets.
            devices: Canonical names of the devices whose readings it gets; none means all.
            as_stored: Whether values come as they are stored, without calibrations.

        Raises:
            TooManyReadersError: As many are connected as there may be.
            UnavailableError: NATS can't be used.
        """
        reader = Reader(devices, self._reader_bytes, as_stored=as_stored)
        async with self._lock:
            await self._join(caller, reader)
        metrics.LIVE_READERS.inc()
        try:
            yield reader
        finally:
            metrics.LIVE_READERS.dec()
            await asyncio.shield(self._leave(caller.tenant, reader))

    def close(self) -> None:
        """End all streams, and take no new readers."""
        self._closed = True
        for channel in self._channels.values():
            for reader in channel.readers:
                reader.close()

    async def _join(self, caller: Caller, reader: Reader) -> None:
        if self._closed or not self._client.is_connected:
            raise UnavailableError("live data need NATS, which can't be reached")
        channel = self._channels.get(caller.tenant)
        if self.reader_count >= self._limits.live_readers or (
            channel is not None and len(channel.readers) >= self._limits.live_readers_per_tenant
        ):
            raise TooManyReadersError("as many readers watch live data as there may be; try again later")
        if channel is None:
            channel = _Channel(caller.tenant, TenantMeanings(self._meanings, caller.tenant_id))
            await self._open(channel)
            self._channels[caller.tenant] = channel
        channel.readers.add(reader)
        self.reader_count += 1

    async def _open(self, channel: _Channel) -> None:
        try:
            channel.subscription = await self._client.subscribe(
                live.subject(channel.tenant), cb=channel.receive, pending_bytes_limit=PENDING_BYTES
            )
            await flush_all(self._client, 5)  # from here on nothing that is published is missed
        except (NatsError, TimeoutError, OSError) as error:
            if channel.subscription is not None:
                await _unsubscribe(channel.subscription)
            raise UnavailableError(f"live data need NATS: {words_of(error)}") from error
        channel.interest = asyncio.create_task(
            self._publish_interest(channel.tenant), name=f"live interest of {channel.tenant}"
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

    async def _publish_interest(self, tenant: str) -> None:
        attempts = Attempts(
            self._problems,
            tenant,
            "interest in live data can't be published",
            retry_on=(NatsError, OSError),
            interval_seconds=INTEREST_INTERVAL_SECONDS,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    await self._client.publish(LIVE_INTEREST_SUBJECT, tenant.encode())
        finally:
            self._problems.clear(tenant)


async def _unsubscribe(subscription: Subscription) -> None:
    with contextlib.suppress(NatsError, OSError):
        await subscription.unsubscribe()
