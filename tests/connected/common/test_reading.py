"""The functions by which the API reads, on a real server: whose values they show, and that they find every value."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg
import pytest

from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from sens_platform_api.measurements.columns import floats, integers
from support.servers import owner
from support.stored_rows import Form, Row, insert_measurements

type Connection = asyncpg.Connection[asyncpg.Record]

NOON: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALWAYS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
DAYS: Final = "ARRAY(SELECT generate_series(timestamptz '2026-01-01Z', '2026-12-31Z', '1 day'))"
READS: Final = {
    "device_series": "SELECT * FROM sens.device_series($1)",
    "latest_values": "SELECT * FROM sens.latest_values($1)",
    "latest_of_devices": "SELECT * FROM sens.latest_of_devices(ARRAY[$1::int])",
    "element_counts": "SELECT * FROM sens.element_counts(ARRAY[$1::int])",
    "number_page": "SELECT * FROM sens.number_page($1, 1, '1970-01-01Z', '2100-01-01Z', true, 10)",
    "text_page": "SELECT * FROM sens.text_page($1, 2, '1970-01-01Z', '2100-01-01Z', true, 10)",
    "number_buckets": "SELECT * FROM sens.number_buckets($1, 1, '1970-01-01Z', '2100-01-01Z', '1 day', '2001-01-01Z', false)",
    "text_buckets": "SELECT * FROM sens.text_buckets($1, 2, '1970-01-01Z', '2100-01-01Z', '1 day', '2001-01-01Z')",
    "edge_aggregates": f"SELECT * FROM sens.edge_aggregates($1, 1, '1970-01-01Z', '2100-01-01Z', {DAYS}, '{{p50}}', false)",  # noqa: S608 - a text of this module
    "edge_counts": f"SELECT * FROM sens.edge_counts($1, 2, '1970-01-01Z', '2100-01-01Z', {DAYS})",  # noqa: S608 - a text of this module
    "edge_extremes": f"SELECT * FROM sens.edge_extremes($1, 1, '1970-01-01Z', '2100-01-01Z', {DAYS})",  # noqa: S608 - a text of this module
    "reading_columns": (
        "SELECT * FROM sens.reading_columns(ARRAY[$1::int], '{1}', '{2}', '{1970-01-01Z}', '{2100-01-01Z}', false, 10, 1000)"
    ),
    "first_bucket": """
        SELECT b FROM sens.first_bucket($1, 1, '1970-01-01Z', '2100-01-01Z', '1 day', '2001-01-01Z', true) b WHERE b IS NOT NULL
    """,
}
"""Questions about a device; in the tests that ask them, metric 1 has numbers and metric 2 texts."""
PARTS: Final = (
    "has_former_rows",
    "former_rows_from",
    "series_statements",
    "page_statement",
    "series_range",
    "series_page",
    "former_metrics",
    "former_latest",
    "newest_elements",
    "filled_elements",
    "newest_values",
    "bucket_sources",
    "values_statement",
    "values_between",
    "as_float8",
    "element_expressions",
    "readings_statement",
    "whole_readings_statement",
    "calibrations_of",
    "calibrated",
    "calibrated_at",
    "calibrated_expression",
    "scale_expression",
    "linear_expression",
    "calibrated_sources",
    "valid_calibration",
    "profiles_of_devices",
)
"""Functions that ask for no tenant; those of `READS` call them."""


async def add_tenant(connection: Connection, name: str, rows: Sequence[Row] = (), form: Form = Form.READINGS) -> int:
    """Make a tenant with measurements; return its id."""
    tenant: int = await connection.fetchval("INSERT INTO sens.tenants (name) VALUES ($1) RETURNING id", name)
    if rows:
        await insert_measurements(connection, name, rows, form)
    return tenant


async def see(connection: Connection, tenant: int) -> None:
    """See what a tenant sees, until the end of the session."""
    await connection.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))


async def latest(connection: Connection, device: int) -> dict[str, tuple[datetime, float | str]]:
    """Return the time and the value of each metric's latest value."""
    rows = await connection.fetch("SELECT name, kind, ts, number, string FROM sens.latest_values($1)", device)
    return {name: (ts, string if kind == "text" else number) for name, kind, ts, number, string in rows}


@pytest.mark.parametrize("form", Form)
class TestFunctions:
    async def test_show_a_tenant_its_own_values_alone(self, database: DatabaseSettings, form: Form) -> None:
        async with owner(database) as connection:
            rows: list[Row] = [("d", "n", NOON + timedelta(days=day), 1.0) for day in range(3)]
            rows += [("d", "t", time, "secret") for _, _, time, _ in rows]
            tenant = await add_tenant(connection, "a", rows, form)
            other = await add_tenant(connection, "b")
            device = await connection.fetchval("SELECT id FROM sens.devices")
        api = await connect(database, "test", role=API_ROLE)
        try:
            seen = {}
            for asking in (tenant, other, None):
                await api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(asking or ""))
                seen[asking] = {name: len(await api.fetch(query, device)) for name, query in READS.items()}
        finally:
            await api.close()
        nothing = dict.fromkeys(READS, 0)
        assert seen[tenant] == nothing | {
            "device_series": 2,
            "latest_values": 2,
            "latest_of_devices": 2,
            "element_counts": 0 if form is Form.FORMER else 1,
            "number_page": 3,
            "text_page": 3,
            "number_buckets": 3,
            "text_buckets": 3,
            "edge_aggregates": 3,
            "edge_counts": 3,
            "edge_extremes": 3,
            "reading_columns": 1,
            "first_bucket": 1,
        }
        assert (seen[other], seen[None]) == (nothing, nothing)

    async def test_do_not_show_values_of_a_metric_that_is_deleted(self, database: DatabaseSettings, form: Form) -> None:
        async with owner(database) as connection:
            rows: list[Row] = [("d", "n", NOON, 1.0), ("d", "t", NOON, "x"), ("d", "m", NOON, 2.0)]
            await see(connection, await add_tenant(connection, "a", rows, form))
            device = await connection.fetchval("SELECT id FROM sens.devices")
            await connection.execute("DELETE FROM sens.metrics WHERE id < 3")
            seen = {
                name: [tuple(row) for row in await connection.fetch(query, device)] for name, query in READS.items()
            }
        assert seen == {name: [] for name in READS} | {
            "device_series": [(3, "m", "number")],
            "latest_values": [(3, "m", "number", NOON, 2.0, None)],
            "element_counts": [] if form is Form.FORMER else [(device, 3)],
            "latest_of_devices": [(device, 3, "m", "number", NOON, 2.0, None)],
        }


class TestRights:
    async def test_of_the_api_are_to_ask_and_not_to_look_into_the_tables(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            allowed = await connection.fetch(
                """
                SELECT DISTINCT proname FROM pg_proc
                WHERE pronamespace = 'sens'::regnamespace AND proname = ANY ($2) AND has_function_privilege($1, oid, 'EXECUTE')
                """,
                API_ROLE,
                [*READS, *PARTS],
            )
            readable = [
                table
                for table in ("readings", "metric_sets", "device_metric_sets", "measurements", "text_measurements")
                if await connection.fetchval("SELECT has_table_privilege($1, 'sens.' || $2, 'SELECT')", API_ROLE, table)
            ]
        assert {row["proname"] for row in allowed} == READS.keys()
        assert readable == []


class TestPages:
    async def test_find_a_metric_wherever_it_is_in_the_sets_of_a_device(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            rows: list[Row] = []
            # The metric n is the first of its set, the second or the third, and sometimes not there.
            for step in range(40):
                time = NOON + timedelta(days=step)
                beside = (["n"], ["a", "n"], ["a", "b", "n"], ["a", "b"])[step % 4]
                rows += [("d", metric, time, float(step) if metric == "n" else -1.0) for metric in beside]
            # Names get ids in the order in which they are seen.
            await see(
                connection, await add_tenant(connection, "a", [("d", m, NOON - timedelta(days=1), 0.0) for m in "abn"])
            )
            await insert_measurements(connection, "a", rows, Form.READINGS)
            device = await connection.fetchval("SELECT id FROM sens.devices")
            metric = await connection.fetchval("SELECT id FROM sens.metrics WHERE name = 'n'")
            query = "SELECT ts, value FROM sens.number_page($1, $2, $3, $4, $5, $6)"
            ascending = await connection.fetch(query, device, metric, NOON, NOON + timedelta(days=30), False, 100)
            descending = await connection.fetch(query, device, metric, NOON, NOON + timedelta(days=30), True, 5)
        expected = [(NOON + timedelta(days=step), float(step)) for step in range(30) if step % 4 != 3]
        assert [tuple(row) for row in ascending] == expected
        assert [tuple(row) for row in descending] == expected[::-1][:5]


class TestLatest:
    async def _device(self, connection: Connection, rows: Sequence[Row]) -> int:
        await see(connection, await add_tenant(connection, "a", rows))
        device: int = await connection.fetchval("SELECT id FROM sens.devices")
        return device

    async def test_is_found_before_readings_that_have_no_value_of_the_metric(self, database: DatabaseSettings) -> None:
        times = [NOON - timedelta(days=days) for days in (0, 1, 2, 40, 800)]
        async with owner(database) as connection:
            rows = [("d", metric, time, 1.0) for time in times for metric in ("n", "rare", "gone")]
            device = await self._device(connection, [*rows, *(("d", "t", time, "x") for time in times)])
            await connection.execute(
                "UPDATE sens.readings SET numbers[3] = NULL, texts[1] = NULL WHERE ts > $1", times[3]
            )
            await connection.execute("UPDATE sens.readings SET numbers[2] = NULL WHERE ts > $1", times[4])
            await connection.execute("UPDATE sens.readings SET numbers[3] = NULL")
            found = await latest(connection, device)
        assert found == {"n": (times[0], 1.0), "rare": (times[4], 1.0), "t": (times[3], "x")}

    async def test_is_found_before_a_last_day_that_has_no_reading_any_more(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            device = await self._device(
                connection, [("d", "n", NOON - timedelta(days=100), 1.0), ("d", "n", NOON, 2.0)]
            )
            await connection.execute("DELETE FROM sens.readings WHERE ts = $1", NOON)
            assert await connection.fetchval("SELECT last_day FROM sens.device_metric_sets") == date(2026, 1, 31)
            assert await latest(connection, device) == {"n": (NOON - timedelta(days=100), 1.0)}
            await connection.execute("DELETE FROM sens.readings")
            assert await latest(connection, device) == {}

    async def test_of_metrics_that_come_one_by_one_is_found_in_each_of_many_sets(
        self, database: DatabaseSettings
    ) -> None:
        times = [NOON + timedelta(minutes=minute) for minute in range(300)]
        async with owner(database) as connection:
            # As of a device that has used up its sets: each reading has one value among those of all metrics until then.
            names = [f"n{index:03}" for index in range(300)]
            rows: list[Row] = [("d", name, NOON - timedelta(days=1), 0.0) for name in names]
            device = await self._device(connection, [*rows, ("d", "t", NOON - timedelta(days=1), "x")])
            for step, time in enumerate(times):
                beside = names[: step // 20 * 20 + 20]
                rows = [("d", other, time, 1.0) for other in beside]
                await insert_measurements(connection, "a", rows, Form.READINGS)
                await connection.execute(
                    "UPDATE sens.readings SET numbers = array_fill(NULL::float8, ARRAY[$2::int]) WHERE ts = $1",
                    time,
                    len(beside),
                )
                await connection.execute(
                    "UPDATE sens.readings SET numbers[$2] = $3 WHERE ts = $1", time, step + 1, float(step)
                )
            found = await latest(connection, device)
        assert found == {"t": (NOON - timedelta(days=1), "x")} | {
            name: (time, float(step)) for step, (name, time) in enumerate(zip(names, times, strict=True))
        }

    async def test_is_the_newest_of_all_sets_and_forms(self, database: DatabaseSettings) -> None:
        async with owner(database) as connection:
            device = await self._device(
                connection,
                [
                    *(("d", metric, NOON, 1.0) for metric in "abc"),
                    *(("d", metric, NOON - timedelta(days=50), 2.0) for metric in "bc"),
                    *(("d", metric, NOON + timedelta(seconds=1), 3.0) for metric in "ad"),
                ],
            )
            # The set of a, b and c has lost its newest b, and the other one with a b is older.
            await connection.execute("UPDATE sens.readings SET numbers[2] = NULL WHERE ts = $1", NOON)
            former: list[Row] = [
                ("d", "c", NOON + timedelta(hours=1), 4.0),
                ("d", "d", NOON, 5.0),
                ("d", "e", NOON, "6"),
            ]
            await insert_measurements(connection, "a", former, Form.FORMER)
            found = await latest(connection, device)
        assert found == {
            "a": (NOON + timedelta(seconds=1), 3.0),
            "b": (NOON - timedelta(days=50), 2.0),
            "c": (NOON + timedelta(hours=1), 4.0),
            "d": (NOON + timedelta(seconds=1), 3.0),
            "e": (NOON, "6"),
        }


class TestColumns:
    @pytest.mark.parametrize(
        "odd",
        ["ARRAY[NULL, 2]::float8[]", "ARRAY[1]::float8[]", "'{}'", "NULL"],
        ids=["an element missing", "a shorter array", "an empty one", "none"],
    )
    async def test_tell_what_is_missing_among_rows_that_are_whole(self, database: DatabaseSettings, odd: str) -> None:
        async with owner(database) as connection:
            rows: list[Row] = [("d", name, NOON + timedelta(days=day), 7.0) for day in range(80) for name in "ab"]
            await see(connection, await add_tenant(connection, "a", rows))
            device = await connection.fetchval("SELECT id FROM sens.devices")
            await connection.execute(
                f"UPDATE sens.readings SET numbers = {odd} WHERE ts = $1",  # noqa: S608 - of this test
                NOON + timedelta(days=70),
            )
            parts = await connection.fetch(
                "SELECT * FROM sens.reading_columns(ARRAY[$1::int], '{1, 2}', '{}', ARRAY[$2::timestamptz], ARRAY[$3::timestamptz], false, 100, 1000)",
                device, *ALWAYS,
            )  # fmt: skip
        found = {
            integers(part["times"])[index]: (first, second)
            for part in parts
            for index, (first, second) in enumerate(zip(*floats(part["numbers"], 2), strict=True))
        }
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        wanted = {(NOON + timedelta(days=day) - epoch) // timedelta(microseconds=1): (7.0, 7.0) for day in range(80)}
        at = (NOON + timedelta(days=70) - epoch) // timedelta(microseconds=1)
        rest = {"ARRAY[NULL, 2]::float8[]": (None, 2.0), "ARRAY[1]::float8[]": (1.0, None)}.get(odd)
        if rest is None:
            del wanted[at]
            assert found == wanted
        else:
            assert tuple(None if math.isnan(each) else each for each in found.pop(at)) == rest
            del wanted[at]
            assert found == wanted
