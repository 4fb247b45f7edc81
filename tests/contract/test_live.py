"""What the API expects of where live data comes from, held by the one in memory and by NATS."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import pytest
from nats.aio.client import Client

from sens_common import live
from sens_common.jetstream import connect, flush_all
from sens_common.live import LiveReading
from sens_common.settings import NatsSettings
from sens_platform_api.caller import Caller
from sens_platform_api.errors import TooManyReadersError
from sens_platform_api.live.meanings import DeviceMeanings
from sens_platform_api.live.nats import NatsLive
from sens_platform_api.live.reader import Reader
from sens_platform_api.live.schemas import render_reading
from sens_platform_api.live.service import Live
from sens_platform_api.settings import LimitSettings
from support.memory_messaging import MemoryLive

ALL: frozenset[str] = frozenset()
LIMITS = LimitSettings(live_readers=3, live_readers_per_tenant=2)
READINGS = [
    LiveReading("d1", "t", 1_700_000_000_000_000, 21.5),
    LiveReading("d1", "door", 0, True),
    LiveReading("d2", "s", 1, "ö"),
    LiveReading("d3", "t", 2, 1.0),
]


class Watched(Protocol):
    """Live data, and a worker that publishes."""

    @property
    def live(self) -> Live: ...

    async def publish(self, tenant: str, readings: Sequence[LiveReading]) -> None:
        """Publish newly stored readings of a tenant."""


class WatchedInMemory:
    def __init__(self) -> None:
        self.live = MemoryLive(LIMITS)

    async def publish(self, tenant: str, readings: Sequence[LiveReading]) -> None:
        self.live.publish(tenant, readings)


class WatchedOverNats:
    def __init__(self, client: Client, worker: Client) -> None:
        self._worker = worker
        self.live = NatsLive(client, LIMITS, NoMeanings())

    async def publish(self, tenant: str, readings: Sequence[LiveReading]) -> None:
        await self._worker.publish(live.subject(tenant), live.encode(list(readings)))
        await flush_all(self._worker)


class NoMeanings:
    """A database without units and calibrations."""

    async def of_devices(self, _tenant_id: int, _devices: Collection[str]) -> dict[str, DeviceMeanings]:
        return {}


def caller(tenant: str) -> Caller:
    return Caller(1, 1, tenant)


type Opener = Callable[[], AbstractAsyncContextManager[Watched]]


@pytest.fixture(params=["memory", "nats"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Watched]:
            yield WatchedInMemory()

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_nats() -> AsyncIterator[Watched]:
        async with connect(settings, "api") as client, connect(settings, "worker") as worker:
            yield WatchedOverNats(client, worker)

    return open_nats


async def taken(reader: Reader, count: int) -> list[bytes]:
    """Return what the reader gets, when there is so much of it."""
    events: list[bytes] = []
    while len(events) < count:
        got = await reader.take(60)
        assert got.dropped == 0
        events += got.events
    return events


def texts(readings: Sequence[LiveReading]) -> list[bytes]:
    return [render_reading(reading) for reading in readings]


class TestReader:
    async def test_gets_every_kind_of_reading_in_order(self, opened: Opener) -> None:
        async with opened() as it, it.live.reader(caller("demo"), ALL) as reader:
            await it.publish("demo", READINGS[:3])
            await it.publish("demo", READINGS[3:])
            assert await taken(reader, 4) == texts(READINGS)

    async def test_gets_what_is_published_while_it_watches(self, opened: Opener) -> None:
        async with opened() as it:
            await it.publish("demo", READINGS[:1])
            async with it.live.reader(caller("demo"), ALL) as reader:
                await it.publish("demo", READINGS[1:2])
                assert await taken(reader, 1) == texts(READINGS[1:2])
            await it.publish("demo", READINGS[2:3])
            async with it.live.reader(caller("demo"), ALL) as reader:
                await it.publish("demo", READINGS[3:])
                assert await taken(reader, 1) == texts(READINGS[3:])

    async def test_gets_nothing_of_another_tenant(self, opened: Opener) -> None:
        async with (
            opened() as it,
            it.live.reader(caller("demo"), ALL) as reader,
            it.live.reader(caller("demo.x"), ALL) as other,
        ):
            await it.publish("demo.x", READINGS[:1])
            await it.publish("demo", READINGS[1:])
            assert (await taken(other, 1), await taken(reader, 3)) == (texts(READINGS[:1]), texts(READINGS[1:]))

    async def test_gets_the_devices_that_it_wants(self, opened: Opener) -> None:
        async with opened() as it, it.live.reader(caller("demo"), frozenset({"d1", "d3"})) as reader:
            await it.publish("demo", READINGS)
            assert await taken(reader, 3) == texts([each for each in READINGS if each.device != "d2"])

    async def test_gets_the_same_as_others_and_goes_on_when_they_leave(self, opened: Opener) -> None:
        async with opened() as it, it.live.reader(caller("demo"), ALL) as reader:
            async with it.live.reader(caller("demo"), ALL) as other:
                await it.publish("demo", READINGS[:2])
                assert await taken(other, 2) == texts(READINGS[:2])
            await it.publish("demo", READINGS[2:])
            assert await taken(reader, 4) == texts(READINGS)


class TestTooManyReaders:
    @pytest.mark.parametrize(("watching", "tenant"), [(("demo", "demo"), "demo"), (("demo", "demo", "other"), "other")])
    async def test_are_refused_until_one_leaves(self, opened: Opener, watching: Sequence[str], tenant: str) -> None:
        async with opened() as it, AsyncExitStack() as stack:
            for each in watching[1:]:
                await stack.enter_async_context(it.live.reader(caller(each), ALL))
            async with it.live.reader(caller(watching[0]), ALL):
                with pytest.raises(TooManyReadersError):
                    await stack.enter_async_context(it.live.reader(caller(tenant), ALL))
            reader = await stack.enter_async_context(it.live.reader(caller(tenant), ALL))
            await it.publish(tenant, READINGS[:1])
            assert await taken(reader, 1) == texts(READINGS[:1])

    async def test_of_one_tenant_leave_room_for_another_one(self, opened: Opener) -> None:
        async with (
            opened() as it,
            it.live.reader(caller("demo"), ALL),
            it.live.reader(caller("demo"), ALL),
            it.live.reader(caller("other"), ALL) as reader,
        ):
            await it.publish("other", READINGS)
            assert await taken(reader, 4) == texts(READINGS)
