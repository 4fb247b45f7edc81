"""The move of measurements of earlier versions, on a real server: nothing of them changes, whatever happens meanwhile."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, override

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sens_common.database import connect_arguments
from sens_common.database_errors import DatabaseFault, fault_of
from sens_common.errors import SchemaError, UnavailableError
from sens_common.health import Problems
from sens_common.logins import WORKER_ROLE
from sens_common.metric_sets import MAX_SETS_OF_DEVICE
from sens_common.migrations import migrate
from sens_common.moving import run, step
from sens_common.moving.mover import Mover
from sens_common.moving.progress import unfinished_move
from sens_common.settings import DatabaseSettings
from support.depth import tries
from support.former_rows import Series, Values, store_former
from support.servers import eventually, owner

type Connection = asyncpg.Connection[asyncpg.Record]

NOON: Final = datetime(2025, 1, 31, 12, tzinfo=UTC)
ALWAYS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
PAGES: Final = (
    "SELECT ts, value FROM sens.number_page($1, $2, $3, $4, true, 100000)",
    "SELECT ts, value FROM sens.text_page($1, $2, $3, $4, true, 100000)",
)


def small_fleet(*devices: str) -> Values:
    """Return measurements of all kinds over the border of a month, with times at which some metrics have no value."""
    values: dict[Series, Mapping[datetime, float | str]] = {}
    for device, (metric, kind) in itertools.product(
        devices or ("d1", "d2", "d3"),
        [("n", "number"), ("m", "number"), ("on", "boolean"), ("n", "text"), ("note", "text")],
    ):
        values[Series("a", device, metric, kind)] = {
            NOON + timedelta(minutes=20 * index): f"{metric} {index}"
            if kind == "text"
            else float(index % 2 if kind == "boolean" else index)
            for index in range(60)
            if (index + len(metric)) % 4
        }
    values[Series("b", "d1", "n", "number")] = {NOON: float("inf"), NOON + timedelta(microseconds=1): -0.0}
    values[Series("b", "idle", "n", "number")] = {}
    return values


async def read(
    connection: Connection, values: Values, ids: Mapping[Series, tuple[int, int]]
) -> dict[Series, dict[datetime, Any]]:
    """Return what the functions of reading say of series."""
    tenants = {row["name"]: row["id"] for row in await connection.fetch("SELECT name, id FROM sens.tenants")}
    found: dict[Series, dict[datetime, Any]] = {}
    for series in values:
        await connection.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenants[series.tenant]))
        rows = await connection.fetch(PAGES[series.kind == "text"], *ids[series], *ALWAYS)
        found[series] = {row["ts"]: row["value"] for row in rows}
        assert len(found[series]) == len(rows)
        latest = {
            row["metric_id"]: row["ts"]
            for row in await connection.fetch("SELECT * FROM sens.latest_values($1)", ids[series][0])
        }
        assert latest.get(ids[series][1]) == max(found[series], default=None)
    return found


def described(values: Mapping[Series, Mapping[datetime, Any]]) -> dict[Series, dict[datetime, str]]:
    """Return values as texts, in which zeros of both signs differ."""
    return {series: {at: repr(value) for at, value in times.items()} for series, times in values.items()}


async def is_waiting(database: DatabaseSettings) -> bool:
    """Tell whether the migration waits for a lock."""
    async with owner(database) as connection:
        return bool(
            await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'sens-migrate' AND wait_event_type = 'Lock')"
            )
        )


@contextlib.asynccontextmanager
async def moving(database: DatabaseSettings, *, most_values: int = 20) -> AsyncIterator[Mover]:
    """Give a mover that takes small steps."""
    async with owner(database) as connection:
        yield Mover(connection, Problems("move"), most_values=most_values)


async def move_all(database: DatabaseSettings) -> None:
    async with contextlib.aclosing(run.move(database)) as lines:
        async for _ in lines:
            pass


class TestOlderWorkers:
    @pytest.mark.parametrize("role", [None, WORKER_ROLE])
    @pytest.mark.parametrize("table", ["measurements", "text_measurements"])
    async def test_are_refused_with_a_sentence_and_an_error_that_makes_no_dead_letters(
        self, former_database: DatabaseSettings, role: str | None, table: str
    ) -> None:
        async with owner(former_database) as connection:
            await store_former(connection, small_fleet())
        await migrate(former_database)
        value: float | str = 1.0 if table == "measurements" else "x"
        connection = await asyncpg.connect(**connect_arguments(former_database, "test", role=role))
        try:
            attempts: list[Callable[[], Awaitable[object]]] = [
                partial(connection.copy_records_to_table, table, schema_name="sens", records=[(1, 1, NOON, value)]),
                partial(connection.execute, f"INSERT INTO sens.{table} VALUES (1, 1, $1, $2)", NOON, value),  # noqa: S608 - one of two names
                partial(connection.execute, "SELECT sens.ensure_partitions(now(), now())"),
            ]
            for storing in attempts:
                with pytest.raises(
                    asyncpg.PostgresError, match="a telemetry worker of an older version can store nothing"
                ) as refused:
                    await storing()
                assert fault_of(refused.value) is DatabaseFault.FORBIDDEN
        finally:
            await connection.close()

    async def test_end_what_they_store_before_the_schema_changes(self, former_database: DatabaseSettings) -> None:
        async with owner(former_database) as worker:
            transaction = worker.transaction()
            await transaction.start()
            await store_former(worker, small_fleet())
            migrating = asyncio.create_task(migrate(former_database))
            await eventually(partial(is_waiting, former_database), "the migration waits for the worker's transaction")
            await transaction.commit()
            await migrating
            assert await worker.fetchval("SELECT count(*) FROM sens.former_devices") == 5


class TestMove:
    async def test_changes_no_value_at_any_step(self, former_database: DatabaseSettings) -> None:
        values = small_fleet()
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)
            steps = 0
            assert described(await read(connection, values, ids)) == described(values)
            async with moving(former_database) as mover:
                async for progress in mover.move():
                    steps += 1
                    assert 0 <= progress.share <= 1
                    assert described(await read(connection, values, ids)) == described(values)
                assert progress.moved_values == sum(len(times) for times in values.values())
                await mover.drop()
            assert described(await read(connection, values, ids)) == described(values)
            assert await connection.fetchval("SELECT to_regclass('sens.measurements')") is None
            assert await connection.fetchval("SELECT to_regclass('sens.text_measurements')") is None
        assert steps > 20

    async def test_makes_one_row_of_what_a_device_measured_at_one_time(self, former_database: DatabaseSettings) -> None:
        values = small_fleet()
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)
            await move_all(former_database)
            rows = await connection.fetchval("SELECT count(*) FROM sens.readings")
            days = await connection.fetch(
                "SELECT first_day, last_day FROM sens.device_metric_sets WHERE device_id = $1",
                ids[Series("a", "d1", "n", "text")][0],
            )
            noted = await connection.fetchval("SELECT count(DISTINCT device_id) FROM sens.rollup_changes")
        assert noted == 4
        assert rows == len({(series.tenant, series.device, at) for series, times in values.items() for at in times})
        assert {day for row in days for day in row} == {NOON.date(), NOON.date() + timedelta(days=1)}

    async def test_stores_a_device_with_many_sets_of_metrics_under_few(self, former_database: DatabaseSettings) -> None:
        values: Values = {
            Series("a", "d", f"m{index}", "text" if index % 7 == 0 else "number"): {
                NOON + timedelta(hours=hour): "x" if index % 7 == 0 else float(hour)
                for hour in range(1200)
                if hour % (index + 2) == 0
            }
            for index in range(90)
        }
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)
            async with moving(former_database, most_values=100) as mover:
                async for _ in mover.move():
                    pass
            assert await read(connection, values, ids) == values
            sets = await connection.fetchval("SELECT count(*) FROM sens.device_metric_sets")
        assert sets < 2 * MAX_SETS_OF_DEVICE

    async def test_leaves_out_what_is_deleted(self, former_database: DatabaseSettings) -> None:
        values = small_fleet()
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)
            await connection.execute("DELETE FROM sens.devices WHERE id = $1", ids[Series("a", "d2", "n", "number")][0])
            await connection.execute("DELETE FROM sens.metrics WHERE name = 'm'")
            await move_all(former_database)
            left = {
                series: times
                for series, times in values.items()
                if series.metric != "m" and (series.tenant, series.device) != ("a", "d2")
            }
            assert described(await read(connection, left, ids)) == described(left)
            stored = await connection.fetchval(
                "SELECT sum(coalesce(cardinality(numbers), 0) + coalesce(cardinality(texts), 0)) FROM sens.readings"
            )
        assert stored == sum(len(times) for times in left.values())

    async def test_stops_at_a_difference_and_names_it(
        self, former_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with owner(former_database) as connection:
            await store_former(connection, small_fleet())
            await migrate(former_database)
            write = step._WRITE  # noqa: RUF100, SLF001
            monkeypatch.setattr(step, "_WRITE", write.replace("m.numbers,", "array_replace(m.numbers, 5, 6),"))
            with pytest.raises(
                SchemaError,
                match=r"nothing is dropped: tenant a, device d1, metric (n|m): \d+ values .* another checksum",
            ):
                await move_all(former_database)
            monkeypatch.setattr(step, "_WRITE", write + " OFFSET 1")
            with pytest.raises(
                SchemaError, match=r"tenant a, device d1, metric \w+: \d+ values .* became \d+; the step is rolled back"
            ):
                await move_all(former_database)
            assert await connection.fetchval("SELECT count(*) FROM sens.measurements")
            assert await connection.fetchval("SELECT count(*) FROM sens.former_devices") == 5

    async def test_goes_on_when_two_run_at_once(self, former_database: DatabaseSettings) -> None:
        values = small_fleet()
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)

            async def one() -> None:
                async with moving(former_database) as mover:
                    async for _ in mover.move():
                        pass

            await asyncio.gather(one(), one(), one())
            assert described(await read(connection, values, ids)) == described(values)

    async def test_drops_nothing_before_all_is_moved(self, former_database: DatabaseSettings) -> None:
        async with owner(former_database) as connection:
            await store_former(connection, small_fleet())
        await migrate(former_database)
        async with moving(former_database) as mover:
            with pytest.raises(SchemaError, match="the values of 5 devices are not moved"):
                await mover.drop()

    async def test_of_a_new_database_drops_the_empty_tables(self, database: DatabaseSettings) -> None:
        await move_all(database)
        await move_all(database)
        async with owner(database) as connection:
            assert await connection.fetchval("SELECT to_regclass('sens.measurements')") is None
            assert await unfinished_move(connection) is None

    async def test_needs_the_schema(self, former_database: DatabaseSettings) -> None:
        with pytest.raises(UnavailableError, match="run the migrations first"):
            await move_all(former_database)


class TestProgress:
    async def test_is_told_until_all_is_moved(self, former_database: DatabaseSettings) -> None:
        async with owner(former_database) as connection:
            await store_former(connection, small_fleet())
            await migrate(former_database)
            assert "0.0%, 0 values" in (await unfinished_move(connection) or "")
            async with moving(former_database) as mover:
                async for progress in mover.move():
                    told = await unfinished_move(connection)
                    assert told is not None
                    assert f"{progress.moved_values:,} values" in told
                    assert "nothing has gone on" not in told
            assert await unfinished_move(connection) is None

    async def test_says_when_nothing_moves(self, former_database: DatabaseSettings) -> None:
        async with owner(former_database) as connection:
            await store_former(connection, small_fleet())
            await migrate(former_database)
            await connection.execute("UPDATE sens.move_progress SET noted_at = now() - interval '10 minutes'")
            assert "nothing has gone on for 10 min: run sens migrate" in (await unfinished_move(connection) or "")


class CutConnection(asyncpg.Connection):
    """A connection that the server ends before or after one of its statements.

    Attributes:
        cut_at: Which, counted from 0; after it, where it is a half more.
        statements: How many there were.
    """

    cut_at: float = float("inf")
    statements = 0

    @override
    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        done: str = await self._counted(lambda: super(CutConnection, self).execute(query, *args, timeout=timeout))
        return done

    @override
    async def fetch(self, query: str, *args: object, timeout: float | None = None, record_class: Any = None) -> Any:
        return await self._counted(lambda: super(CutConnection, self).fetch(query, *args, timeout=timeout))

    @override
    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any:
        return await self._counted(
            lambda: super(CutConnection, self).fetchval(query, *args, column=column, timeout=timeout)
        )

    async def _counted(self, statement: Any) -> Any:
        number, CutConnection.statements = CutConnection.statements, CutConnection.statements + 1
        if number == CutConnection.cut_at:
            self.terminate()
        result = await statement()
        if number + 0.5 == CutConnection.cut_at:
            self.terminate()
        return result


class TestKilled:
    """What ends a move at any moment changes nothing; the next one goes on."""

    async def test_at_each_of_its_statements(
        self, former_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = small_fleet("d1")

        async def cut_connection(settings: DatabaseSettings, application: str) -> Connection:
            return await asyncpg.connect(
                **connect_arguments(settings, application) | {"connection_class": CutConnection}
            )

        monkeypatch.setattr(run, "connect", cut_connection)
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)
            outcomes: Counter[str] = Counter()
            # Each run is cut one statement, or half of one, further than the one before it, which it goes on from.
            for cut_at in itertools.count(step=0.5):
                CutConnection.statements, CutConnection.cut_at = 0, cut_at
                try:
                    await move_all(former_database)
                except UnavailableError:
                    outcomes["cut"] += 1
                    assert described(await read(connection, values, ids)) == described(values)
                    continue
                break
            assert described(await read(connection, values, ids)) == described(values)
            assert await connection.fetchval("SELECT to_regclass('sens.measurements')") is None
        assert outcomes["cut"] > 30

    async def test_as_a_process(self, former_database: DatabaseSettings) -> None:
        values = small_fleet()
        environment = os.environ | {
            "SENS_DATABASE__HOST": former_database.host,
            "SENS_DATABASE__PORT": str(former_database.port),
            "SENS_DATABASE__NAME": former_database.name,
            "SENS_DATABASE__USER": former_database.user,
            "SENS_DATABASE__PASSWORD": former_database.password.get_secret_value() if former_database.password else "",
        }
        async with owner(former_database) as connection:
            ids = await store_former(connection, values)
            await migrate(former_database)
            endings = Counter[int]()
            for statements in itertools.count(5, 9):
                # It ends itself with SIGKILL after so many statements.
                script = (
                    "import os, signal, asyncpg, itertools, runpy\n"
                    "count = itertools.count()\n"
                    "class Killed(asyncpg.Connection):\n"
                    "    async def _execute(self, *a, **k):\n"
                    f"        if next(count) == {statements}: os.kill(os.getpid(), signal.SIGKILL)\n"
                    "        return await super()._execute(*a, **k)\n"
                    "import sens_common.database as database\n"
                    "database._PooledConnection = Killed\n"
                    "runpy.run_module('sens_common.moving', run_name='__main__')\n"
                )
                child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=environment)
                code = await child.wait()
                endings[code] += 1
                assert described(await read(connection, values, ids)) == described(values)
                if code == 0:
                    break
            assert await connection.fetchval("SELECT to_regclass('sens.measurements')") is None
        assert endings.keys() == {0, -signal.SIGKILL}


NAMES: Final = st.sampled_from(["x", "y", "z"])
TIMES: Final = st.integers(0, 12).map(lambda index: NOON + timedelta(hours=5 * index))
NUMBERS: Final = st.floats(allow_nan=False, width=64)
SERIES: Final = st.builds(
    Series, st.sampled_from(["a", "b"]), NAMES, NAMES, st.sampled_from(["number", "boolean", "text"])
)


def times_of(series: Series) -> st.SearchStrategy[dict[datetime, float | str]]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "number": NUMBERS,
        "boolean": st.sampled_from([0.0, 1.0]),
        "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    }
    return st.dictionaries(TIMES, kinds[series.kind], max_size=6)


WORLDS: Final = st.sets(SERIES, min_size=1, max_size=10).flatmap(
    lambda all_series: st.fixed_dictionaries({series: times_of(series) for series in sorted(all_series)})
)


class TestLaw:
    @given(values=WORLDS, most_values=st.integers(1, 8))
    @settings(max_examples=tries(8, 100), suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_what_is_read_is_the_same_at_every_step(
        self, database: DatabaseSettings, values: Values, most_values: int
    ) -> None:
        async def look() -> None:
            async with owner(database) as connection:
                await connection.execute(
                    "TRUNCATE sens.measurements, sens.text_measurements, sens.readings, sens.device_metric_sets, sens.metric_sets,"
                    " sens.former_devices, sens.devices, sens.metrics, sens.tenants CASCADE"
                )
                ids = await store_former(connection, values)
                async with moving(database, most_values=most_values) as mover:
                    async for _ in mover.move():
                        assert described(await read(connection, values, ids)) == described(values)
                assert described(await read(connection, values, ids)) == described(values)

        asyncio.run(look())
