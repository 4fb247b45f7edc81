"""The schema on a server that has TimescaleDB: hypertables, the columnstore, late readings."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import numpy as np
import pytest

from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.parts import NO_QUOTA, part_of
from support.rows import INSERT_NAMES, TENANT_ID, KeyedValue, rows_of
from support.servers import owner

type Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.timescaledb

HYPERTABLES = {
    "measurements": (7, "30 days", "device_id,metric_id"),
    "readings": (7, "30 days", "device_id,metric_set_id"),
    "rollup_1d": (360, "720 days", "device_id,metric_id"),
    "rollup_1h": (30, "60 days", "device_id,metric_id"),
    "text_measurements": (7, "30 days", "device_id,metric_id"),
}
"""By name: days of a chunk, after which time a chunk goes to the columnstore, and what its segments are of there."""
OLD = datetime(2025, 6, 3, 12, tzinfo=UTC)
CONFLICT_FREE = "INSERT INTO sens.readings SELECT * FROM incoming ON CONFLICT DO NOTHING"


@pytest.fixture(scope="module")
def server_has_timescaledb(postgres: DatabaseSettings) -> bool:
    async def look() -> bool:
        async with owner(postgres) as connection:
            return bool(
                await connection.fetchval(
                    """
                    SELECT current_setting('timescaledb.disable_load', true) IS NOT NULL
                       AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
                    """
                )
            )

    return asyncio.run(look())


@pytest.fixture
def timescaledb(server_has_timescaledb: bool, request: pytest.FixtureRequest) -> DatabaseSettings:
    """A database whose measurements are hypertables."""
    if not server_has_timescaledb:
        pytest.skip(
            "needs TimescaleDB, which this PostgreSQL server does not have or does not preload; SENS_TEST_POSTGRES_BIN names the"
            " programs of an installation that has it, SENS_TEST_DATABASE_URL a server"
        )
    database: DatabaseSettings = request.getfixturevalue("database")
    return database


@pytest.fixture
def columnstore(timescaledb: DatabaseSettings) -> DatabaseSettings:
    """A database whose TimescaleDB has the columnstore and its policies (2.18 or newer, not the Apache edition)."""

    async def has_policies() -> bool:
        async with owner(timescaledb) as connection:
            return bool(
                await connection.fetchval(
                    """
                    SELECT current_setting('timescaledb.license') = 'timescale'
                       AND EXISTS (SELECT FROM pg_proc WHERE proname = 'add_columnstore_policy')
                    """
                )
            )

    if not asyncio.run(has_policies()):
        pytest.skip("needs TimescaleDB 2.18 or newer in its community edition, for the columnstore's policies")
    return timescaledb


async def run[T](database: DatabaseSettings, work: Callable[[Connection], Awaitable[T]]) -> T:
    async with owner(database) as connection:
        return await work(connection)


async def copy(connection: Connection, rows: list[tuple[int, int, datetime, float]], table: str = "readings") -> None:
    """Store readings of one number: device, metric set, time and value."""
    await connection.copy_records_to_table(
        table,
        schema_name="sens" if table == "readings" else None,
        columns=["device_id", "metric_set_id", "ts", "numbers"],
        records=[(device, metric_set, at, [value]) for device, metric_set, at, value in rows],
    )


async def chunks(connection: Connection, table: str = "readings") -> list[asyncpg.Record]:
    return await connection.fetch(
        """
        SELECT format('%I.%I', chunk_schema, chunk_name) AS name, range_start, range_end, is_compressed
        FROM timescaledb_information.chunks WHERE hypertable_schema = 'sens' AND hypertable_name = $1
        ORDER BY range_start
        """,
        table,
    )


async def fill_columnstore(connection: Connection) -> None:
    """Store readings of a day of two devices, and move them to the columnstore."""
    await copy(connection, [(1, 1, OLD + timedelta(minutes=n), n / 2) for n in range(600)] + [(2, 1, OLD, -1.0)])
    for chunk in await chunks(connection):
        await connection.execute(f"CALL convert_to_columnstore('{chunk['name']}')")
    assert all(chunk["is_compressed"] for chunk in await chunks(connection))


class TestHypertables:
    async def test_are_what_the_migrations_choose_here(self, timescaledb: DatabaseSettings) -> None:
        async def kind(connection: Connection) -> str:
            return str(await connection.fetchval("SELECT kind FROM sens.storage"))

        assert await run(timescaledb, kind) == "timescaledb"

    async def test_hold_what_they_hold_in_chunks_of_a_length(self, timescaledb: DatabaseSettings) -> None:
        async def dimensions(connection: Connection) -> list[tuple[object, ...]]:
            return [
                tuple(row)
                for row in await connection.fetch(
                    """
                    SELECT hypertable_name, column_name, time_interval FROM timescaledb_information.dimensions
                    WHERE hypertable_schema = 'sens' AND hypertable_name = ANY ($1) ORDER BY 1
                    """,
                    list(HYPERTABLES),
                )
            ]

        assert await run(timescaledb, dimensions) == [
            (name, "ts", timedelta(days=days)) for name, (days, _, _) in HYPERTABLES.items()
        ]

    async def test_have_an_index_of_the_key_and_one_of_the_times(self, timescaledb: DatabaseSettings) -> None:
        async def indexes(connection: Connection) -> list[str]:
            await copy(connection, [(1, 1, OLD, 1.0)])
            (chunk,) = await chunks(connection)
            rows = await connection.fetch(
                """
                SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index
                WHERE indrelid = ANY (ARRAY['sens.readings', $1::text]::regclass[])
                """,
                chunk["name"],
            )
            return sorted(row["definition"].partition(" USING ")[2] for row in rows)

        of_times = "brin (ts) WITH (pages_per_range='32', autosummarize='on')"
        assert await run(timescaledb, indexes) == [of_times, of_times, *["btree (device_id, ts)"] * 2]

    async def test_find_a_chunk_for_a_late_reading(self, timescaledb: DatabaseSettings) -> None:
        late = datetime(2001, 3, 15, tzinfo=UTC)

        async def store(connection: Connection) -> list[asyncpg.Record]:
            await connection.execute("SELECT sens.ensure_reading_partitions($1, $1)", late)
            await copy(connection, [(1, 1, late, 5.0), (1, 1, datetime.now(UTC), 6.0)])
            assert await connection.fetchval("SELECT numbers FROM sens.readings WHERE ts = $1", late) == [5]
            return await chunks(connection)

        first, _ = await run(timescaledb, store)
        assert first["range_start"] <= late < first["range_end"]

    async def test_refuse_a_second_copy_of_a_key_and_take_it_by_the_conflict_path(
        self, timescaledb: DatabaseSettings
    ) -> None:
        rows = [(1, 1, OLD, 1.0), (2, 1, OLD, 2.0)]

        async def store(connection: Connection) -> tuple[str, list[tuple[object, ...]]]:
            await copy(connection, rows)
            with pytest.raises(asyncpg.UniqueViolationError):
                await copy(connection, [(1, 1, OLD, 9.0), (3, 1, OLD, 3.0)])
            await connection.execute("CREATE TEMP TABLE incoming (LIKE sens.readings)")
            await copy(connection, [(1, 1, OLD, 9.0), (3, 1, OLD, 3.0)], table="incoming")
            status = await connection.execute(CONFLICT_FREE)
            stored = await connection.fetch(
                "SELECT device_id, metric_set_id, ts, numbers[1] FROM sens.readings ORDER BY 1"
            )
            return status, [tuple(row) for row in stored]

        assert await run(timescaledb, store) == ("INSERT 0 1", [*rows, (3, 1, OLD, 3.0)])


class TestColumnstore:
    async def test_takes_old_chunks_by_itself(self, columnstore: DatabaseSettings) -> None:
        async def policies(connection: Connection) -> dict[str, asyncpg.Record]:
            rows = await connection.fetch(
                """
                SELECT j.hypertable_name, j.config ->> 'compress_after' AS after, s.segmentby, s.orderby
                FROM timescaledb_information.jobs j
                JOIN timescaledb_information.hypertable_columnstore_settings s
                  ON s.hypertable = format('%I.%I', j.hypertable_schema, j.hypertable_name)::regclass
                WHERE j.hypertable_schema = 'sens'
                """
            )
            return {row["hypertable_name"]: row for row in rows}

        found = await run(columnstore, policies)
        assert {name: tuple(policy)[1:] for name, policy in found.items()} == {
            name: (after, segments, "ts") for name, (_, after, segments) in HYPERTABLES.items()
        }

    async def test_is_filled_by_the_policy(self, columnstore: DatabaseSettings) -> None:
        async def let_it_work(connection: Connection) -> list[bool]:
            await copy(connection, [(1, 1, OLD, 1.0), (1, 1, datetime.now(UTC), 2.0)])
            job = await connection.fetchval(
                "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'readings' AND proc_name = 'policy_compression'"
            )
            await connection.execute("CALL run_job($1)", job)
            return [chunk["is_compressed"] for chunk in await chunks(connection)]

        assert await run(columnstore, let_it_work) == [True, False]

    async def test_gives_the_api_no_right_on_its_chunks(self, columnstore: DatabaseSettings) -> None:
        async def readable(connection: Connection) -> list[str]:
            await fill_columnstore(connection)
            rows = await connection.fetch(
                """
                SELECT oid::regclass::text AS name, has_table_privilege($1, oid, 'SELECT') AS readable FROM pg_class
                WHERE relnamespace = '_timescaledb_internal'::regnamespace AND relkind = 'r' AND relname LIKE '%hyper%chunk%'
                """,
                API_ROLE,
            )
            assert len(rows) >= 2
            return [row["name"] for row in rows if row["readable"]]

        assert await run(columnstore, readable) == []

    async def test_takes_a_late_reading_and_refuses_a_second_copy_of_a_key(self, columnstore: DatabaseSettings) -> None:
        between = OLD + timedelta(seconds=30)

        async def store(connection: Connection) -> tuple[str, float, float]:
            await fill_columnstore(connection)
            with pytest.raises(asyncpg.UniqueViolationError):
                await copy(connection, [(1, 1, OLD, 9.0)])
            await copy(connection, [(1, 1, between, 7.0)])
            await connection.execute("CREATE TEMP TABLE incoming (LIKE sens.readings)")
            await copy(connection, [(1, 1, OLD, 9.0), (1, 1, between, 9.0), (3, 1, OLD, 3.0)], table="incoming")
            status = await connection.execute(CONFLICT_FREE)
            query = "SELECT numbers[1] FROM sens.readings WHERE device_id = 1 AND ts = $1"
            return status, await connection.fetchval(query, OLD), await connection.fetchval(query, between)

        assert await run(columnstore, store) == ("INSERT 0 1", 0.0, 7.0)

    async def test_recognises_thousands_of_duplicates_in_the_time_of_a_statement(
        self, columnstore: DatabaseSettings
    ) -> None:
        async def fill(connection: Connection) -> None:
            await connection.execute(INSERT_NAMES)
            await connection.execute(
                f"""
                WITH new AS (INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES ({TENANT_ID}, '{{1,4,7}}', '{{}}') RETURNING id)
                INSERT INTO sens.readings
                SELECT device, new.id, $1::timestamptz + step * interval '1 minute', array_fill(step::float8, ARRAY[3])
                FROM new, generate_series(1, 100) device, generate_series(0, 199) step
                """,  # noqa: S608 - our own number
                OLD,
            )
            for chunk in await chunks(connection, "readings"):
                await connection.execute(f"CALL convert_to_columnstore('{chunk['name']}')")

        await run(columnstore, fill)
        keys = [(device, step) for device in range(1, 101) for step in range(50)]
        microseconds = int(OLD.timestamp() * 1_000_000)
        values = [
            KeyedValue(
                index,
                device,
                microseconds + step * 60_000_000 + (index == 4321),
                metric,
                -1.0 if index == 1234 else float(step),
            )
            for index, (device, step) in enumerate(keys)
            for metric in (1, 4, 7)
        ]
        rows = rows_of(values)
        async with open_pool(columnstore, "test") as pool:
            written = await TimescaleStore(Database(pool, columnstore), NO_QUOTA).write(part_of(rows, len(keys)))
        assert np.flatnonzero(written.new_values).tolist() == [4321]
        assert [letter.message_index for letter in written.letters] == [1234]
