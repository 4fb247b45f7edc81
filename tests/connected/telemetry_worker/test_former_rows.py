"""The telemetry worker beside measurements of an earlier version: it waits until they are moved, and loses nothing."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from sens_common.moving import run
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.former_rows import FormerRows
from support.envelopes import TOPIC
from support.former_rows import Series, Values, store_former
from support.servers import owner, wait_until
from support.workers import Publisher, TelemetryPath

NOON: Final = datetime(2025, 1, 31, 12, tzinfo=UTC)
FORMER: Final[Values] = {
    Series("demo", "d1", "n", "number"): {NOON + timedelta(minutes=minute): float(minute) for minute in range(100)}
}


async def store(database: DatabaseSettings) -> None:
    async with owner(database) as connection:
        await store_former(connection, FORMER)


async def move(database: DatabaseSettings) -> None:
    async with contextlib.aclosing(run.move(database)) as lines:
        async for _ in lines:
            pass


class TestWorker:
    def test_stores_what_came_during_the_move_when_that_is_done(self, path: TelemetryPath) -> None:
        path.telemetry.stop()
        asyncio.run(store(path.database))
        path.telemetry.start()
        with Publisher(path.broker) as publisher:
            publisher.publish_all([(TOPIC, b'{"ts": 1700000000, "n": 1}')])

            def checks() -> dict[str, str]:
                found: dict[str, str] = json.loads(path.telemetry.get("/readyz")[1] or "{}").get("checks", {})
                return found

            words = "measurements of an earlier version are being moved (0.0%, 0 values)"
            wait_until(lambda: words in checks().get("store", ""), "the worker says what it waits for")
            assert words in checks()["earlier_measurements"]
            assert path.fetch("SELECT FROM sens.readings") == []
            asyncio.run(move(path.database))
        path.wait_until_idle()
        assert path.telemetry.get("/readyz")[0] == 200
        assert sorted(value[3] for value in path.values() if value[1] == "n") == [0.0, 1.0, *map(float, range(1, 100))]


class TestFormerRows:
    async def test_are_asked_for_until_there_are_none_and_never_again(self, database: DatabaseSettings) -> None:
        await store(database)
        async with open_pool(database, "test") as pool:
            former = FormerRows(Database(pool, database))
            with pytest.raises(StoreUnavailableError, match="until that is done nothing is stored"):
                await former.raise_unless_moved()
            assert "messages wait in the stream" in (await former.check() or "")
            await move(database)
            assert await former.check() is None
            async with owner(database) as connection:
                await connection.execute("INSERT INTO sens.former_devices VALUES (1)")
            assert await former.check() is None
