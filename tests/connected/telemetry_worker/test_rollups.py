"""Rollups are the aggregates of the readings, in every snapshot, whatever is stored, deleted or killed meanwhile."""

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from sens_common.database import Connection
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker import metrics
from sens_telemetry_worker.settings import RollupSettings
from sens_telemetry_worker.status import TelemetryStatus
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.rollups import RollupRefresher, StepSize
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.depth import tries
from support.parts import NO_QUOTA, part_of
from support.rollup_world import MINUTE, RollupWorld, worker
from support.rollups import (
    DAY,
    EPOCH,
    HOUR,
    START,
    Reading,
    begin_rollups,
    compare_answers,
    make_metric_sets,
    note,
    read_as_tenant,
    refresh_up_to,
    store,
    violations,
)
from support.rows import INSERT_NAMES, KeyedValue, rows_of
from support.servers import owner

LAST = timedelta(microseconds=1)


async def rollups(connection: Connection, table: str = "rollup_1h") -> list[tuple[object, ...]]:
    rows = await connection.fetch(
        f"SELECT ts, count, sum, min, max, first, last FROM sens.{table} ORDER BY device_id, metric_id, ts"  # noqa: S608
    )
    return [tuple(row) for row in rows]


class TestAggregates:
    async def test_an_hour_has_count_sum_extremes_and_the_values_of_its_first_and_last_reading(
        self, database: DatabaseSettings
    ) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            for minute, value in ((0, 3.0), (10, -2.5), (59, 1.0), (60, 7.0)):
                await store(connection, Reading(1, numbers, START + minute * MINUTE, [value]))
            await refresh_up_to(connection, START + 2 * HOUR)

            assert await rollups(connection) == [
                (START, 3, 1.5, -2.5, 3.0, 3.0, 1.0),
                (START + HOUR, 1, 7.0, 7.0, 7.0, 7.0, 7.0),
            ]

    async def test_a_day_is_there_when_it_is_over(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            for hour, value in ((3, 5.0), (23, 1.0), (24, 9.0)):
                await store(connection, Reading(1, numbers, START + hour * HOUR, [value]))
            await refresh_up_to(connection, START + 23 * HOUR)
            assert await rollups(connection, "rollup_1d") == []
            await refresh_up_to(connection, START + 25 * HOUR)

            assert await rollups(connection, "rollup_1d") == [(START, 2, 6.0, 1.0, 5.0, 5.0, 1.0)]

    async def test_answers_are_made_of_the_coarsest_that_is_exact(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            await store(connection, *(Reading(1, numbers, START + hour * HOUR, [float(hour)]) for hour in range(72)))
            await refresh_up_to(connection, START + 72 * HOUR)
            await read_as_tenant(connection, "rolled")
            metric = await connection.fetchval("SELECT min(id) FROM sens.metrics")

            async def sources(first: datetime, width: timedelta, wanted: str) -> set[str]:
                edges = [first, first + width, first + 2 * width]
                rows = await connection.fetch(
                    "SELECT count, source FROM sens.edge_aggregates(1, $1, $2, $3, $4, $5, false)",
                    *(metric, edges[0], edges[-1], edges, wanted.split(",")),
                )
                assert sum(row["count"] for row in rows) == 2 * width / HOUR
                return {row["source"] for row in rows}

            assert await sources(START, DAY, "avg,sum,min,max,first,last,count") == {"1d"}
            assert await sources(START + HOUR, DAY, "sum") == {"1h"}  # as days of another zone begin
            assert await sources(START + MINUTE, DAY, "sum") == {"raw"}
            for wanted in ("p50", "difference", "time_weighted_avg"):
                assert await sources(START, DAY, wanted) == {"raw"}

    async def test_where_the_first_or_last_reading_has_no_value_the_next_one_counts(
        self, database: DatabaseSettings
    ) -> None:
        async with owner(database) as connection:
            one, three = await make_metric_sets(connection, [1, 3])
            await begin_rollups(connection)
            readings: list[tuple[int, list[float | None]]] = [
                (three, [None, 1.0, None]),
                (three, [2.0, None, None]),
                (one, [3.0]),
                (three, [4.0, 5.0, 6.0]),
                (one, [None]),
                (one, [7.0]),
            ]
            for minute, (metric_set, numbers) in enumerate(readings):
                await store(connection, Reading(1, metric_set, START + minute * MINUTE, numbers))
            await refresh_up_to(connection, START + HOUR)

            assert await violations(connection) == []
            assert [row[-2:] for row in await rollups(connection)] == [(2.0, 7.0), (1.0, 5.0), (6.0, 6.0)]

    async def test_more_metrics_than_are_computed_side_by_side(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            sizes = [1, 7, 8, 9, 13, 33, 64, 65, 200]
            sets = await make_metric_sets(connection, sizes, texts=1)
            await begin_rollups(connection)
            for index, (size, metric_set) in enumerate(zip(sizes, sets, strict=True)):
                for minute in range(3):
                    values = [None if (position + minute) % 5 == 0 else float(position) for position in range(size)]
                    await store(
                        connection, Reading(1 + index % 2, metric_set, START + (10 * index + minute) * MINUTE, values)
                    )
            await store(connection, Reading(3, sets[0], START, None))
            await refresh_up_to(connection, START + 2 * HOUR)

            assert await violations(connection) == []
            assert sum(row[1] for row in await rollups(connection) if isinstance(row[1], int)) > sum(sizes)

    async def test_a_sum_that_a_float_may_not_hold_is_left_out_and_hinders_nothing(
        self, database: DatabaseSettings
    ) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            for minute, value in ((0, 1.7e308), (1, 1.7e308), (60, 1.0)):
                await store(connection, Reading(1, numbers, START + minute * MINUTE, [value]))
            await refresh_up_to(connection, START + DAY)

            assert [row[1:4] for row in await rollups(connection)] == [(2, None, 1.7e308), (1, 1.0, 1.0)]
            assert [row[1:5] for row in await rollups(connection, "rollup_1d")] == [(3, None, 1.0, 1.7e308)]


class TestChanges:
    async def test_late_readings_come_into_hour_and_day(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            await store(connection, Reading(1, numbers, START, [1.0]))
            await refresh_up_to(connection, START + 2 * DAY)
            for at in (START + LAST, START + 5 * HOUR, START + DAY):
                async with connection.transaction():
                    await store(connection, Reading(1, numbers, at, [2.0]))
                    await note(connection, Reading(1, numbers, at, None))
            await refresh_up_to(connection, START + 2 * DAY)

            assert await violations(connection) == []
            assert [row[1] for row in await rollups(connection, "rollup_1d")] == [3, 1]

    async def test_what_is_deleted_leaves_them(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [2])
            await begin_rollups(connection)
            for hour in range(72):
                await store(connection, Reading(1, numbers, START + hour * HOUR, [1.0, 2.0]))
            await refresh_up_to(connection, START + 3 * DAY)
            async with connection.transaction():
                await connection.execute(
                    "DELETE FROM sens.readings WHERE ts >= $1 AND ts < $2", START, START + 30 * HOUR
                )
                await connection.execute("SELECT sens.note_changed(1, $1, $2)", START, START + 30 * HOUR)
            await refresh_up_to(connection, START + 3 * DAY)

            assert await violations(connection) == []
            assert [row[1] for row in await rollups(connection, "rollup_1d")] == [18, 24, 18, 24]

    async def test_hours_that_are_not_in_the_rollups_yet_are_not_noted(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            await begin_rollups(connection)
            await connection.execute("SELECT sens.note_changed(1, $1, $2)", START, START + DAY)
            await connection.execute("SELECT sens.note_changed(2, $1, 'infinity')", START - LAST)

            noted = await connection.fetch("SELECT device_id, first, past FROM sens.rollup_changes")
            assert [tuple(row) for row in noted] == [(2, START - HOUR, START)]

    async def test_hours_whose_readings_are_not_kept_any_more_stay_as_they_are(
        self, database: DatabaseSettings
    ) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            for hour in range(48):
                await store(connection, Reading(1, numbers, START + hour * HOUR, [1.0]))
            await refresh_up_to(connection, START + 2 * DAY)
            kept_since = START + 30 * HOUR + MINUTE
            await connection.execute("UPDATE sens.rollup_progress SET raw_complete_since = $1", kept_since)
            await connection.execute("DELETE FROM sens.readings WHERE ts < $1", kept_since)
            await connection.execute("SELECT sens.note_changed(1, $1, $2)", START, START + DAY)
            await connection.execute("SELECT sens.note_changed(1, $1, $2)", START + DAY, START + 2 * DAY)
            await refresh_up_to(connection, START + 2 * DAY)

            assert [row[1] for row in await rollups(connection)] == [1] * 48
            assert [row[1] for row in await rollups(connection, "rollup_1d")] == [24, 24]
            assert await connection.fetchval("SELECT count(*) FROM sens.rollup_changes") == 0

    async def test_rollups_of_a_deleted_metric_go_in_steps_and_do_not_come_back(
        self, database: DatabaseSettings
    ) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [2])
            await begin_rollups(connection)
            for hour in range(30):
                await store(connection, Reading(1, numbers, START + hour * HOUR, [1.0, 2.0]))
            await refresh_up_to(connection, START + 2 * DAY)
            gone = await connection.fetchval("DELETE FROM sens.metrics WHERE name = 'n0' RETURNING id")
            steps = []
            while deleted := await connection.fetchval(
                "SELECT sens.delete_rollups(1, $1, '-infinity', 'infinity', 12)", gone
            ):
                steps.append(deleted)
            assert steps == [14, 12, 6]
            await connection.execute("SELECT sens.note_changed(1, $1, $2)", START, START + 2 * DAY)
            await refresh_up_to(connection, START + 2 * DAY)
            assert await violations(connection) == []

            left = "SELECT sens.delete_rollups(1, NULL, '-infinity', 'infinity', 1000)"
            assert await connection.fetchval(left) == 32
            assert await connection.fetchval(left) == 0


class TestColumnstore:
    @pytest.mark.timescaledb
    async def test_late_readings_and_deletions_reach_rollups_in_the_columnstore(
        self, database: DatabaseSettings
    ) -> None:
        async with owner(database) as connection:
            if not await connection.fetchval("SELECT to_regproc('add_columnstore_policy') IS NOT NULL"):
                pytest.skip("needs TimescaleDB with the columnstore: SENS_TEST_POSTGRES_BIN names its programs")
            (numbers,) = await make_metric_sets(connection, [2])
            await begin_rollups(connection)
            for hour in range(48):
                await store(connection, Reading(1, numbers, START + hour * HOUR, [1.0, 2.0]))
            await refresh_up_to(connection, START + 3 * DAY)
            for table in ("readings", "rollup_1h", "rollup_1d"):
                await connection.execute(
                    "SELECT compress_chunk(c) FROM show_chunks($1::regclass) AS c", f"sens.{table}"
                )
            late = Reading(1, numbers, START + 30 * HOUR + MINUTE, [5.0, 6.0])
            async with connection.transaction():
                await store(connection, late)
                await note(connection, late)
                await connection.execute(
                    "DELETE FROM sens.readings WHERE ts >= $1 AND ts < $2", START, START + 3 * HOUR
                )
                await connection.execute("SELECT sens.note_changed(1, $1, $2)", START, START + 3 * HOUR)
            await refresh_up_to(connection, START + 3 * DAY)

            assert await violations(connection) == []
            assert [row[1] for row in await rollups(connection, "rollup_1d")] == [21, 25, 21, 25]
            assert (
                await connection.fetchval("SELECT sens.delete_rollups(1, NULL, $1, $2, 1000)", START, START + DAY) == 44
            )


class TestGate:
    async def test_the_watermark_waits_for_batches_that_have_passed_the_gate(self, database: DatabaseSettings) -> None:
        move = "SELECT sens.move_rollup_watermark($1)"
        async with owner(database) as connection, worker(database) as batch, worker(database) as refresher:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            async with batch.transaction():
                await note(batch, Reading(1, numbers, START, [1.0]))
                assert await refresher.fetchval(move, START + HOUR) == "busy"
                await store(batch, Reading(1, numbers, START, [1.0]))
            assert await refresher.fetchval(move, START + HOUR) == "worked"
            assert await refresher.fetchval(move, START + HOUR) == "idle"
            await refresh_up_to(connection, START + HOUR)

            assert [row[1] for row in await rollups(connection)] == [1]

    async def test_one_refresher_works_at_a_time(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection, worker(database) as one, worker(database) as other:
            await begin_rollups(connection)
            await connection.execute("UPDATE sens.rollup_state SET watermark = $1", START + DAY)
            async with one.transaction():
                assert await one.fetchval("SELECT sens.add_rollups(10, 1, false)") == "worked"
                assert await other.fetchval("SELECT sens.add_rollups(10, 1, false)") == "busy"
                assert await other.fetchval("SELECT sens.apply_rollup_changes(10, 24)") == "busy"
            assert await other.fetchval("SELECT sens.add_rollups(10, 1, false)") == "worked"
            assert await connection.fetchval("SELECT filled_until FROM sens.rollup_progress") == START + 2 * HOUR


class TestRefresher:
    async def test_it_adds_all_hours_that_are_over_and_tells_how_far_it_is_behind(
        self, database: DatabaseSettings
    ) -> None:
        status = TelemetryStatus()
        async with owner(database) as connection, open_pool(database, "test") as pool:
            (numbers,) = await make_metric_sets(connection, [1])
            now = await connection.fetchval("SELECT now()")
            await begin_rollups(connection, now.replace(minute=0, second=0, microsecond=0) - 3 * DAY)
            for device in range(1, 201):
                await store(connection, Reading(device, numbers, now - 50 * HOUR, [1.0]))
            refresher = RollupRefresher(Database(pool, database), RollupSettings(settling_seconds=0), status)
            await refresher.refresh()

            assert await violations(connection) == []
            assert len(await rollups(connection)) == 200
            filled = await connection.fetchval("SELECT filled_until FROM sens.rollup_progress")
            assert filled > now - HOUR
            assert status.rollup_lag_seconds == 0

    async def test_hours_of_a_device_that_take_too_long_are_fewer_next_time(self) -> None:
        size = StepSize(devices=2)
        for _ in range(3):
            size.adapt(1.0)
        assert (size.devices, size.hours) == (1, 6)
        size.adapt(0.3)
        assert (size.devices, size.hours) == (1, 6)
        size.adapt(0.1)
        assert (size.devices, size.hours) == (2, 12)

    async def test_a_sweep_that_is_begun_again_has_fewer_hours(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            (numbers,) = await make_metric_sets(connection, [1])
            await begin_rollups(connection)
            for device in range(1, 5):
                for hour in range(24):
                    await store(connection, Reading(device, numbers, START + hour * HOUR, [1.0]))
            await connection.execute("UPDATE sens.rollup_state SET watermark = $1", START + DAY)
            await connection.execute("SELECT sens.add_rollups(2, 24, false)")
            await connection.execute("SELECT sens.add_rollups(1, 6, true)")
            progress = await connection.fetchrow("SELECT filling_until, after_device_id FROM sens.rollup_progress")
            assert tuple(progress or ()) == (START + 6 * HOUR, 1)
            await refresh_up_to(connection, START + DAY)

            assert await violations(connection) == []


class TestConcurrency:
    @pytest.mark.parametrize("seed", range(tries(1, 20)))
    async def test_the_law_holds_in_every_snapshot_with_deletions_and_killed_refreshers(
        self, database: DatabaseSettings, seed: int
    ) -> None:
        async with owner(database) as connection:
            sets = await make_metric_sets(connection, [1, 2, 5, 70])
            world = _Transactions(database, random.Random(seed), sets)
            await _try(connection, world)
            assert {"raw", "1h", "1d"} == set(world.sources)

    @pytest.mark.parametrize("seed", range(tries(1, 20)))
    async def test_the_law_holds_of_what_workers_store(self, database: DatabaseSettings, seed: int) -> None:
        async with owner(database) as connection:
            await connection.execute(INSERT_NAMES)
            world = _Workers(database, random.Random(seed))
            await _try(connection, world)
            assert {"merge", "copy"} == world.paths()


async def _try(connection: Connection, world: RollupWorld) -> None:
    """Let a world run, then look at everything."""
    await begin_rollups(connection)
    await world.run()
    await refresh_up_to(connection, world.now + 2 * DAY)
    assert await connection.fetchval("SELECT count(*) FROM sens.rollup_changes") == 0
    assert await violations(connection) == []
    assert len(await rollups(connection)) > 100
    assert len(await rollups(connection, "rollup_1d")) > 10
    assert world.checks
    await read_as_tenant(connection, world.tenant)
    for _ in range(60):
        world.sources += await compare_answers(connection, world.source, START - DAY, world.now)


class _Transactions(RollupWorld):
    """Transactions as a worker's, which pass the gate first or last, and are rolled back now and then."""

    def __init__(self, database: DatabaseSettings, source: random.Random, sets: list[int]) -> None:
        super().__init__(database, source)
        self._sets = dict(zip(sets, (1, 2, 5, 70), strict=True))

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        async with worker(self.database) as connection:

            async def store_batch() -> None:
                readings = [self._reading() for _ in range(5)]
                transaction = connection.transaction()
                await transaction.start()
                gate_first = self.source.random() < 0.5
                if gate_first:
                    await note(connection, *readings)
                await store(connection, *readings)
                if not gate_first:
                    await note(connection, *readings)
                await (transaction.rollback() if self.source.random() < 0.1 else transaction.commit())

            yield store_batch

    def _reading(self) -> Reading:
        metric_set, size = self.source.choices(list(self._sets.items()), [4, 4, 4, 1])[0]
        numbers = [None if self.source.random() < 0.2 else float(self.source.randrange(-50, 50)) for _ in range(size)]
        return Reading(self.source.randrange(1, 7), metric_set, self.time(), numbers)


class _Workers(RollupWorld):
    """Telemetry workers that store new readings, the same again, and further metrics of stored ones."""

    tenant = "by-hand"

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        async with open_pool(self.database, "test") as pool:
            target = TimescaleStore(Database(pool, self.database), NO_QUOTA)

            async def store_batch() -> None:
                values = [
                    KeyedValue(message, device, at, metric, float((at // 600_000_000 + metric + device) % 50))
                    for message in range(6)
                    for device, at in [(self.source.randrange(1, 7), self._microseconds())]
                    for metric in self.source.sample([1, 3, 4, 6], 2)
                ]
                part = part_of(rows_of(values), 6)
                while True:
                    # A deletion may be in the way, as a deadlock or as a row that is gone.
                    with contextlib.suppress(StoreUnavailableError):
                        await target.write(part)
                        return

            yield store_batch

    def _microseconds(self) -> int:
        """Return a time of which another batch may have stored something too."""
        minutes = (self.time() - EPOCH) // (10 * MINUTE) * 10
        return minutes * 60_000_000

    def paths(self) -> set[str]:
        """Return the ways on which batches were stored."""
        return {
            sample.labels["path"]
            for metric in metrics.BATCHES.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.value
        }
