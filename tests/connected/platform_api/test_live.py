"""Live data of the API's process on real servers."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import asyncpg
import httpx2
import psutil
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from sens_common import live
from sens_common.jetstream import connect, flush_all
from sens_common.live import LiveReading
from sens_common.settings import DatabaseSettings, NatsSettings
from support.api import RunningApi, as_owner, make_tenant, running_api, set_environment
from support.command_line import sens
from support.servers import nats_server, wait_until


def publish(nats: NatsSettings, tenant: str, readings: list[LiveReading]) -> None:
    async def run() -> None:
        async with connect(nats, "test") as client:
            await client.publish(live.subject(tenant), live.encode(readings))

    with capture_logs():
        asyncio.run(run())


def next_event(lines: Iterator[str]) -> tuple[str, object]:
    """Return the name and the data of the next event, past comments."""
    for line in lines:
        if line.startswith("event: "):
            return line.removeprefix("event: "), json.loads(next(lines).removeprefix("data: "))
    pytest.fail("the stream ended")


class TestLive:
    def test_shows_a_tenants_readings_as_they_come(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        other, _ = api.new_tenant()
        with api.client(key) as client, client.stream("GET", "/api/v1/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.iter_lines()
            assert next(lines) == "retry: 2000"
            publish(api.nats, other, [LiveReading("theirs", "t", 0, 1.0)])
            publish(
                api.nats,
                tenant,
                [LiveReading("d", "t", 1_700_000_000_123_456, 21.5), LiveReading("d", "door", 0, True)],
            )
            time = "2023-11-14T22:13:20.123456Z"
            assert next_event(lines) == ("reading", {"device": "d", "metric": "t", "time": time, "value": 21.5})
            _, door = next_event(lines)
            assert isinstance(door, dict)
            assert door["value"] is True

    def test_shows_only_the_devices_that_are_named(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        parameters = {"device": ["00-11-22-33-44-55", "d2"]}
        with api.client(key) as client, client.stream("GET", "/api/v1/live", params=parameters) as answer:
            lines = answer.iter_lines()
            next(lines)
            names = ("d1", "001122334455", "d2")
            publish(api.nats, tenant, [LiveReading(name, "t", 0, 1.0) for name in names])
            events = [next_event(lines)[1] for _ in range(2)]
            assert [event["device"] for event in events if isinstance(event, dict)] == ["001122334455", "d2"]

    def test_gives_an_idle_reader_the_whole_of_a_backlog(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client, client.stream("GET", "/api/v1/live") as answer:
            lines = answer.iter_lines()
            next(lines)
            publish(api.nats, tenant, [LiveReading("sensor-0001", "temperature", i, float(i)) for i in range(3000)])
            values = []
            for _ in range(3000):
                name, event = next_event(lines)
                assert name == "reading"
                assert isinstance(event, dict)
                values.append(event["value"])
            assert values == [float(i) for i in range(3000)]

    def test_keeps_a_bounded_amount_for_those_who_do_not_read(self, tmp_path: Path, database: DatabaseSettings) -> None:
        key = make_tenant(database, "demo")
        settings = {"SENS_LIMITS__LIVE_BYTES": "65536"}
        with (
            nats_server(tmp_path) as nats,
            running_api(tmp_path, database, nats, settings) as api,
            contextlib.ExitStack() as stack,
        ):
            url, streams = httpx2.URL(api.url), []
            for _ in range(20):
                plain = stack.enter_context(socket.socket())
                plain.settimeout(30)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
                plain.connect((url.host, url.port or 80))
                plain.sendall(f"GET /api/v1/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
                assert plain.recv(100).startswith(b"HTTP/1.1 200")
                streams.append(plain)
            process = psutil.Process(api.process.pid)
            before = process.memory_info().rss
            texts = [LiveReading("d", "note", i, "x" * 4000) for i in range(100)]
            for _ in range(100):
                publish(nats, "demo", texts)
            with api.client() as client:

                def dropped() -> float:
                    [value] = re.findall(
                        r"^sens_api_live_readings_dropped_total (\S+)", client.get("/metrics").text, re.MULTILINE
                    )
                    return float(value)

                wait_until(lambda: dropped() > 20 * 8000, "most is dropped")
            assert process.memory_info().rss - before < 40 << 20
            # Whoever goes on reading is told of it.
            received = b""
            while b"event: dropped" not in received:
                received = received[-100:] + streams[0].recv(65_536)

    def test_tells_its_readers_what_the_workers_could_not_send(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()

        async def publish_with_losses() -> None:
            async with connect(api.nats, "test") as nats:
                body = live.encode([LiveReading("d", "t", 0, 1.0)])
                await nats.publish(live.subject(tenant), body, headers={live.DROPPED_HEADER: "17"})

        with api.client(key) as client, client.stream("GET", "/api/v1/live") as answer:
            lines = answer.iter_lines()
            next(lines)
            with capture_logs():
                asyncio.run(publish_with_losses())
            assert next_event(lines) == ("dropped", {"count": 17})
            assert next_event(lines)[0] == "reading"

    def test_lets_the_workers_know_that_somebody_watches(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()

        async def run() -> bytes:
            async with connect(api.nats, "test") as nats:
                subscription = await nats.subscribe("sens.live_interest")
                await flush_all(nats)
                headers = {"Authorization": f"Bearer {key}"}
                async with (
                    httpx2.AsyncClient(base_url=api.url, headers=headers, trust_env=False) as client,
                    client.stream("GET", "/api/v1/live"),
                ):
                    while (message := await subscription.next_msg(10)).data != tenant.encode():
                        pass
                    return message.data

        with capture_logs():
            assert asyncio.run(run()) == tenant.encode()

    def test_ends_when_the_key_is_revoked(self, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
        _, key = api.new_tenant()
        set_environment(monkeypatch, database=api.database)
        with api.client(key) as client, client.stream("GET", "/api/v1/live") as answer:
            lines = answer.iter_lines()
            next(lines)
            assert sens("keys", "revoke", key) == 0
            assert not [line for line in lines if line.startswith("event:")]


class TestApi:
    """Its limits and its servers' absence, in processes of their own."""

    def test_has_a_limited_number_of_readers(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        settings = {"SENS_LIMITS__LIVE_READERS_PER_TENANT": "1"}
        with running_api(tmp_path, database, nats, settings) as api, api.client(key) as client:
            with client.stream("GET", "/api/v1/live") as first:
                lines = first.iter_lines()
                next(lines)
                refused = client.get("/api/v1/live")
                assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
                assert refused.json()["code"] == "too_many_readers"
                assert int(refused.headers["retry-after"]) > 0
                # A stop ends the stream of its own accord.
                api.process.terminate()
                assert not [line for line in lines if line.startswith("event:")]
            wait_until(lambda: api.process.poll() is not None, "the API stops")
            assert api.process.returncode == 0

    def test_answers_with_a_problem_while_a_server_is_away(self, tmp_path: Path, database: DatabaseSettings) -> None:
        key = make_tenant(database, "demo")
        with contextlib.ExitStack() as stack:
            with nats_server(tmp_path) as nats:
                api = stack.enter_context(running_api(tmp_path, database, nats))
            with api.client(key) as client:
                wait_until(lambda: client.get("/readyz").json()["status"] == "degraded", "degraded")
                ready = client.get("/readyz")
                assert ready.status_code == HTTPStatus.OK
                assert ready.json()["checks"] == {"database": "ok", "schema": "ok", "nats": "not connected to NATS"}
                assert client.get("/healthz").status_code == HTTPStatus.OK
                assert client.get("/api/v1/devices").status_code == HTTPStatus.OK
                assert client.get("/api/v1/dead-letters").status_code == HTTPStatus.OK
                answer = client.get("/api/v1/live")
                assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) > 0

    def test_starts_without_a_database_and_says_what_is_missing(self, tmp_path: Path, nats: NatsSettings) -> None:
        absent = DatabaseSettings(port=1, password=SecretStr("x"))
        with (
            running_api(tmp_path, absent, nats, ready_path="/healthz") as api,
            api.client(f"sens_{'a' * 43}") as client,
        ):
            ready = client.get("/readyz")
            assert ready.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            answers = ready.json()["checks"]
            assert answers["database"] == "the database can't be used; the log of this service says why"
            assert "127.0.0.1" not in ready.text
            answer = client.get("/api/v1/devices")
            assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            assert "127.0.0.1" not in answer.text

    def test_answers_with_a_problem_when_the_database_is_too_slow(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        settings = {"SENS_LIMITS__REQUEST_SECONDS": "0.5"}
        with running_api(tmp_path, database, nats, settings) as api, api.client(key) as client:

            async def ask_meanwhile(connection: "asyncpg.Connection[asyncpg.Record]") -> httpx2.Response:
                async with connection.transaction():
                    await connection.execute("LOCK TABLE sens.devices IN ACCESS EXCLUSIVE MODE")
                    return await asyncio.to_thread(client.get, "/api/v1/devices")

            slow = as_owner(database, ask_meanwhile)
            assert slow.status_code == HTTPStatus.GATEWAY_TIMEOUT
            assert slow.json()["code"] == "too_slow"
            assert client.get("/api/v1/devices").status_code == HTTPStatus.OK
            assert "Traceback" not in api.log.read_text()

    def test_serves_measurements_before_there_is_nats_and_stops_meanwhile(
        self, tmp_path: Path, database: DatabaseSettings
    ) -> None:
        key = make_tenant(database, "demo")
        absent = NatsSettings(url="nats://127.0.0.1:1", user="sens", password=SecretStr("x"))
        with running_api(tmp_path, database, absent, ready_path="/healthz") as api, api.client(key) as client:
            assert client.get("/readyz").json()["checks"]["nats"] == "not connected to NATS"
            assert client.get("/api/v1/devices").status_code == HTTPStatus.OK
            api.process.terminate()
            wait_until(lambda: api.process.poll() is not None, "the API stops")
            assert api.process.returncode == 0
            assert "Traceback" not in api.log.read_text()
