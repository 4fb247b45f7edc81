"""Names in the database: who knows them, how many there may be, how fast they come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from sens_common.database import Connection, connect
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.batch import InterpretedMessages
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import REFRESH_SECONDS, TimescaleRegistry

NOW = 1_769_860_800_000_000


class CountingDatabase(Database):
    """Notes the statements that are sent."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: DatabaseSettings) -> None:
        super().__init__(pool, settings)
        self.statements: list[str] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            with connection.query_logger(lambda record: self.statements.append(record.query)):
                yield connection


class Bench:
    """A worker's builder on a real database, and an owner beside it."""

    def __init__(
        self,
        owner: "asyncpg.Connection[asyncpg.Record]",
        pool: "asyncpg.Pool[asyncpg.Record]",
        settings: DatabaseSettings,
    ) -> None:
        self.owner = owner
        self.now = 0.0
        self.database = CountingDatabase(pool, settings)
        self.builder = self.another()

    def another(self) -> Interpreter:
        """Return the builder of another worker."""
        return Interpreter(TimescaleRegistry(self.database, clock=lambda: self.now), decoder("native"))

    async def execute(self, statement: str) -> None:
        await self.owner.execute(statement)

    async def count(self, table: str) -> int:
        number: int = await self.owner.fetchval(f"SELECT count(*) FROM sens.{table}")  # noqa: S608 - a constant
        return number

    async def interpret(self, *bodies: dict[str, Any], topic: str = "sens/v1/demo/d1/telemetry") -> InterpretedMessages:
        messages = [Message(topic, orjson.dumps(body), NOW + number) for number, body in enumerate(bodies)]
        return await self.builder.interpret(messages)

    async def devices(
        self, *names: str, tenant: str = "demo", builder: Interpreter | None = None
    ) -> InterpretedMessages:
        messages = [Message(f"sens/v1/{tenant}/{name}/telemetry", b'{"a": 1}', NOW) for name in names]
        return await (builder or self.builder).interpret(messages)


@asynccontextmanager
async def bench(settings: DatabaseSettings, columns: str = "", values: str = "") -> AsyncIterator[Bench]:
    """Open a bench with the tenant demo, which may have limits of its own."""
    owner = await connect(settings, "test")
    async with open_pool(settings, "test") as pool:
        await owner.execute(f"INSERT INTO sens.tenants (name{columns}) VALUES ('demo'{values})")  # noqa: S608 - constants
        try:
            yield Bench(owner, pool, settings)
        finally:
            await owner.close()


def reasons(interpreted: InterpretedMessages) -> list[str]:
    return [rejection.reason for rejection in sorted(interpreted.rejections)]


class TestUnknownTenants:
    async def test_of_a_whole_batch_are_one_question(self, database: DatabaseSettings) -> None:
        async with bench(database) as it:
            await it.devices("d1")
            messages = [Message(f"sens/v1/nobody-{n}/d1/telemetry", b'{"a": 1}', NOW) for n in range(500)]
            questions = []
            for _ in range(2):
                before = len(it.database.statements)
                interpreted = await it.builder.interpret(messages)
                questions.append(len(it.database.statements) - before)
            found = reasons(interpreted)
        assert found == [Reason.UNKNOWN_TENANT] * 500
        assert questions == [1, 1]

    async def test_are_known_as_soon_as_they_are_made(self, database: DatabaseSettings) -> None:
        async with bench(database) as it:
            first = await it.devices("d1", tenant="acme")
            await it.execute("INSERT INTO sens.tenants (name) VALUES ('acme')")
            assert [reasons(first), reasons(await it.devices("d1", tenant="acme"))] == [[Reason.UNKNOWN_TENANT], []]

    async def test_are_those_that_were_deleted(self, database: DatabaseSettings) -> None:
        async with bench(database) as it:
            await it.execute("INSERT INTO sens.tenants (name) VALUES ('acme')")
            found = [reasons(await it.devices("d1", tenant="acme"))]
            await it.execute(
                "DELETE FROM sens.metrics; DELETE FROM sens.devices; DELETE FROM sens.tenants WHERE name = 'acme'"
            )
            it.now += REFRESH_SECONDS
            found.append(reasons(await it.devices("d1", tenant="acme")))
            assert found == [[], [Reason.UNKNOWN_TENANT]]


class TestLimits:
    async def test_of_devices_leave_those_that_are_known(self, database: DatabaseSettings) -> None:
        async with bench(database, ", device_limit", ", 2") as it:
            await it.devices("d1")
            interpreted = await it.devices("d1", "d2", "d3", "d4")
            found, detail = reasons(interpreted), interpreted.rejections[0].detail
        assert found == [Reason.LIMIT_REACHED] * 2
        assert detail == (
            "tenant demo has 2 devices, and its limit is 2; 'd3' is new. Delete some, or raise the limit (sens tenants limits demo --devices),"
            " then replay"
        )

    async def test_hold_for_several_workers_together(self, database: DatabaseSettings) -> None:
        async with bench(database, ", device_limit", ", 50") as it:
            workers = [it.another() for _ in range(4)]
            await asyncio.gather(
                *(
                    it.devices(*(f"w{worker}-{number}" for number in range(start, start + 10)), builder=builder)
                    for start in range(0, 100, 10)
                    for worker, builder in enumerate(workers)
                )
            )
            assert (await it.count("devices"), await it.owner.fetchval("SELECT devices FROM sens.registrations")) == (
                50,
                50,
            )

    async def test_of_metrics_are_not_used_up_by_a_message_that_is_refused(self, database: DatabaseSettings) -> None:
        async with bench(database, ", metric_limit", ", 10") as it:
            many = {f"m{number}": 1 for number in range(11)}
            first = await it.interpret(many, {"a": 1, "b": 2}, many)
            count = await it.count("metrics")
            second = await it.interpret({f"n{number}": 1 for number in range(8)}, {"a": 1, "c": 2})
            detail = first.rejections[0].detail
        assert reasons(first) == [Reason.LIMIT_REACHED] * 2
        assert count == 2
        assert reasons(second) == [Reason.LIMIT_REACHED]
        assert "has 0 metrics, and its limit is 10; 'm0' and 10 more are new" in detail

    async def test_that_are_raised_hold_without_a_restart(self, database: DatabaseSettings) -> None:
        refused = [Reason.LIMIT_REACHED, Reason.TOO_OLD]
        async with bench(database, ", metric_limit, late_days", ", 1, 1") as it:
            bodies: list[dict[str, Any]] = [{"a": 1, "b": 2}, {"a": 1, "ts": (NOW - 2 * 86_400_000_000)}]
            found = [reasons(await it.interpret(*bodies))]
            await it.execute("UPDATE sens.tenants SET metric_limit = 2, late_days = 3")
            found.append(reasons(await it.interpret(*bodies)))
            it.now += REFRESH_SECONDS
            found.append(reasons(await it.interpret(*bodies)))
            assert found == [refused, refused, []]

    async def test_leave_room_again_when_names_were_deleted_by_hand(self, database: DatabaseSettings) -> None:
        async with bench(database, ", device_limit", ", 1") as it:
            await it.devices("d1")
            found = [reasons(await it.devices("d2"))]
            await it.execute("DELETE FROM sens.devices")
            it.now += 60
            found.append(reasons(await it.devices("d2")))
            assert found == [[Reason.LIMIT_REACHED], []]


class TestNewNames:
    async def test_of_an_hour_are_limited_and_the_rest_of_the_limit_is_left(self, database: DatabaseSettings) -> None:
        async with bench(database) as it:
            # Ten messages with 1,000 new names each, as a counter in a metric's name makes them.
            interpreted = await it.interpret(
                *({f"m{message}-{number}": 1 for number in range(1000)} for message in range(10))
            )
            metrics = await it.count("metrics")
            soon = reasons(await it.interpret({"temperature": 21.5}))
            await it.execute("UPDATE sens.registrations SET hour = hour - interval '1 hour'")
            later = reasons(await it.interpret({"temperature": 21.5}))
            found, detail = reasons(interpreted), interpreted.rejections[0].detail
        assert found == [Reason.TOO_MANY_NEW_NAMES] * 9
        assert metrics == 1000
        assert "has registered 1,000 metrics within this hour, and its limit is 1,000 an hour" in detail
        assert "--new-metrics-per-hour" in detail
        assert soon == [Reason.TOO_MANY_NEW_NAMES]
        assert later == []

    async def test_count_devices_and_metrics_apart(self, database: DatabaseSettings) -> None:
        limits = ", new_devices_per_hour, new_metrics_per_hour"
        async with bench(database, limits, ", 2, 1") as it:
            assert [
                reasons(await it.devices("d1", "d2", "d3")),
                reasons(await it.interpret({"a": 1})),
                reasons(await it.interpret({"b": 1})),
            ] == [[Reason.TOO_MANY_NEW_NAMES], [], [Reason.TOO_MANY_NEW_NAMES]]
