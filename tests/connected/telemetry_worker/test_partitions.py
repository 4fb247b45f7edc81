"""How many partitions one message may open: as many months and years as a reading may lie back, and no more."""

from datetime import UTC, datetime

import numpy as np
import pytest

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.partitions import Partitions
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from support.servers import owner

NOW = int(datetime.now(UTC).timestamp())
DAY = 86_400
YEARS = 26
PARTITIONS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sens.readings'::regclass"


async def test_a_message_of_26_years_opens_a_partition_for_each_year_and_for_the_months_of_the_last_two(
    database: DatabaseSettings,
) -> None:
    async with owner(database) as connection, open_pool(database, "test") as pool:
        if await connection.fetchval("SELECT kind FROM sens.storage") == "timescaledb":
            pytest.skip(
                "TimescaleDB makes a chunk for each week that has a reading, at most as many as the message has readings"
            )
        before = await connection.fetchval(PARTITIONS)
        times = (NOW - np.arange(0, YEARS * 365 * DAY, 7 * DAY)) * 1_000_000
        await Partitions(Database(pool, database)).ensure(times)
        months = datetime.now(UTC).month + 12
        assert months <= await connection.fetchval(PARTITIONS) <= before + months + YEARS


async def test_a_message_with_a_reading_beyond_late_days_opens_none(database: DatabaseSettings) -> None:
    async with owner(database) as connection, open_pool(database, "test") as pool:
        await connection.execute("INSERT INTO sens.tenants (name) VALUES ('demo')")
        interpreter = Interpreter(TimescaleRegistry(Database(pool, database)), decoder("native"))
        backlog = ",".join(f'{{"ts": {NOW - days * DAY}, "a": 1}}' for days in range(0, YEARS * 365, 30))
        message = Message("sens/v1/demo/d1/telemetry", f"[{backlog}]".encode(), NOW * 1_000_000)
        interpreted = await interpreter.interpret([message])
        assert [rejection.reason for rejection in interpreted.rejections] == [Reason.TOO_OLD]
