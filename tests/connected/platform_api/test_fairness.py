"""No tenant, and nobody without a key, takes the API from others: connections to the database, memory, rates."""

import asyncio
import contextlib
import json
import re
import secrets
import socket
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import asyncpg
import httpx2
import psutil
import pytest

from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.postgresql import QueryKind, TenantDatabase, open_pools
from sens_platform_api.settings import LimitSettings
from support.api import RunningApi, as_owner, connection_to, make_tenant, running_api, store
from support.former_rows import allow_former_rows
from support.servers import wait_until
from support.stored_rows import Form
from tools.stack.metrics import samples

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = {"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z"}


def problem(answer: httpx2.Response, status: int) -> str:
    """Return the code of an answer that has to be a problem with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    code: str = answer.json()["code"]
    return code


def metric(client: httpx2.Client, name: str, **labels: str) -> float:
    """Return the value of a metric."""
    return sum(samples(client.get("/metrics").text, name, **labels))


def open_transactions(database: DatabaseSettings) -> int:
    async def count(connection: object) -> int:
        found: int = await connection.fetchval(  # type: ignore[attr-defined] # the driver's connection
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'platform-api' AND xact_start IS NOT NULL"
        )
        return found

    return as_owner(database, count)


async def add_many(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Give the devices `d` of tenant slow more values than the buffers between server and client hold."""
    await allow_former_rows(connection, [NOW])
    await connection.execute(
        """
        INSERT INTO sens.measurements
        SELECT d.id, m.id, $1::timestamptz + i * interval '10 milliseconds', i
        FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id JOIN sens.metrics m ON m.tenant_id = t.id,
            generate_series(1, 150000) i
        WHERE t.name = 'slow'
        """,
        NOW,
    )


def everything(plain: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    received = b""
    while chunk := plain.recv(65_536):
        received += chunk
    return received


class TestReaders:
    def test_who_read_nothing_take_no_connection_from_others(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        slow_key, other_key = make_tenant(database, "slow"), make_tenant(database, "other")
        store(database, "slow", [("d", "t", NOW, 1.0)])
        store(database, "other", [("d", "t", NOW, 1.0)])
        as_owner(database, add_many)
        with (
            running_api(tmp_path, database, nats, {"SENS_DATABASE__POOL_SIZE": "4"}) as api,
            api.client(other_key) as other,
            contextlib.ExitStack() as stack,
        ):
            target = "/api/v1/devices/d/measurements?from=2026-11-24&to=2026-11-25&limit=1000000"
            for _ in range(10):
                slow = stack.enter_context(connection_to(api, receive_bytes=16_384))
                head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow_key}\r\n\r\n"
                slow.sendall(head.encode())
                assert slow.recv(100).startswith(b"HTTP/1.1 200")
            wait_until(lambda: open_transactions(database) == 0, "nothing is open for those who do not read")
            assert metric(other, "sens_api_answers_count") == 10
            assert other.get("/api/v1/devices/d/latest").json()["latest"][0]["value"] == 1.0
            assert other.get("/readyz").status_code == HTTPStatus.OK

    @pytest.mark.parametrize("form", Form)
    def test_get_all_rows_in_order_from_many_pages(self, api: RunningApi, form: Form) -> None:
        tenant, key = api.new_tenant()
        sparse = [("d", "sparse", NOW + timedelta(seconds=i * 700), float(i)) for i in range(50)]
        dense = [("d", "dense", NOW + timedelta(seconds=i), float(i)) for i in range(12_000)]
        texts = [("d", "text", NOW + timedelta(seconds=i * 3), f"{i}") for i in range(3_000)]
        store(api.database, tenant, [*sparse, *dense, *texts], form)
        expected = sorted((time, name) for _, name, time, _ in [*sparse, *dense, *texts])
        with api.client(key) as client:
            for order in ("asc", "desc"):
                parameters = DAY | {"limit": "100000", "order": order}
                answer = client.get("/api/v1/devices/d/measurements", params=parameters).json()
                assert answer["next"] is None
                found = [(datetime.fromisoformat(row["time"]), row["metric"]) for row in answer["measurements"]]
                assert sorted(found) == expected
                times = [time for time, _ in found]
                assert times == sorted(times, reverse=order == "desc")

    @pytest.mark.parametrize("form", Form)
    def test_get_the_same_buckets_from_many_pages_as_from_one_query(self, api: RunningApi, form: Form) -> None:
        tenant, key = api.new_tenant()
        times = [NOW + timedelta(seconds=i * 7) for i in range(5_000)]
        times += [NOW + timedelta(days=200, seconds=i) for i in range(5_000)]
        store(api.database, tenant, [("d", "t", time, float(i)) for i, time in enumerate(times)], form)
        with api.client(key) as client:
            for width, seconds in (("10s", 10), ("7m", 420), ("3h", 10_800), ("52w", 31_449_600)):
                counted: dict[int, int] = {}
                origin = datetime(2001, 1, 1, tzinfo=UTC)
                for time in times:
                    number = int((time - origin).total_seconds() // seconds)
                    counted[number] = counted.get(number, 0) + 1
                for order in ("asc", "desc"):
                    parameters = {"from": "2026-01-01", "to": "2028-01-01", "limit": "100000", "order": order}
                    parameters |= {"bucket": width, "aggregate": "count"}
                    rows = client.get("/api/v1/devices/d/measurements", params=parameters).json()["measurements"]
                    found = [
                        (int((datetime.fromisoformat(row["time"]) - origin).total_seconds() // seconds), row["count"])
                        for row in rows
                    ]
                    assert found == sorted(counted.items(), reverse=order == "desc")

    def test_are_refused_when_one_tenant_has_too_many(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        keys = [make_tenant(database, name) for name in ("one", "two")]
        for name in ("one", "two"):
            store(database, name, [("d", "t", NOW + timedelta(milliseconds=i), 1.0) for i in range(50_000)])
        target, parameters = "/api/v1/devices/d/measurements", DAY | {"limit": "100000"}
        settings = {"SENS_LIMITS__ANSWERS_PER_TENANT": "1"}
        with (
            running_api(tmp_path, database, nats, settings) as api,
            api.client(keys[0]) as one,
            api.client(keys[1]) as two,
        ):
            with one.stream("GET", target, params=parameters):
                refused = one.get(target, params=parameters)
                assert problem(refused, 429) == "too_many_answers"
                assert int(refused.headers["retry-after"]) > 0
                assert two.get(target, params=parameters).status_code == HTTPStatus.OK
                assert metric(two, "sens_api_refused_total", reason="answers") == 1
            wait_until(lambda: metric(two, "sens_api_answers_count") == 0, "the answer is over")
            assert one.get(target, params=parameters).status_code == HTTPStatus.OK


class TestTenants:
    def test_have_a_part_of_the_connections(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        keys = [make_tenant(database, name) for name in ("one", "two")]
        store(database, "one", [("d", "t", NOW, 1.0)])
        settings = {"SENS_DATABASE__POOL_SIZE": "4", "SENS_LIMITS__WAIT_SECONDS": "0.2"}
        with running_api(tmp_path, database, nats, settings) as api:

            async def ask_meanwhile(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
                async with (
                    api.async_client(keys[0]) as one,
                    api.async_client(keys[1]) as two,
                    connection.transaction(),
                ):
                    await connection.execute("LOCK TABLE sens.metrics IN ACCESS EXCLUSIVE MODE")
                    stuck = asyncio.create_task(one.get("/api/v1/devices/d/latest"))
                    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                        pass
                    refused = await one.get("/api/v1/devices")
                    assert problem(refused, 429) == "tenant_busy"
                    assert int(refused.headers["retry-after"]) > 0
                    assert (await two.get("/api/v1/devices")).status_code == HTTPStatus.OK
                    assert (await two.get("/readyz")).status_code == HTTPStatus.OK
                    stuck.cancel()

            as_owner(database, ask_meanwhile)


class TestQueries:
    async def test_have_a_time_limit_by_what_they_ask(self, database: DatabaseSettings) -> None:
        limits = LimitSettings(
            key_query_seconds=1, lookup_query_seconds=2, measurements_query_seconds=3, aggregates_query_seconds=4
        )

        found: dict[str, str] = {}
        async with open_pools(database, "test", limits) as (pool, _keys):
            for kind in QueryKind:
                async with TenantDatabase(pool, 1).transaction(kind) as connection:
                    found[kind] = await connection.fetchval("SHOW statement_timeout")
        assert found == {"key": "1s", "lookup": "2s", "measurements": "3s", "aggregates": "4s"}

    def test_that_take_too_long_are_ended_and_said_so(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        store(database, "demo", [("d", "t", NOW, 1.0)])
        settings = {"SENS_LIMITS__LOOKUP_QUERY_SECONDS": "0.2"}
        with running_api(tmp_path, database, nats, settings) as api:

            async def ask_meanwhile(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
                async with api.async_client(key) as client, connection.transaction():
                    await connection.execute("LOCK TABLE sens.metrics IN ACCESS EXCLUSIVE MODE")
                    answer = await client.get("/api/v1/devices/d/latest")
                    assert problem(answer, 504) == "too_slow"
                    assert answer.json()["detail"] == "the database took too long; ask for less at once"

            as_owner(database, ask_meanwhile)


class TestStrangers:
    """Who has no key."""

    def test_are_answered_before_their_body_is_read(self, api: RunningApi) -> None:
        process = psutil.Process(api.process.pid)
        before = process.memory_info().rss
        head = b"POST /api/v1/dead-letters/replay HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n"
        with contextlib.ExitStack() as stack:
            plain = [stack.enter_context(connection_to(api)) for _ in range(400)]
            for each in plain:
                each.sendall(head + b"x" * 64_000)
            for each in plain:
                assert each.recv(4096).startswith(b"HTTP/1.1 401")
            assert process.memory_info().rss - before < 20 << 20

    def test_can_not_keep_a_connection_with_half_a_header_or_the_rest_of_a_body(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        settings = {"SENS_LIMITS__HEADER_SECONDS": "0.5"}
        with (
            running_api(tmp_path, database, nats, settings) as api,
            connection_to(api) as silent,
            connection_to(api) as half,
            connection_to(api) as rest,
        ):
            half.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
            rest.sendall(b"POST /api/v1/dead-letters/replay HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\nx")
            assert everything(rest).startswith(b"HTTP/1.1 401")
            assert everything(silent) == everything(half) == b""
            with api.client() as client:
                closed = metric(client, "sens_http_connections_closed_total", reason="header_timeout")
                assert closed >= 3

    def test_make_room_for_others_when_there_are_too_many(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        settings = {"SENS_LIMITS__CONNECTIONS": "10"}
        with running_api(tmp_path, database, nats, settings) as api, contextlib.ExitStack() as stack:
            idle = [stack.enter_context(connection_to(api)) for _ in range(20)]
            with api.client() as client:
                assert client.get("/healthz").status_code == HTTPStatus.OK
                assert idle[0].recv(10) == b""
                assert metric(client, "sens_http_connections_count") <= 10
                assert metric(client, "sens_http_connections_closed_total", reason="room") >= 11

    def test_make_room_before_who_has_a_key(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        request = f"HEAD /api/v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        settings = {"SENS_LIMITS__CONNECTIONS": "10"}
        with (
            running_api(tmp_path, database, nats, settings) as api,
            contextlib.ExitStack() as stack,
            connection_to(api) as known,
        ):
            known.sendall(request)
            assert known.recv(65_536).startswith(b"HTTP/1.1 200")
            strangers = [stack.enter_context(connection_to(api)) for _ in range(20)]
            assert strangers[9].recv(10) == b""
            known.sendall(request)
            assert known.recv(65_536).startswith(b"HTTP/1.1 200")

    def test_can_try_a_few_wrong_keys_a_minute(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        settings = {"SENS_LIMITS__WRONG_KEYS_PER_MINUTE": "3"}
        with running_api(tmp_path, database, nats, settings) as api, api.client(key) as good, api.client() as bad:
            assert good.get("/api/v1/devices").status_code == HTTPStatus.OK
            answers: list[httpx2.Response] = []
            while not answers or answers[-1].status_code == HTTPStatus.UNAUTHORIZED:
                wrong = f"sens_{secrets.token_urlsafe(32)}"
                answers.append(bad.get("/api/v1/devices", headers={"Authorization": f"Bearer {wrong}"}))
                assert len(answers) < 20
            assert problem(answers[-1], 429) == "too_many_wrong_keys"
            assert int(answers[-1].headers["retry-after"]) > 0
            # A reader with the same address, and a key that was valid just now, is not shut out.
            assert good.get("/api/v1/devices").status_code == HTTPStatus.OK
            assert metric(good, "sens_api_failed_logins_total", reason="unknown") == len(answers) - 1
            assert metric(good, "sens_api_refused_total", reason="wrong_keys") >= 1


class TestKeys:
    def test_ask_at_a_bounded_rate(self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings) -> None:
        keys = [make_tenant(database, name) for name in ("one", "two")]
        settings = {"SENS_LIMITS__REQUESTS_PER_MINUTE": "5"}
        with (
            running_api(tmp_path, database, nats, settings) as api,
            api.client(keys[0]) as one,
            api.client(keys[1]) as two,
        ):
            answers = [one.get("/api/v1/devices") for _ in range(20)]
            refused = next(answer for answer in answers if answer.status_code != HTTPStatus.OK)
            assert problem(refused, 429) == "too_many_requests"
            assert int(refused.headers["retry-after"]) > 0
            assert two.get("/api/v1/devices").status_code == HTTPStatus.OK


def log_line(api: RunningApi, request_id: str) -> dict[str, object]:
    """Return the log's entry about a request, which is written after its answer."""
    wait_until(lambda: bool(_log_lines(api, request_id)), "the request is logged")
    [entry] = _log_lines(api, request_id)
    return entry


def _log_lines(api: RunningApi, request_id: str) -> list[dict[str, object]]:
    return [
        entry
        for line in api.log.read_text().splitlines()
        if (entry := json.loads(line)).get("request_id") == request_id
    ]


class TestRequests:
    def test_are_logged_with_who_asked_and_from_where(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            answer = client.get("/api/v1/devices", headers={"X-Request-Id": "my-request.1"})
            assert answer.headers["x-request-id"] == "my-request.1"
            entry = log_line(api, "my-request.1")
            assert entry["tenant"] == tenant
            assert entry["address"] == "127.0.0.1"
            assert isinstance(entry["key"], int)

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ü", "<script>"])
    def test_get_a_name_of_their_own_instead_of_a_strange_one(self, api: RunningApi, given: str) -> None:
        with api.client() as client:
            answer = client.get("/version", headers={b"X-Request-Id": given.encode()})
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])

    def test_have_the_address_that_a_trusted_proxy_says_and_no_other(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        for trusted, address in (("[]", "127.0.0.1"), ('["127.0.0.0/8"]', "203.0.113.9")):
            settings = {"SENS_HTTP__TRUSTED_PROXIES": trusted}
            with running_api(tmp_path, database, nats, settings) as api, api.client(key) as client:
                headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": f"to-{address}"}
                assert client.get("/api/v1/devices", headers=headers).status_code == HTTPStatus.OK
                assert log_line(api, f"to-{address}")["address"] == address
