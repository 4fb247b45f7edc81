"""Aggregates that the API reads from rollups."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx2
import pytest

from sens_common.migrations import migrate
from support.api import RunningApi, as_owner, make_stream, running_api, store
from support.databases import Databases
from support.rollups import DAY, HOUR, begin_rollups, refresh_up_to
from support.servers import nats_server, scratch_folder
from support.stored_rows import Form

START = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PATH = "/api/v1/devices/d/measurements"


@pytest.fixture(scope="module")
def api(databases: Databases) -> Iterator[RunningApi]:
    """An API whose database has rollups from March on, and nothing in the form of versions before."""
    with scratch_folder("sens-api-") as folder, databases.new(migrate) as database, nats_server(folder) as nats:
        asyncio.run(make_stream(nats))

        async def begin(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            await begin_rollups(connection, START)
            await connection.execute(
                "CREATE OR REPLACE FUNCTION sens.has_former_rows(device int) RETURNS boolean LANGUAGE sql STABLE RETURN false"
            )

        as_owner(database, begin)
        with running_api(folder, database, nats) as running:
            yield running


@pytest.fixture
def own(api: RunningApi) -> Iterator[tuple[str, httpx2.Client]]:
    """A tenant with four days of a reading every 20 minutes, three and a half of them in the rollups, and its client."""
    name, key = api.new_tenant()
    times = [START + index * 20 * MINUTE for index in range(4 * 72)]
    store(api.database, name, [("d", "t", at, float(index % 72)) for index, at in enumerate(times)], Form.READINGS)
    as_owner(api.database, lambda connection: refresh_up_to(connection, START + 3 * DAY + 12 * HOUR))
    with api.client(key) as client:
        yield name, client


def asked(
    client: httpx2.Client, first: datetime, past: datetime, bucket: str
) -> tuple[list[tuple[float, ...]], list[str]]:
    """Return average, minimum, maximum and count of each bucket, and what they were made of."""
    aggregates = "avg,min,max,count"
    parameters = {"from": first.isoformat(), "to": past.isoformat(), "bucket": bucket, "aggregate": aggregates}
    answer = client.get(PATH, params=parameters).json()
    rows = [tuple(row[name] for name in aggregates.split(",")) for row in answer["measurements"]]
    return rows, answer["sources"]


class TestSources:
    def test_are_days_for_whole_days(self, own: tuple[str, httpx2.Client]) -> None:
        _, client = own
        assert asked(client, START, START + 2 * DAY, "1d") == ([(35.5, 0.0, 71.0, 72)] * 2, ["1d"])
        assert asked(client, START, START + 2 * DAY, "7d") == ([(35.5, 0.0, 71.0, 144)], ["1d"])

    def test_are_hours_for_whole_hours(self, own: tuple[str, httpx2.Client]) -> None:
        _, client = own
        rows, sources = asked(client, START + HOUR, START + 9 * HOUR, "4h")
        assert (rows, sources) == ([(7.0, 3.0, 11.0, 9), (17.5, 12.0, 23.0, 12), (25.0, 24.0, 26.0, 3)], ["1h"])

    def test_are_the_readings_at_the_ends_of_a_range_and_where_rollups_are_not_yet(
        self, own: tuple[str, httpx2.Client]
    ) -> None:
        _, client = own
        rows, sources = asked(client, START + 20 * MINUTE, START + 4 * DAY, "1d")
        assert rows == [(36.0, 1.0, 71.0, 71), *[(35.5, 0.0, 71.0, 72)] * 3]
        assert sources == ["1d", "raw"]

    def test_are_the_readings_for_other_widths(self, own: tuple[str, httpx2.Client]) -> None:
        _, client = own
        rows, sources = asked(client, START, START + 3 * HOUR, "90m")
        assert (rows, sources) == ([(2.0, 0.0, 4.0, 5), (6.5, 5.0, 8.0, 4)], ["raw"])

    def test_have_a_late_reading_at_once(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        name, client = own
        store(api.database, name, [("d", "t", START + 5 * HOUR + MINUTE, 1000.0)], Form.READINGS)
        rows, sources = asked(client, START, START + DAY, "1d")
        assert (rows[0][2:], sources) == ((1000.0, 73), ["raw"])
        as_owner(api.database, lambda connection: refresh_up_to(connection, START + 3 * DAY + 12 * HOUR))
        assert asked(client, START, START + DAY, "1d") == (rows, ["1d"])

    def test_average_what_is_too_large_to_be_summed(self, api: RunningApi) -> None:
        name, key = api.new_tenant()
        values = [1.7e308, 1.7e308, 1.0, 2.0]
        rows = [("d", "t", START + index * 40 * MINUTE, value) for index, value in enumerate(values)]
        store(api.database, name, rows, Form.READINGS)
        as_owner(api.database, lambda connection: refresh_up_to(connection, START + 3 * DAY + 12 * HOUR))
        with api.client(key) as client:
            averages, sources = asked(client, START, START + DAY, "1h")
            assert [row[0] for row in averages] == [1.7e308, 1.0, 2.0]
            assert sources == ["1h", "raw"]
            (day,), sources = asked(client, START, START + DAY, "1d")
            assert day[0] == pytest.approx(8.5e307)
            assert sources == ["raw"]

    def test_are_rollups_where_the_readings_are_not_kept_any_more(
        self, api: RunningApi, own: tuple[str, httpx2.Client]
    ) -> None:
        _, client = own

        async def expire(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            device = await connection.fetchval("SELECT max(id) FROM sens.devices")
            await connection.execute("DELETE FROM sens.readings WHERE device_id = $1 AND ts < $2", device, START + DAY)
            await connection.execute("INSERT INTO sens.expired VALUES ($1, 0, 'raw', $2)", device, START + DAY)

        as_owner(api.database, expire)
        assert asked(client, START - DAY, START + 2 * DAY, "1d") == ([(35.5, 0.0, 71.0, 72)] * 2, ["1d"])
        assert len(asked(client, START - DAY, START + 2 * DAY, "1h")[0]) == 48
