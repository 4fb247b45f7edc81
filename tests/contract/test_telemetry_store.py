"""What the telemetry pipeline expects of a database, held by the one in memory and by PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.pipeline import RowsRefusedError, Store
from sens_telemetry_worker.rows import Prepared, TextRow, number_rows, prepare
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.memory import MemoryStore
from support.servers import execute_as

type Opener = Callable[[], AbstractAsyncContextManager[Store]]

AT = 1_700_000_000_000_000


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open an empty store, and the same one again."""
    if request.param == "memory":
        memory = MemoryStore()

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Store]:
            yield memory

        return open_memory
    database: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Store]:
        async with open_pool(database, "test") as pool:
            yield TimescaleStore(Database(pool, database))

    return open_database


def rows(*values: tuple[int, int, int, float], texts: tuple[TextRow, ...] = ()) -> Prepared:
    """Prepare rows given as (message, device, microseconds after AT, value), all of metric 1."""
    messages, devices, times, numbers = ([value[column] for value in values] for column in range(4))
    return prepare(
        number_rows(
            [int(m) for m in messages],
            [int(d) for d in devices],
            [1] * len(values),
            [AT + int(t) for t in times],
            numbers,
        ),
        list(texts),
    )


def of_nobody(messages: int) -> NDArray[np.int32]:
    """Return the tenants of a batch whose messages are not counted."""
    return np.zeros(messages, np.int32)


class TestWrite:
    def test_counts_new_values_for_each_message(self, opened: Opener) -> None:
        async def work() -> None:
            async with opened() as store:
                text = TextRow(1, 2, AT, 1, "é")
                written = await store.write(
                    rows((0, 1, 0, 1.0), (0, 1, 1, 2.0), (2, 2, 0, 3.0), texts=(text,)), of_nobody(4)
                )
                assert written.new_values.tolist() == [2, 1, 1, 0]
                assert written.conflicting == set()

        asyncio.run(work())

    def test_of_the_same_again_has_no_effect(self, opened: Opener) -> None:
        async def work() -> None:
            same = rows((0, 1, 0, 1.0), texts=(TextRow(1, 2, AT, 0, "x"),))
            async with opened() as store:
                await store.write(same, of_nobody(1))
                written = await store.write(same, of_nobody(1))
                assert written.new_values.tolist() == [0]
                assert written.conflicting == set()

        asyncio.run(work())

    def test_keeps_the_stored_value_and_names_the_message_with_another_one(self, opened: Opener) -> None:
        async def work() -> None:
            async with opened() as store:
                await store.write(rows((0, 1, 0, 1.0), texts=(TextRow(1, 2, AT, 0, "x"),)), of_nobody(1))
                other = rows((0, 1, 0, 9.0), (1, 1, 0 + 5, 1.0), texts=(TextRow(1, 2, AT, 2, "y"),))
                written = await store.write(other, of_nobody(3))
                assert written.new_values.tolist() == [0, 1, 0]
                assert written.conflicting == {0, 2}

        asyncio.run(work())

    def test_finds_a_home_for_every_time_from_2000_on(self, opened: Opener) -> None:
        async def work() -> None:
            year = 31_557_600_000_000
            async with opened() as store:
                written = await store.write(
                    rows(*((number, 1, -number * year, 1.0) for number in range(23))), of_nobody(23)
                )
                assert written.new_values.tolist() == [1] * 23

        asyncio.run(work())

    def test_by_several_lanes_at_once_stores_everything_once(self, opened: Opener) -> None:
        async def work() -> None:
            async with opened() as store:
                overlapping = [
                    rows(*((number, 1, start + number, 1.0) for number in range(200))) for start in range(0, 400, 50)
                ]
                written = await asyncio.gather(*(store.write(batch, of_nobody(200)) for batch in overlapping))
                assert sum(int(part.new_values.sum()) for part in written) == 550
                assert not any(part.conflicting for part in written)

        asyncio.run(work())


class TestRefusal:
    def test_names_the_message_of_the_row(self, database: DatabaseSettings) -> None:
        async def work() -> tuple[int | None, int | None]:
            async with open_pool(database, "test") as pool:
                await execute_as(
                    database,
                    "ALTER TABLE sens.measurements ADD CHECK (value <> 666)",
                    "ALTER TABLE sens.text_measurements ADD CHECK (value <> 'bad')",
                )
                store = TimescaleStore(Database(pool, database))
                suspects = []
                for refused in (
                    rows((3, 2, 0, 1.0), (8, 1, 0, 666.0), (5, 1, 1, 2.0)),
                    rows((0, 9, 0, 1.0), texts=(TextRow(1, 2, AT, 6, "good"), TextRow(1, 2, AT + 1, 7, "bad"))),
                ):
                    with pytest.raises(RowsRefusedError) as refusal:
                        await store.write(refused, of_nobody(9))
                    suspects.append(refusal.value.suspect)
                return suspects[0], suspects[1]

        assert asyncio.run(work()) == (8, 7)

    def test_that_comes_at_the_commit_names_none(self, database: DatabaseSettings) -> None:
        async def work() -> int | None:
            async with open_pool(database, "test") as pool:
                await execute_as(
                    database,
                    """
                    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON sens.text_measurements DEFERRABLE INITIALLY DEFERRED
                        FOR EACH ROW EXECUTE FUNCTION refuse();
                    """,
                )
                with pytest.raises(RowsRefusedError) as refusal:
                    await TimescaleStore(Database(pool, database)).write(
                        rows(texts=(TextRow(1, 2, AT, 0, "x"),)), of_nobody(1)
                    )
                return refusal.value.suspect

        assert asyncio.run(work()) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.sampled_from([0.0, 1.0])), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_both_stores_answer_alike(database: DatabaseSettings, batches: list[list[tuple[int, int, float]]]) -> None:
    """A law over random batches: PostgreSQL says of each what the dictionary says of it."""

    async def work() -> None:
        memory = MemoryStore()
        async with open_pool(database, "test") as pool:
            await execute_as(
                database,
                "TRUNCATE sens.measurements, sens.message_counts",
                "INSERT INTO sens.tenants (name) VALUES ('a'), ('b') ON CONFLICT DO NOTHING",
            )
            async with pool.acquire() as connection:
                tenant_ids = [row[0] for row in await connection.fetch("SELECT id FROM sens.tenants ORDER BY name")]
            store = TimescaleStore(Database(pool, database))
            for batch in batches:
                prepared = rows(*((number, device, at, value) for number, (device, at, value) in enumerate(batch)))
                tenants = np.array([tenant_ids[device % 2] for device, _, _ in batch], np.int32)
                expected = await memory.write(prepared, tenants)
                written = await store.write(prepared, tenants)
                assert written.new_values.tolist() == expected.new_values.tolist()
                assert written.conflicting == expected.conflicting
            async with pool.acquire() as connection:
                counts = await connection.fetch(
                    "SELECT tenant_id, sum(stored)::int, sum(duplicate)::int FROM sens.message_counts GROUP BY 1"
                )
            assert {row[0]: row[1] for row in counts if row[1]} == memory.stored
            assert {row[0]: row[2] for row in counts if row[2]} == memory.duplicate

    asyncio.run(work())
