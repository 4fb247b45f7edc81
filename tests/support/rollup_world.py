"""Everybody who changes readings and rollups, at the same time."""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from sens_common.database import connect
from sens_common.database_errors import DRIVER_ERRORS
from sens_common.logins import WORKER_ROLE
from sens_common.settings import DatabaseSettings
from support.rollups import DAY, HOUR, START, compare_answers, read_as_tenant, violations
from support.servers import owner

MINUTE: Final = timedelta(minutes=1)


@asynccontextmanager
async def worker(database: DatabaseSettings) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Connect as a telemetry worker."""
    connection = await connect(database, "test", role=WORKER_ROLE)
    try:
        yield connection
    finally:
        await connection.close()


class RollupWorld(ABC):
    """Writers, a deleter, refreshers that are killed, and an observer, at the same time. Its clock advances with each batch.

    Attributes:
        tenant: Whose devices 1 to 6 are.
        now: The clock.
        checks: How many snapshots were looked at.
        sources: What answers were made of.
    """

    tenant = "rolled"

    def __init__(self, database: DatabaseSettings, source: random.Random) -> None:
        self.now = START + 20 * HOUR
        self.checks = 0
        self.sources: list[str] = []
        self.database = database
        self.source = source
        self._working = 0

    async def run(self) -> None:
        """Let everybody work until the writers are done."""
        self._working = 3
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._working):
                tasks.create_task(self._write())
            tasks.create_task(self._delete())
            tasks.create_task(self._refresh())
            tasks.create_task(self._refresh())
            tasks.create_task(self._kill())
            tasks.create_task(self._observe())

    def time(self) -> datetime:
        """Return when something is measured: most of it now, some hours or days ago."""
        back = self.source.choice([20 * MINUTE, 20 * MINUTE, 3 * HOUR, 2 * DAY])
        return max(START - 2 * HOUR, self.now - back * self.source.random())

    @abstractmethod
    def writer(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Give what stores a batch."""

    async def _write(self) -> None:
        async with self.writer() as store_batch:
            for _ in range(60):
                self.now += 12 * MINUTE
                await store_batch()
        self._working -= 1

    async def _delete(self) -> None:
        async with owner(self.database) as connection:
            while self._working:
                device, first = self.source.randrange(1, 7), self.time()
                past = first + self.source.choice([MINUTE, HOUR, 5 * HOUR])
                async with connection.transaction():
                    # Whoever changes stored readings of a device locks it first.
                    await connection.execute("SELECT FROM sens.devices WHERE id = $1 FOR NO KEY UPDATE", device)
                    await connection.execute("SELECT sens.note_changed($1, $2, $3)", device, first, past)
                    await connection.execute(
                        self.source.choice(
                            [
                                "DELETE FROM sens.readings WHERE device_id = $1 AND ts >= $2 AND ts < $3",
                                "UPDATE sens.readings SET numbers[1] = NULL WHERE device_id = $1 AND ts >= $2 AND ts < $3",
                            ]
                        ),
                        device,
                        first,
                        past,
                    )

    async def _refresh(self) -> None:
        while self._working:
            with contextlib.suppress(*DRIVER_ERRORS):
                async with worker(self.database) as connection:
                    while self._working:
                        hours, devices = self.source.choice([1, 5, 24]), self.source.choice([1, 2, 4])
                        await connection.execute("SELECT sens.move_rollup_watermark($1)", self.now - 10 * MINUTE)
                        again = self.source.random() < 0.1
                        await connection.execute("SELECT sens.add_rollups($1, $2, $3)", devices, hours, again)
                        await connection.execute("SELECT sens.apply_rollup_changes($1, $2)", devices, hours)

    async def _kill(self) -> None:
        """End the session of a refresher, whatever it is doing."""
        async with owner(self.database) as connection:
            while self._working:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ~ $1"
                    " AND pid <> pg_backend_pid() AND random() < 0.05",
                    "^SELECT sens[.](move_rollup|add_rollups|apply_rollup)",
                )
                await violations(connection)

    async def _observe(self) -> None:
        async with owner(self.database) as connection:
            await read_as_tenant(connection, self.tenant)
            while self._working:
                assert await violations(connection) == []
                self.checks += 1
                for _ in range(5):
                    self.sources += await compare_answers(connection, self.source, START - 3 * HOUR, self.now)
