"""What people ask in SQL, on a real server: series, buckets, and views by name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import pytest

from sens_common.settings import DatabaseSettings
from support.rollups import begin_rollups, refresh_up_to
from support.servers import owner
from support.stored_rows import Form, Row, insert_measurements

type Connection = asyncpg.Connection[asyncpg.Record]

START: Final = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


@asynccontextmanager
async def tenant(
    database: DatabaseSettings, rows: Sequence[Row] = (), form: Form = Form.READINGS
) -> AsyncIterator[Connection]:
    """Connect as the owner, who sees what a new tenant with these measurements sees."""
    async with owner(database) as connection:
        tenant_id = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ('a') RETURNING id")
        await begin_rollups(connection, START)
        await insert_measurements(connection, "a", rows, form)
        await connection.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant_id))
        yield connection


async def ask(connection: Connection, query: str, *arguments: object) -> list[tuple[object, ...]]:
    """Return the rows of an answer."""
    return [tuple(row) for row in await connection.fetch(query, *arguments)]


def hourly(device: str, metric: str, count: int) -> list[Row]:
    """Return a number for each hour: how many hours after the start."""
    return [(device, metric, START + index * HOUR, float(index)) for index in range(count)]


class TestSeries:
    @pytest.mark.parametrize("form", Form)
    async def test_gives_the_values_of_a_range_in_order_of_time(self, database: DatabaseSettings, form: Form) -> None:
        rows = [*hourly("d", "n", 48), *hourly("d", "other", 48), *hourly("e", "n", 48)]
        async with tenant(database, rows, form) as connection:
            found = await ask(
                connection, "SELECT * FROM sens.series('d', 'n', $1, $2)", START + 10 * HOUR, START + 13 * HOUR
            )
        assert found == [(START + index * HOUR, float(index), None) for index in (10, 11, 12)]

    @pytest.mark.parametrize("form", Form)
    async def test_gives_the_first_or_the_newest_ones_alone_when_asked(
        self, database: DatabaseSettings, form: Form
    ) -> None:
        async with tenant(database, hourly("d", "n", 48), form) as connection:
            query = "SELECT value FROM sens.series('d', 'n', $1, $2, most => 2, descending => $3)"
            first = await ask(connection, query, START, START + 40 * HOUR, False)
            newest = await ask(connection, query, START, START + 40 * HOUR, True)
        assert (first, newest) == ([(0.0,), (1.0,)], [(39.0,), (38.0,)])

    async def test_gives_values_of_all_kinds_that_come_under_a_name(self, database: DatabaseSettings) -> None:
        rows: list[Row] = [
            ("d", "m", START, 21.5),
            ("d", "m", START + HOUR, "broken"),
            ("d", "m", START + 2 * HOUR, True),
        ]
        async with tenant(database, rows) as connection:
            everything = await ask(connection, "SELECT * FROM sens.series('d', 'm', $1)", START)
            two = await ask(connection, "SELECT value, text FROM sens.series('d', 'm', $1, most => 2)", START)
        assert everything == [(START, 21.5, None), (START + HOUR, None, "broken"), (START + 2 * HOUR, 1.0, None)]
        assert two == [(21.5, None), (None, "broken")]

    async def test_refuses_more_than_it_can_give_instead_of_leaving_some_out(self, database: DatabaseSettings) -> None:
        async with tenant(database, hourly("d", "n", 3)) as connection:
            definition = await connection.fetchval(
                "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE oid = 'sens.series'::regproc"
            )
            await connection.execute(
                definition.replace("most_of_all constant int := 1000000", "most_of_all constant int := 2")
            )
            with pytest.raises(asyncpg.ProgramLimitExceededError, match="there are more than 2 values"):
                await ask(connection, "SELECT * FROM sens.series('d', 'n', $1)", START)
            assert (
                len(await ask(connection, "SELECT * FROM sens.series('d', 'n', $1, $2)", START, START + 2 * HOUR)) == 2
            )
            with pytest.raises(asyncpg.InvalidParameterValueError, match="may be from 1 to 2"):
                await ask(connection, "SELECT * FROM sens.series('d', 'n', $1, most => 3)", START)

    async def test_follows_devices_and_metrics_that_are_renamed_deleted_and_erased(
        self, database: DatabaseSettings
    ) -> None:
        rows = [row for device in ("kept", "deleted", "erased") for row in hourly(device, "n", 2)]
        views = ("devices_by_name", "latest_by_name", "measurements_by_name", "series_by_name")
        async with tenant(database, [*rows, *hourly("kept", "gone", 2)]) as connection:
            await connection.fetch("SELECT sens.rename_device('kept', 'renamed', 'test', NULL, NULL)")
            for statement in (
                "SELECT sens.delete_device('deleted', 'test', NULL, NULL)",
                "SELECT sens.erase_device(sha256('erased'), now(), 'test', NULL, NULL)",
                "SELECT sens.delete_metric('gone', NULL, 'test', NULL, NULL)",
            ):
                await connection.execute("UPDATE sens.registrations SET deleted_at = NULL")  # it need not wait here
                await connection.fetch(statement)
            seen = {
                device: len(await ask(connection, "SELECT * FROM sens.series($1, 'n', $2)", device, START))
                for device in ("kept", "renamed", "deleted", "erased")
            }
            names = [await ask(connection, f"SELECT DISTINCT device FROM sens.{view}") for view in views]  # noqa: S608 - our own names
            gone = await ask(connection, "SELECT * FROM sens.series('renamed', 'gone', $1)", START)
            metrics = [
                await ask(connection, f"SELECT DISTINCT metric FROM sens.{view}")  # noqa: S608 - our own names
                for view in views[1:]
            ]
        assert seen == {"kept": 0, "renamed": 2, "deleted": 0, "erased": 0}
        assert names == [[("renamed",)]] * 4
        assert (gone, metrics) == ([], [[("n",)]] * 3)


class TestBuckets:
    async def test_give_the_aggregates_of_whole_and_of_partial_buckets(self, database: DatabaseSettings) -> None:
        async with tenant(database, hourly("d", "n", 48)) as connection:
            found = await ask(
                connection,
                "SELECT * FROM sens.buckets('d', 'n', $1, $2, '1 day')",
                START + 22 * HOUR,
                START + 26 * HOUR,
            )
        assert found == [
            (START, 2, 22.5, 22.0, 23.0, 45.0, 22.0, 23.0, "number"),
            (START + DAY, 2, 24.5, 24.0, 25.0, 49.0, 24.0, 25.0, "number"),
        ]

    @pytest.mark.parametrize("width", ["10 minutes", "1 hour", "6 hours", "1 day", "1 week", "1 month"])
    async def test_are_the_same_from_rollups_and_from_readings(self, database: DatabaseSettings, width: str) -> None:
        query = f"SELECT * FROM sens.buckets('d', 'n', $1, $2, '{width}')"  # noqa: S608 - our own text
        span = (START + HOUR / 3, START + 9 * DAY + HOUR / 2)
        async with tenant(database) as connection:
            await insert_measurements(connection, "a", hourly("d", "n", 10 * 24), Form.READINGS)
            from_readings = await ask(connection, query, *span)
            await refresh_up_to(connection, START + 9 * DAY)
            assert await connection.fetchval("SELECT count(*) FROM sens.rollup_1d") == 9
            from_rollups = await ask(connection, query, *span)
        assert from_rollups == from_readings
        assert sum(int(str(row[1])) for row in from_rollups) == 9 * 24

    async def test_of_days_and_months_begin_at_midnight_in_a_zone(self, database: DatabaseSettings) -> None:
        rows: list[Row] = [("d", "n", datetime(2026, 3, 28, tzinfo=UTC) + index * HOUR, 1.0) for index in range(5 * 24)]
        query = "SELECT ts, count FROM sens.buckets('d', 'n', '2026-03-28Z', '2026-04-02Z', $1::text::interval, $2)"
        async with tenant(database, rows) as connection:
            days = await ask(connection, query, "1 day", "Europe/Vienna")
            months = await ask(connection, query, "1 month", "Europe/Vienna")
            with pytest.raises(asyncpg.InvalidParameterValueError, match="go by UTC"):
                await ask(connection, query, "1 hour", "Europe/Vienna")
        assert days[:3] == [
            (datetime(2026, 3, 27, 23, tzinfo=UTC), 23),
            (datetime(2026, 3, 28, 23, tzinfo=UTC), 23),  # the clock is set forward
            (datetime(2026, 3, 29, 22, tzinfo=UTC), 24),
        ]
        assert months == [(datetime(2026, 2, 28, 23, tzinfo=UTC), 94), (datetime(2026, 3, 31, 22, tzinfo=UTC), 26)]

    async def test_count_texts_and_keep_kinds_apart(self, database: DatabaseSettings) -> None:
        rows: list[Row] = [("d", "m", START, 4.0), ("d", "m", START + HOUR, "x"), ("d", "m", START + 2 * HOUR, True)]
        async with tenant(database, rows) as connection:
            found = await ask(
                connection, "SELECT kind, count, avg FROM sens.buckets('d', 'm', $1, $2, '1 day')", START, START + DAY
            )
        assert found == [("boolean", 1, 1.0), ("number", 1, 4.0), ("text", 1, None)]

    async def test_have_no_sum_that_a_number_can_not_hold(self, database: DatabaseSettings) -> None:
        rows: list[Row] = [("d", "n", START, 1.5e308), ("d", "n", START + HOUR / 2, 1.5e308)]
        async with tenant(database, rows) as connection:
            found = await ask(
                connection, "SELECT avg, sum FROM sens.buckets('d', 'n', $1, $2, '1 day')", START, START + DAY
            )
        assert found == [(1.5e308, None)]

    @pytest.mark.parametrize(
        ("starts", "ends", "width", "error"),
        [
            ("2026-01-01Z", "2026-01-02Z", "1 second", "there would be about 86400 buckets"),
            ("2026-01-01Z", "infinity", "1 day", "a beginning and an end"),
            ("2026-01-01Z", "2026-01-02Z", "0 seconds", "can't be"),
            ("2026-01-01Z", "2026-01-02Z", "-1 day", "can't be"),
            ("2026-01-01Z", "2026-01-02Z", "1 month 1 day", "can't be"),
        ],
    )
    async def test_are_refused_that_are_too_many_or_none(
        self, database: DatabaseSettings, starts: str, ends: str, width: str, error: str
    ) -> None:
        async with tenant(database) as connection:
            with pytest.raises(asyncpg.PostgresError, match=error):
                await ask(
                    connection,
                    "SELECT * FROM sens.buckets('d', 'n', $1::text::timestamptz, $2::text::timestamptz, $3::text::interval)",
                    starts,
                    ends,
                    width,
                )


class TestViews:
    async def test_show_all_that_there_is_by_name(self, database: DatabaseSettings) -> None:
        rows: list[Row] = [
            ("d", "n", START, 1.0),
            ("d", "t", START, "x"),
            ("d", "b", START + HOUR, True),
            ("e", "n", START, 2.0),
        ]
        async with tenant(database, rows) as connection:
            measurements = await ask(connection, "SELECT * FROM sens.measurements_by_name ORDER BY 1, 2")
            latest = await ask(connection, "SELECT * FROM sens.latest_by_name ORDER BY 1, 2")
            of_one = await ask(connection, "SELECT * FROM sens.latest('e')")
            series = await ask(connection, "SELECT * FROM sens.series_by_name ORDER BY 1, 2")
            devices = await ask(connection, "SELECT device, last_seen FROM sens.devices_by_name ORDER BY 1")
        assert measurements == [
            ("d", "b", "boolean", START + HOUR, 1.0, None),
            ("d", "n", "number", START, 1.0, None),
            ("d", "t", "text", START, None, "x"),
            ("e", "n", "number", START, 2.0, None),
        ]
        assert latest == measurements
        assert of_one == measurements[3:]
        assert series == [
            (device, metric, kind, START.date(), START.date()) for device, metric, kind, *_ in measurements
        ]
        assert devices == [("d", None), ("e", None)]

    async def test_leave_out_what_is_null(self, database: DatabaseSettings) -> None:
        async with tenant(database, [*hourly("d", "n", 2), *hourly("d", "m", 2)]) as connection:
            await connection.execute("UPDATE sens.readings SET numbers[1] = NULL WHERE ts = $1", START)
            found = await ask(connection, "SELECT metric, ts FROM sens.measurements_by_name ORDER BY 1, 2")
        assert found == [("m", START), ("m", START + HOUR), ("n", START + HOUR)]

    async def test_of_measurements_read_the_devices_and_the_range_of_a_query_alone(
        self, database: DatabaseSettings
    ) -> None:
        rows = [row for device in range(40) for row in hourly(f"d{device}", "n", 60)]
        async with tenant(database, rows) as connection:
            await connection.execute("ANALYZE")
            plan = await connection.fetchval(
                """
                EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) SELECT ts, value FROM sens.measurements_by_name
                WHERE device = 'd7' AND metric = 'n' AND ts >= '2026-03-03Z' AND ts < '2026-03-03T12:00Z'
                """
            )
        assert '"Seq Scan"' not in plan
        assert "device_id" in plan

    async def test_of_measurements_refuse_to_be_incomplete_while_some_are_not_moved(
        self, database: DatabaseSettings
    ) -> None:
        async with tenant(database, hourly("d", "n", 2), Form.FORMER) as connection:
            for view in ("measurements_by_name", "series_by_name"):
                with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="not all measurements"):
                    await connection.fetch(f"SELECT * FROM sens.{view}")  # noqa: S608 - our own names
            assert len(await ask(connection, "SELECT * FROM sens.latest_by_name")) == 1
