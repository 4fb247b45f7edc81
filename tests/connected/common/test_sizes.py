"""What tenants take on disk, estimated from each partition's size and what their rows in it weigh."""

from datetime import UTC, datetime

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from support.regular_readings import convert, store_readings
from support.servers import owner

START = datetime(2026, 3, 2, tzinfo=UTC)


async def test_are_divided_by_what_rows_weigh_and_add_up_to_the_partitions(database: DatabaseSettings) -> None:
    async with owner(database) as connection:
        sizes = {}
        for tenant, count in (("large", 3000), ("small", 300), ("none", 0)):
            id_ = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ($1) RETURNING id", tenant)
            if count:
                await store_readings(connection, tenant, "d1", {"a": 1.0, "b": "x"}, first=START, count=count)
            sizes[tenant] = id_
        await convert(connection)
        measured = []
        while (name := await connection.fetchval("SELECT sens.measure_partition()")) is not None:
            measured.append(name)
        assert len(measured) == len(set(measured)) >= 4
        found = {name: await connection.fetchrow("SELECT * FROM sens.sizes_of($1)", id_) for name, id_ in sizes.items()}
        large, small, none = (found[name] for name in ("large", "small", "none"))
        assert large is not None
        assert small is not None
        assert none is not None
        assert large["readings"] > 2 * small["readings"] > 0
        assert (none["readings"], none["measured_at"]) == (0, None)
        total = await connection.fetchval(
            "SELECT sum(bytes) FROM sens.partition_sizes WHERE partition IN (SELECT partition FROM sens.tenant_sizes)"
        )
        assert abs(large["readings"] + small["readings"] - total) <= len(measured)
        await store_readings(connection, "small", "d2", {"a": 1.0, "b": "x" * 500}, first=START, count=20_000)
        assert await connection.fetchval("SELECT sens.measure_partition()") is not None


async def test_over_the_limit_refuse_what_comes_until_there_is_room(database: DatabaseSettings) -> None:
    async with owner(database) as connection, open_pool(database, "test") as pool:
        await connection.execute("INSERT INTO sens.tenants (name) VALUES ('demo')")
        await store_readings(connection, "demo", "d1", {"a": 1.0}, first=START, count=1000)
        await connection.execute("UPDATE sens.tenants SET stored_byte_limit = 1000")

        async def reasons() -> list[str]:
            interpreter = Interpreter(TimescaleRegistry(Database(pool, database)), decoder("native"))
            message = Message("sens/v1/demo/d1/telemetry", b'{"a": 1}', int(START.timestamp()) * 1_000_000)
            return [rejection.reason for rejection in (await interpreter.interpret([message])).rejections]

        before = await reasons()
        while await connection.fetchval("SELECT sens.measure_partition()") is not None:
            pass
        over = await reasons()
        await connection.execute("UPDATE sens.tenants SET stored_byte_limit = 1000000000")
        assert (before, over, await reasons()) == ([], [Reason.LIMIT_REACHED], [])
