"""Arrow and Parquet over HTTP: what they say, who may ask, what it costs, and a reader that stops reading."""

import contextlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

import asyncpg
import httpx2
import psutil
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from sens_common.settings import DatabaseSettings, NatsSettings
from support.api import RunningApi, as_owner, connection_to, make_tenant, running_api, store
from support.servers import wait_until
from support.stored_rows import Form, Row

ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY: Final = {"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z"}
MEASUREMENTS: Final = "/api/v1/devices/d/measurements"
ROWS: Final[list[Row]] = [
    *[("d", "t", NOW + timedelta(seconds=n), n / 7) for n in range(500)],
    *[("d", "on", NOW + timedelta(seconds=n), n % 3 == 0) for n in range(0, 500, 2)],
    *[("d", "word", NOW + timedelta(seconds=n), f"wört {n}") for n in range(0, 500, 5)],
    *[("e", "t", NOW + timedelta(seconds=n), float(n)) for n in range(0, 500, 3)],
]


def read(answer: httpx2.Response) -> pa.Table:
    assert answer.status_code == HTTPStatus.OK, answer.text
    if answer.headers["content-type"] == ARROW:
        return ipc.open_stream(answer.content).read_all()
    assert answer.headers["content-type"] == PARQUET
    return parquet.read_table(io.BytesIO(answer.content))


@pytest.fixture
def client(api: RunningApi) -> Iterator[httpx2.Client]:
    name, key = api.new_tenant()
    store(api.database, name, ROWS, Form.READINGS)
    with api.client(key) as found:
        yield found


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
class TestTables:
    @pytest.mark.parametrize("path", [MEASUREMENTS, "/api/v1/measurements?device=e&device=d"])
    def test_say_what_json_says(self, client: httpx2.Client, media_type: str, path: str) -> None:
        parameters = httpx2.QueryParams(path.partition("?")[2]).merge(DAY)
        table = read(client.get(path.partition("?")[0], params=parameters, headers={"Accept": media_type}))
        document = client.get(path.partition("?")[0], params=parameters.set("limit", "100000")).json()
        said = {
            (row["time"], row["device"], name): value
            for row in table.to_pylist()
            for name, value in row.items()
            if name not in {"time", "device"} and value is not None
        }
        assert said == {
            (datetime.fromisoformat(row["time"]), row.get("device", "d"), row["metric"]): row["value"]
            for row in document["measurements"]
        }

    def test_of_buckets_say_what_json_says(self, client: httpx2.Client, media_type: str) -> None:
        asked = {**DAY, "bucket": "1h", "aggregate": "avg,count,max", "tz": "Asia/Kolkata", "fill": "null"}
        table = read(client.get(MEASUREMENTS, params=asked, headers={"Accept": media_type}))
        document = client.get(MEASUREMENTS, params=asked).json()
        assert table.drop(["device"]).to_pylist() == [
            {"time": datetime.fromisoformat(row.pop("time")), **row} for row in document["measurements"]
        ]
        assert table.num_rows > 24

    def test_are_refused_with_a_problem_before_they_begin(self, client: httpx2.Client, media_type: str) -> None:
        headers = {"Accept": media_type}
        for path, parameters, status in (
            ("/api/v1/devices/nobody/measurements", {}, 404),
            (MEASUREMENTS, {"metric": "nothing"}, 404),
            (MEASUREMENTS, {"limit": "1000000000"}, 422),
            (MEASUREMENTS, {"from": "later"}, 422),
        ):
            answer = client.get(path, params=parameters, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert answer.json()["detail"]


async def add_readings(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Give each device `d` more readings than the buffers between server and client hold."""
    await connection.execute("SELECT sens.ensure_reading_partitions($1, $1)", NOW)
    await connection.execute(
        """
        INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers)
        SELECT s.device_id, s.metric_set_id, $1::timestamptz + i * interval '10 milliseconds', ARRAY[i, random(), random(), random()]
        FROM sens.device_metric_sets s, generate_series(1, 400000) i
        """,
        NOW,
    )


class TestStreams:
    def test_hold_neither_memory_nor_connections_however_they_are_read(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        keys = [make_tenant(database, name) for name in ("one", "two")]
        for name in ("one", "two"):
            store(database, name, [("d", metric, NOW, 1.0) for metric in "abcd"], Form.READINGS)
        as_owner(database, add_readings)
        settings = {"SENS_DATABASE__POOL_SIZE": "4", "SENS_LIMITS__TABLES_PER_TENANT": "3"}
        with running_api(tmp_path, database, nats, settings) as api, contextlib.ExitStack() as stack:
            process = psutil.Process(api.process.pid)
            assert not any("libarrow" in each.path for each in process.memory_maps())
            other = stack.enter_context(api.client(keys[1]))
            slow = []
            for media_type in (ARROW, PARQUET, ARROW):
                plain = stack.enter_context(connection_to(api, receive_bytes=16_384))
                head = (
                    f"GET {MEASUREMENTS}?from=2026-11-24&to=2026-11-26 HTTP/1.1\r\nHost: x\r\nAccept: {media_type}\r\n"
                )
                plain.sendall(f"{head}Authorization: Bearer {keys[0]}\r\n\r\n".encode())
                assert plain.recv(100).startswith(b"HTTP/1.1 200")
                slow.append(plain)
            wait_until(lambda: _open_transactions(database) == 0, "nothing is open for those who do not read")
            with api.client(keys[0]) as busy:
                refused = busy.get(MEASUREMENTS, params=DAY, headers={"Accept": ARROW})
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many_answers")
                assert busy.get(MEASUREMENTS, params=DAY).status_code == HTTPStatus.OK
            before = highest = process.memory_info().rss
            rows = 0
            with other.stream(
                "GET", MEASUREMENTS, params={"from": "2026-11-24", "to": "2026-11-26"}, headers={"Accept": ARROW}
            ) as answer:
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    highest = max(highest, process.memory_info().rss)
            for batch in ipc.open_stream(bytes(body)):
                rows += batch.num_rows
            assert rows == 400_001
            assert len(body) > 16 << 20
            assert highest - before < 12 << 20
            slow[0].close()
            wait_until(
                lambda: "sens_api_answers_count 2.0" in other.get("/metrics").text, "who goes away is no longer counted"
            )


def _open_transactions(database: DatabaseSettings) -> int:
    async def count(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'platform-api' AND xact_start IS NOT NULL"
        )
        return found

    return as_owner(database, count)
