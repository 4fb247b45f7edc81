"""What the telemetry worker expects of the way to those who watch, held by the one in memory and by NATS."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sens_common import live
from sens_common.jetstream import connect, flush_all
from sens_common.live import LiveReading
from sens_common.names import LIVE_INTEREST_SUBJECT
from sens_common.settings import NatsSettings
from sens_telemetry_worker.live import LiveFeed
from sens_telemetry_worker.nats_live import NatsLiveFeed
from support.memory import MemoryFeed
from support.servers import eventually

TENANTS = ("acme", "demo")
EVERY_KIND = [
    LiveReading("d1", "t", 1_700_000_000_000_000, 21.5),
    LiveReading("d1", "door", 0, True),
    LiveReading("d2", "s", 1, "ö"),
]


class Watched(Protocol):
    """A feed, and who watches its tenants."""

    @property
    def feed(self) -> LiveFeed: ...

    async def watch(self, tenant: str) -> None:
        """Say that somebody watches the tenant."""

    async def seen(self, tenant: str, count: int) -> list[LiveReading]:
        """Return the readings of a tenant that whoever watches it has got, when there are so many."""


class WatchedMemory:
    def __init__(self) -> None:
        self._tenants: set[str] = set()
        self.feed = MemoryFeed(self._tenants)

    async def watch(self, tenant: str) -> None:
        self._tenants.add(tenant)

    async def seen(self, tenant: str, count: int) -> list[LiveReading]:  # noqa: ARG002 - it waits for none
        return [reading for name, reading in self.feed.readings if name == tenant]


class WatchedNats:
    def __init__(self, reader: Client, worker: Client) -> None:
        self._reader = reader
        self._seen: dict[str, list[LiveReading]] = {tenant: [] for tenant in TENANTS}
        self.feed = NatsLiveFeed(worker)

    async def subscribe(self) -> None:
        """Read what there is of both tenants."""

        def note(tenant: str) -> Callable[[Msg], Awaitable[None]]:
            async def read(message: Msg) -> None:
                self._seen[tenant] += live.decode(message.data)

            return read

        for tenant in TENANTS:
            await self._reader.subscribe(live.subject(tenant), cb=note(tenant))
        await flush_all(self._reader)

    async def watch(self, tenant: str) -> None:
        async def is_known() -> bool:
            await self._reader.publish(LIVE_INTEREST_SUBJECT, tenant.encode())
            await flush_all(self._reader)
            return tenant in self.feed.watched()

        await eventually(is_known, f"the feed knows that {tenant} is watched")

    async def seen(self, tenant: str, count: int) -> list[LiveReading]:
        async def are_there() -> bool:
            return len(self._seen[tenant]) >= count

        await eventually(are_there, f"{count} readings of {tenant} have come")
        return self._seen[tenant]


type Opener = Callable[[], AbstractAsyncContextManager[Watched]]


@pytest.fixture(params=["memory", "nats"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Watched]:
            yield WatchedMemory()

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_nats() -> AsyncIterator[Watched]:
        async with connect(settings, "reader") as reader, connect(settings, "worker") as worker:
            watched = WatchedNats(reader, worker)
            await watched.subscribe()
            async with watched.feed.open():
                await flush_all(worker)
                yield watched

    return open_nats


class TestWatched:
    async def test_is_nobody_at_first(self, opened: Opener) -> None:
        async with opened() as it:
            assert it.feed.watched() == set()

    async def test_are_those_of_whom_somebody_has_said_it(self, opened: Opener) -> None:
        async with opened() as it:
            await it.watch("demo")
            assert it.feed.watched() == {"demo"}
            await it.watch("acme")
            assert it.feed.watched() == {"acme", "demo"}


class TestReadings:
    async def test_of_every_kind_come_as_they_are_and_in_order(self, opened: Opener) -> None:
        async with opened() as it:
            await it.watch("demo")
            await it.feed.publish("demo", EVERY_KIND[:2])
            await it.feed.publish("demo", EVERY_KIND[2:])
            assert await it.seen("demo", 3) == EVERY_KIND

    async def test_of_one_tenant_are_not_shown_to_those_who_watch_another_one(self, opened: Opener) -> None:
        async with opened() as it:
            await it.watch("demo")
            await it.watch("acme")
            await it.feed.publish("acme", EVERY_KIND[:1])
            await it.feed.publish("demo", EVERY_KIND[1:])
            assert (await it.seen("acme", 1), await it.seen("demo", 2)) == (EVERY_KIND[:1], EVERY_KIND[1:])

    async def test_may_be_none(self, opened: Opener) -> None:
        async with opened() as it:
            await it.feed.publish("demo", [])
            await it.feed.publish("demo", EVERY_KIND[:1])
            assert await it.seen("demo", 1) == EVERY_KIND[:1]
