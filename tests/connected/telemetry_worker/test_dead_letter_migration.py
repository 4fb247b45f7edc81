"""Dead letters of versions before 0.2, migrated from their stream into the database."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import NotFoundError

from sens_common.jetstream import connect
from sens_common.names import DEAD_LETTERS_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_telemetry_worker.jetstream.dead_letter_migration import DeadLetterMigration
from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.migrated_letters import MigratedLetters
from support.servers import owner_pool

TOPIC = "sens/v1/demo/d1/telemetry"
STREAM = 0xABC


def alone(number: int) -> dict[str, Any]:
    """Return a letter that was alone in its message."""
    return {
        "tenant": "demo",
        "device": "d1",
        "topic": TOPIC,
        "payload": b"%d" % number,
        "received_at": 1_700_000_000_000_000,
        "reason": "malformed_payload",
        "detail": "bad",
        "dead_lettered_at": 1_700_000_000_000_001,
        "replays": 2,
    }


def member(number: int, topic: str = TOPIC) -> list[Any]:
    """Return one that was together with others."""
    return [number, topic, b"%d" % number, 1_700_000_000_000_000, "malformed_payload", "bad", 1_700_000_000_000_001, 0]


@dataclass
class Old:
    """The stream of before and the database.

    Attributes:
        created: When the stream was made, microseconds since the epoch.
    """

    client: Client
    pool: "asyncpg.Pool[asyncpg.Record]"
    worker_pool: "asyncpg.Pool[asyncpg.Record]"
    destination: MigratedLetters
    created: int = 0

    async def make_stream(self) -> None:
        info = await self.client.jetstream().add_stream(
            StreamConfig(
                name=DEAD_LETTERS_STREAM,
                subjects=["sens.dead_letters.>"],
                discard=DiscardPolicy.NEW,
                discard_new_per_subject=True,
                max_msgs_per_subject=1,
            )
        )
        assert info.created is not None
        self.created = int(info.created.timestamp() * 1e6)

    async def put(self, token: str, body: object) -> None:
        payload = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        await self.client.jetstream().publish(f"sens.dead_letters.demo.{token}", payload)

    async def letters(self) -> list[tuple[int, int, int, bytes]]:
        rows = await self.pool.fetch(
            "SELECT stream, sequence, number, payload FROM sens.dead_letters ORDER BY payload, stream, sequence"
        )
        return [tuple(row) for row in rows]

    async def is_gone(self) -> bool:
        try:
            await self.client.jetstream().stream_info(DEAD_LETTERS_STREAM)
        except NotFoundError:
            return True
        return False


@asynccontextmanager
async def old(nats: NatsSettings, database: DatabaseSettings) -> AsyncIterator[Old]:
    async with (
        connect(nats, "test") as client,
        owner_pool(database) as pool,
        open_pool(database, "test") as worker_pool,
    ):
        await pool.execute("INSERT INTO sens.tenants (name) VALUES ('demo')")
        it = Old(client, pool, worker_pool, MigratedLetters(Database(worker_pool, database)))
        await it.make_stream()
        yield it


class TestMigration:
    async def test_keeps_where_each_message_came_from(self, nats: NatsSettings, database: DatabaseSettings) -> None:
        async with old(nats, database) as it:
            await it.put(f"{STREAM:x}-7-p0", [member(1), member(3, topic="elsewhere")])
            await it.put(f"{STREAM:x}-8-4", alone(4))
            await it.put(f"r{it.created:x}-2-5", alone(5))
            await it.put("s2-6", alone(6))
            await it.put("strange", b"\xff")
            assert await DeadLetterMigration(it.client.jetstream(), it.destination).migrate() == 6
            assert await it.letters() == [
                (STREAM, 7, 1, b"1"),
                (STREAM, 7, 3, b"3"),
                (STREAM, 8, 4, b"4"),
                (it.created, 2, 5, b"5"),
                (it.created, 2, 6, b"6"),
                (it.created, 5, 0, b"\xff"),
            ]
            owned = await it.pool.fetchval("SELECT count(*) FROM sens.dead_letters WHERE tenant_id IS NOT NULL")
            assert owned == 4
            replayed = await it.pool.fetchval("SELECT replays FROM sens.dead_letters WHERE payload = '4'")
            assert replayed == 2
            assert await it.is_gone()
            assert await it.pool.fetchval("SELECT count(*) FROM sens.settled") == 0
            assert await DeadLetterMigration(it.client.jetstream(), it.destination).migrate() == 0

    async def test_of_many_goes_in_several_steps(self, nats: NatsSettings, database: DatabaseSettings) -> None:
        async with old(nats, database) as it:
            for number in range(10):
                await it.put(f"{STREAM:x}-{number}-p0", [member(number)])
            migration = DeadLetterMigration(it.client.jetstream(), it.destination, messages_at_once=3)
            assert await migration.migrate() == 10
            assert len(await it.letters()) == 10


class KilledError(Exception):
    """What ends a migration in the middle."""


class Killed(MigratedLetters):
    """Ends after letters were added, or just before the end."""

    def __init__(self, database: Database, *, after_add: bool) -> None:
        super().__init__(database)
        self._after_add = after_add

    async def add(self, stream: int, messages: Mapping[int, list[Letter]]) -> int:
        added = await super().add(stream, messages)
        if self._after_add:
            raise KilledError
        return added

    async def finish(self, stream: int) -> None:  # noqa: ARG002 - the port's signature
        raise KilledError


class TestMigrationThatIsCutShort:
    @pytest.mark.parametrize("after_add", [True, False], ids=["before the stream forgets", "before the end"])
    async def test_brings_back_nothing_that_was_replayed_or_deleted_meanwhile(
        self, nats: NatsSettings, database: DatabaseSettings, after_add: bool
    ) -> None:
        async with old(nats, database) as it:
            for number in range(3):
                await it.put(f"{STREAM:x}-{number}-p0", [member(number)])
            killed = Killed(Database(it.worker_pool, database), after_add=after_add)
            with pytest.raises(KilledError):
                await DeadLetterMigration(it.client.jetstream(), killed).migrate()
            await it.pool.execute("DELETE FROM sens.dead_letters WHERE payload = '1'")
            await DeadLetterMigration(it.client.jetstream(), it.destination).migrate()
            assert [payload for *_, payload in await it.letters()] == [b"0", b"2"]
            assert await it.is_gone()

    async def test_by_two_workers_at_once_moves_each_letter_once(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        async with old(nats, database) as it:
            for number in range(50):
                await it.put(f"{STREAM:x}-{number}-p0", [member(number), member(number + 100)])
            migrations = [DeadLetterMigration(it.client.jetstream(), it.destination) for _ in range(2)]
            migrated: Sequence[int | BaseException] = await asyncio.gather(
                *(migration.migrate() for migration in migrations), return_exceptions=True
            )
            # One of them may find the stream gone.
            assert all(isinstance(each, int | NotFoundError) for each in migrated)
            assert len(await it.letters()) == 100
