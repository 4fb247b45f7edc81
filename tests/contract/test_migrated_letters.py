"""What the migration of former dead letters expects of where they go, held by the one in memory and by PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import asyncpg
import pytest

from sens_common.dead_letters import Origin, Reason
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.jetstream.dead_letter_migration import Destination
from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.migrated_letters import MigratedLetters
from support.memory import MemoryMigratedLetters
from support.servers import owner_pool

STREAM = 1_700_000_000_000_000
AT = 1_700_000_000_000_000


class Letters(Protocol):
    """Where letters go, and a look into it."""

    @property
    def destination(self) -> Destination: ...

    async def payloads(self) -> list[bytes]:
        """Return the payloads of the letters that are there, in order."""


class LettersInMemory:
    def __init__(self) -> None:
        self.destination = MemoryMigratedLetters({"demo": 1, "other": 2})

    async def payloads(self) -> list[bytes]:
        return sorted(letter.payload for letter in self.destination.letters.values())


class LettersInTheDatabase:
    def __init__(self, destination: Destination, owner: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.destination = destination
        self._owner = owner

    async def payloads(self) -> list[bytes]:
        return [row[0] for row in await self._owner.fetch("SELECT payload FROM sens.dead_letters ORDER BY payload")]


type Opener = Callable[[], AbstractAsyncContextManager[Letters]]


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open a place without letters, of the tenants demo and other."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Letters]:
            yield LettersInMemory()

        return open_memory
    settings: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Letters]:
        async with owner_pool(settings) as owner, open_pool(settings, "test") as pool:
            await owner.execute("INSERT INTO sens.tenants (name) VALUES ('demo'), ('other')")
            yield LettersInTheDatabase(MigratedLetters(Database(pool, settings)), owner)

    return open_database


def letter(payload: bytes, sequence: int, index: int = 0) -> Letter:
    return Letter(
        message_index=0,
        origin=Origin(STREAM - 1, sequence, index),
        tenant_id=0,
        device=None,
        topic="elsewhere",
        received_at=AT,
        dead_lettered_at=AT + 1,
        reason=Reason.INVALID_TOPIC,
        detail="no topic of a device",
        payload=payload,
        payload_bytes=len(payload),
        replays=0,
    )


class TestTenants:
    async def test_are_those_that_exist(self, opened: Opener) -> None:
        async with opened() as it:
            ids = await it.destination.tenant_ids(["demo", "nobody", "other"])
            assert ids.keys() == {"demo", "other"}
            assert ids["demo"] != ids["other"]
            assert await it.destination.tenant_ids([]) == {}


class TestLetters:
    async def test_are_written_and_counted(self, opened: Opener) -> None:
        async with opened() as it:
            assert (
                await it.destination.add(STREAM, {1: [letter(b"a", 1), letter(b"b", 1, 1)], 2: [letter(b"c", 2)]}) == 3
            )
            assert await it.payloads() == [b"a", b"b", b"c"]

    async def test_of_a_message_that_was_migrated_do_not_come_again(self, opened: Opener) -> None:
        async with opened() as it:
            await it.destination.add(STREAM, {1: [letter(b"a", 1)]})
            assert await it.destination.add(STREAM, {1: [letter(b"a", 1)], 2: [letter(b"b", 2)]}) == 1
            assert await it.payloads() == [b"a", b"b"]

    async def test_may_be_none_of_a_message(self, opened: Opener) -> None:
        async with opened() as it:
            assert await it.destination.add(STREAM, {1: []}) == 0
            assert await it.payloads() == []

    async def test_of_a_stream_that_was_made_again_are_migrated_once_more(self, opened: Opener) -> None:
        async with opened() as it:
            await it.destination.add(STREAM, {1: [letter(b"a", 1)]})
            await it.destination.finish(STREAM)
            assert await it.destination.add(STREAM, {1: [letter(b"b", 2)]}) == 1
            assert await it.payloads() == [b"a", b"b"]

    async def test_of_another_stream_are_other_letters(self, opened: Opener) -> None:
        async with opened() as it:
            await it.destination.add(STREAM, {1: [letter(b"a", 1)]})
            await it.destination.finish(STREAM + 1)
            assert await it.destination.add(STREAM, {1: [letter(b"a", 1)]}) == 0
            assert await it.destination.add(STREAM + 1, {1: [letter(b"b", 2)]}) == 1

    async def test_that_are_there_already_stay_as_they_are(self, opened: Opener) -> None:
        """One that somebody had replayed with the version before, for example."""
        async with opened() as it:
            await it.destination.add(STREAM, {1: [letter(b"a", 1)]})
            await it.destination.add(STREAM, {2: [letter(b"b", 1)]})
            assert await it.payloads() == [b"a"]
