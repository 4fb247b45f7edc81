"""The API's ports to NATS in memory: limits that are published, messages that are replayed, and live data."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.errors import UnavailableError
from sens_common.live import LiveReading
from sens_common.tenant_limits import TenantLimits
from sens_platform_api.caller import Caller
from sens_platform_api.dead_letters.repository import StoredDeadLetter
from sens_platform_api.errors import TooManyReadersError
from sens_platform_api.live.meanings import NO_MEANING
from sens_platform_api.live.reader import Reader
from sens_platform_api.live.schemas import render
from sens_platform_api.settings import LimitSettings

_AWAY = UnavailableError("there is no NATS")


class MemoryPublishedLimits:
    """Limits as ingestion workers see them, as `tenants.service.PublishedLimits`.

    Attributes:
        limits: By tenant.
        is_away: Whether they can't be published.
    """

    def __init__(self, limits: dict[str, TenantLimits]) -> None:
        self.limits = limits
        self.is_away = False

    async def bring_to(self, limits: dict[str, TenantLimits]) -> int:
        if self.is_away:
            raise _AWAY
        different = {tenant for tenant in limits | self.limits if limits.get(tenant) != self.limits.get(tenant)}
        self.limits.clear()
        self.limits |= limits
        return len(different)


class Replayed(NamedTuple):
    """A message that was published again: its origin, how often it was replayed, and itself."""

    origin: Origin
    replays: int
    message: Message


class MemoryEnvelopes:
    """A stream of envelopes to which dead letters are replayed, as `dead_letters.service.Stream`.

    Attributes:
        replayed: In the order in which they came first.
        is_away: Whether the stream can't be used.
    """

    def __init__(self, created_at: int, envelopes: Mapping[int, Sequence[Message]]) -> None:
        self._created_at = created_at
        self._envelopes = envelopes
        self.replayed: list[Replayed] = []
        self.is_away = False

    async def publish(self, letters: Sequence[StoredDeadLetter]) -> None:
        if self.is_away:
            raise _AWAY
        for letter in letters:
            summary = letter.summary
            received_at = int(summary.received_at.timestamp()) * 1_000_000 + summary.received_at.microsecond
            message = Message(summary.topic, letter.payload, received_at)
            replayed = Replayed(letter.origin, summary.replays + 1, message)
            if replayed not in self.replayed:
                self.replayed.append(replayed)

    async def whole(self, letter: StoredDeadLetter) -> StoredDeadLetter | None:
        if self.is_away:
            raise _AWAY
        created_at, sequence, index = letter.origin
        messages = self._envelopes.get(sequence, ())
        if created_at != self._created_at or index >= len(messages):
            return None
        payload = messages[index].payload
        return letter._replace(payload=payload) if len(payload) == letter.summary.payload_bytes else None


class MemoryLive:
    """Live data of all tenants, as `live.service.Live`."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._readers: defaultdict[str, list[Reader]] = defaultdict(list)

    @contextlib.asynccontextmanager
    async def reader(
        self, caller: Caller, devices: frozenset[str], *, as_stored: bool = False
    ) -> AsyncIterator[Reader]:
        of_tenant = self._readers[caller.tenant]
        if (
            sum(map(len, self._readers.values())) >= self._limits.live_readers
            or len(of_tenant) >= self._limits.live_readers_per_tenant
        ):
            raise TooManyReadersError("as many readers watch live data as there may be; try again later")
        reader = Reader(devices, lambda: self._limits.live_bytes, as_stored=as_stored)
        of_tenant.append(reader)
        try:
            yield reader
        finally:
            of_tenant.remove(reader)

    def publish(self, tenant: str, readings: Sequence[LiveReading]) -> None:
        """Give readings to those who watch."""
        for reader in self._readers[tenant]:
            reader.give([render(reading, NO_MEANING) for reading in readings])
