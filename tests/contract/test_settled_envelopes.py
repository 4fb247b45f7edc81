"""What trimming the stream expects of the memory of settled envelopes, held by the one in memory and by PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import asyncpg
import pytest

from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.batch import StreamPosition
from sens_telemetry_worker.jetstream.trimming import SettledEnvelopes
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.timescale.bookkeeping import Bookkeeping
from sens_telemetry_worker.timescale.database import Database, open_pool
from support.memory import MemoryStore
from support.servers import owner_pool

STREAM = 1_700_000_000_000_000
SETTLED = [StreamPosition(STREAM, sequence) for sequence in (1, 2, 3, 7)]
OTHERS = [StreamPosition(STREAM - 1, 99), StreamPosition(STREAM + 1, 1)]


class Remembered(Protocol):
    """The memory, and a look into it."""

    @property
    def envelopes(self) -> SettledEnvelopes: ...

    async def settled(self) -> Collection[StreamPosition]:
        """Return what it remembers."""


class RememberedInMemory:
    def __init__(self) -> None:
        self.envelopes = MemoryStore()
        self.envelopes.settled = dict.fromkeys([*SETTLED, *OTHERS])

    async def settled(self) -> Collection[StreamPosition]:
        return self.envelopes.settled


class RememberedInTheDatabase:
    def __init__(self, envelopes: SettledEnvelopes, owner: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.envelopes = envelopes
        self._owner = owner

    async def settled(self) -> Collection[StreamPosition]:
        return [StreamPosition(*row) for row in await self._owner.fetch("SELECT stream, sequence FROM sens.settled")]


type Opener = Callable[[], AbstractAsyncContextManager[Remembered]]


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open a memory of `SETTLED` and `OTHERS`."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Remembered]:
            yield RememberedInMemory()

        return open_memory
    settings: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Remembered]:
        async with owner_pool(settings) as owner, open_pool(settings, "test") as pool:
            await owner.executemany(
                "INSERT INTO sens.settled (stream, sequence) VALUES ($1, $2)",
                [tuple(each) for each in SETTLED + OTHERS],
            )
            books = Bookkeeping(Database(pool, settings), Quota(1, 1, 0, 0), lambda _tenants: None)
            yield RememberedInTheDatabase(books, owner)

    return open_database


class TestForgetting:
    async def test_keeps_what_the_stream_still_has(self, opened: Opener) -> None:
        async with opened() as it:
            await it.envelopes.forget_before(STREAM, 3)
            assert sorted(await it.settled()) == SETTLED[2:]

    async def test_twice_has_no_effect(self, opened: Opener) -> None:
        async with opened() as it:
            await it.envelopes.forget_before(STREAM, 3)
            await it.envelopes.forget_before(STREAM, 3)
            await it.envelopes.forget_before(STREAM, 2)
            assert sorted(await it.settled()) == SETTLED[2:]

    async def test_of_a_new_stream_forgets_all_of_the_one_before(self, opened: Opener) -> None:
        async with opened() as it:
            await it.envelopes.forget_before(STREAM + 2, 1)
            assert not await it.settled()
