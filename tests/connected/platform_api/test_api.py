"""The API's process on real servers."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import asyncpg
import httpx2
import psutil
import pytest

from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.keys import administration as keys
from support.api import RunningApi, as_owner, connection_to, make_tenant, running_api, set_environment, store
from support.command_line import sens
from support.former_rows import allow_former_rows
from support.letters import dead_letter, put_dead_letters
from support.stored_rows import Form, Value

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = {"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z"}


def is_problem(answer: httpx2.Response, status: int) -> bool:
    document = answer.json()
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and document["status"] == status
        and bool(document["detail"])
    )


@pytest.fixture
def tenant(api: RunningApi) -> str:
    return api.new_tenant()[0]


@pytest.fixture
def own(api: RunningApi) -> Iterator[tuple[str, httpx2.Client]]:
    """A tenant of the test's own, and a client that carries its key."""
    name, key = api.new_tenant()
    with api.client(key) as client:
        yield name, client


@pytest.fixture(params=list(Form))
def form(request: pytest.FixtureRequest) -> Form:
    """The rows that the measurements are in."""
    found: Form = request.param
    return found


@pytest.fixture
def anybody(api: RunningApi) -> Iterator[httpx2.Client]:
    with api.client() as client:
        yield client


class TestOperations:
    def test_are_open(self, anybody: httpx2.Client) -> None:
        assert anybody.get("/healthz").json() == {"status": "ok"}
        ready = anybody.get("/readyz")
        document = ready.json()
        assert document["status"] == "ok"
        assert document["checks"] == {"database": "ok", "schema": "ok", "nats": "ok"}
        # The test's API logs in as the database's owner.
        assert "give it a login of its own" in document["notes"]["database_roles"]
        version = anybody.get("/version").json()
        assert set(version) == {"name", "version", "product_commit"}
        assert version["name"] == "platform-api"

    def test_write_the_test_message_to_the_log(self, api: RunningApi, anybody: httpx2.Client) -> None:
        assert anybody.get("/test").json() == {"message": "test endpoint called"}
        entries = [json.loads(line) for line in api.log.read_text().splitlines()]
        assert any(entry["event"] == "test endpoint called" and entry["service"] == "platform-api" for entry in entries)

    def test_count_requests_by_route_template(self, own: tuple[str, httpx2.Client]) -> None:
        _, client = own
        client.get("/api/v1/devices/some-device")
        text = client.get("/metrics").text
        assert 'route="/api/v1/devices/{device}",status="4xx"' in text
        assert "some-device" not in text

    def test_send_security_headers_and_no_server_header(self, anybody: httpx2.Client) -> None:
        headers = anybody.get("/version").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


class TestKeys:
    @pytest.mark.parametrize("value", [None, "Bearer", "Basic abc", "Bearer nonsense", f"Bearer sens_{'a' * 43}"])
    def test_are_needed(self, anybody: httpx2.Client, value: str | None) -> None:
        answer = anybody.get("/api/v1/devices", headers={} if value is None else {"Authorization": value})
        assert is_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")

    def test_stop_working_when_they_are_revoked(self, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
        _, key = api.new_tenant()
        set_environment(monkeypatch, database=api.database)
        with api.client(key) as client:
            assert client.get("/api/v1/devices").status_code == HTTPStatus.OK
            assert sens("keys", "revoke", key) == 0
            # The answer is remembered for two seconds at most; every request is a new look at the clock.
            while client.get("/api/v1/devices").status_code == HTTPStatus.OK:
                pass
            assert is_problem(client.get("/api/v1/devices"), 401)

    def test_stop_working_when_they_expire(self, api: RunningApi) -> None:
        tenant, _ = api.new_tenant()

        async def make(connection: "asyncpg.Connection[asyncpg.Record]") -> tuple[str, str]:
            made = []
            for seconds in (-1, 3600):
                expiry = datetime.now(UTC) + timedelta(seconds=seconds)
                made.append((await keys.create(connection, tenant=tenant, name="k", expires_at=expiry))[1])
            return made[0], made[1]

        expired, valid = as_owner(api.database, make)
        with api.client(expired) as client:
            assert is_problem(client.get("/api/v1/devices"), 401)
        with api.client(valid) as client:
            assert client.get("/api/v1/devices").status_code == HTTPStatus.OK

    def test_show_when_they_were_last_used(
        self, api: RunningApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tenant, key = api.new_tenant()
        set_environment(monkeypatch, database=api.database)

        def last_used() -> str | None:
            assert sens("keys", "list", "--tenant", tenant, "--json") == 0
            [listed] = json.loads(capsys.readouterr().out)
            used: str | None = listed["last_used_at"]
            return used

        assert last_used() is None
        with api.client(key) as client:
            client.get("/api/v1/devices")
        first = last_used()
        assert first is not None
        with api.client(key) as client:
            client.get("/api/v1/devices")
        assert last_used() == first

    def test_for_reading_only_do_not_replay(self, api: RunningApi) -> None:
        tenant, _ = api.new_tenant()

        async def make(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
            return (await keys.create(connection, tenant=tenant, name="k", access="read_only"))[1]

        with api.client(as_owner(api.database, make)) as client:
            assert client.get("/api/v1/devices").status_code == HTTPStatus.OK
            refused = client.post("/api/v1/dead-letters/replay")
        assert is_problem(refused, 403)
        assert "may only read" in refused.json()["detail"]

    def test_are_never_logged(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            client.get("/api/v1/devices", params={"prefix": "x"})
        assert key not in api.log.read_text()


class TestAudit:
    def test_shows_a_tenant_what_was_changed_of_its_own(
        self, api: RunningApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tenant, key = api.new_tenant()
        set_environment(monkeypatch, database=api.database)
        create = [
            "keys",
            "create",
            "--tenant",
            tenant,
            "--name",
            "visitor",
            "--read-only",
            "--expires",
            "30d",
            "--json",
        ]
        assert sens(*create) == 0
        made = json.loads(capsys.readouterr().out)
        assert sens("keys", "revoke", str(made["id"])) == 0
        assert sens("keys", "revoke", str(made["id"])) == 0  # once more changes nothing
        api.new_tenant()  # another one's are not shown
        with api.client(key) as client:
            first = client.get("/api/v1/audit", params={"limit": 2}).json()
            second = client.get("/api/v1/audit", params={"limit": 2, "cursor": first["next"]}).json()
        subject = f"key {made['id']} (visitor)"
        assert [(event["action"], event["subject"]) for event in first["events"]] == [
            ("key.revoked", subject),
            ("key.created", subject),
        ]
        assert first["events"][1]["actor"] == "administrator"
        assert first["events"][1]["details"]["access"] == "read_only"
        assert [event["action"] for event in second["events"]] == ["key.created"]
        assert second["next"] is None

    def test_is_listed_for_administrators(
        self, api: RunningApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        set_environment(monkeypatch, database=api.database)
        assert sens("tenants", "create", "audited") == 0
        assert sens("tenants", "create", "audited", "--if-missing") == 0
        capsys.readouterr()
        assert sens("audit", "--tenant", "audited", "--json") == 0
        listed = json.loads(capsys.readouterr().out)
        assert [(event["action"], event["subject"]) for event in listed["events"]] == [
            ("tenant.created", "tenant audited")
        ]
        assert listed["before"] is None


class TestDevices:
    def test_are_listed_by_name_in_pages(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        tenant, client = own
        names = ["a", "a-b", "a.b", "a_b", "b"]
        store(api.database, tenant, [(name, "m", NOW, 1.0) for name in names])
        seen = []
        parameters = {"limit": "2"}
        while True:
            page = client.get("/api/v1/devices", params=parameters).json()
            seen += [device["device"] for device in page["devices"]]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]
        assert seen == sorted(names)

    def test_are_found_by_prefix(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        tenant, client = own
        store(api.database, tenant, [(name, "m", NOW, 1.0) for name in ("door-1", "sensor_1", "sensor-1")])
        page = client.get("/api/v1/devices", params={"prefix": "sensor_"}).json()
        assert [device["device"] for device in page["devices"]] == ["sensor_1"]

    @pytest.mark.parametrize("spelling", ["0011223344556677", "00-11-22-33-44-55-66-77", "00:11:22:33:44:55:66:77"])
    def test_are_found_by_every_spelling_of_their_eui(
        self, api: RunningApi, own: tuple[str, httpx2.Client], spelling: str
    ) -> None:
        tenant, client = own
        store(api.database, tenant, [("0011223344556677", "m", NOW, 1.0)])
        assert client.get(f"/api/v1/devices/{spelling}").json()["device"] == "0011223344556677"

    def test_show_their_metrics(self, api: RunningApi, own: tuple[str, httpx2.Client], form: Form) -> None:
        tenant, client = own
        store(api.database, tenant, [("d", "door", NOW, True), ("d", "firmware", NOW, "1.2")], form)
        metrics = client.get("/api/v1/devices/d").json()["metrics"]
        assert [(metric["metric"], metric["kind"]) for metric in metrics] == [("door", "boolean"), ("firmware", "text")]

    def test_that_do_not_exist_are_not_found(self, own: tuple[str, httpx2.Client]) -> None:
        assert is_problem(own[1].get("/api/v1/devices/nothing"), 404)


class TestLatest:
    def test_is_the_latest_measured_value_of_each_metric_in_its_kind(
        self, api: RunningApi, own: tuple[str, httpx2.Client], form: Form
    ) -> None:
        tenant, client = own
        months = [NOW - timedelta(days=30 * month) for month in range(4)]
        rows = [("d", "t", time, 20.5 - index) for index, time in enumerate(months)]
        store(
            api.database,
            tenant,
            [
                *reversed(rows),
                ("d", "door", NOW, False),
                ("d", "firmware", months[3], "1.9"),
                ("d", "mixed", months[1], 1.0),
                ("d", "mixed", months[2], "one"),
                ("d", "mixed", months[2], True),
                ("other", "t", NOW, 99.0),
            ],
            form,
        )
        latest = client.get("/api/v1/devices/d/latest").json()
        assert latest["device"] == "d"
        assert [(one["metric"], one["kind"], one["value"]) for one in latest["latest"]] == [
            ("door", "boolean", False),
            ("firmware", "text", "1.9"),
            ("mixed", "boolean", True),
            ("mixed", "number", 1.0),
            ("mixed", "text", "one"),
            ("t", "number", 20.5),
        ]
        assert latest["latest"][-1]["time"] == "2026-11-24T12:00:00Z"

    def test_of_all_devices_comes_in_pages(self, api: RunningApi, own: tuple[str, httpx2.Client], form: Form) -> None:
        tenant, client = own
        values: list[tuple[str, Value]] = [("t", 21.5), ("door", True), ("firmware", "1.2")]
        rows = [(f"d{device}", metric, NOW, value) for device in range(5) for metric, value in values]
        store(api.database, tenant, rows, form)
        as_owner(
            api.database,
            lambda connection: connection.execute("UPDATE sens.devices SET last_seen = $1 WHERE name = 'd3'", NOW),
        )
        seen = []
        parameters = {"limit": "2", "prefix": "d"}
        while True:
            page = client.get("/api/v1/latest", params=parameters).json()
            assert len(page["devices"]) <= 2
            seen += page["devices"]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]
        assert [each["device"] for each in seen] == [f"d{device}" for device in range(5)]
        assert [each["last_seen"] for each in seen] == [None, None, None, "2026-11-24T12:00:00Z", None]
        for each in seen:
            assert {"device": each["device"], "latest": each["latest"]} == client.get(
                f"/api/v1/devices/{each['device']}/latest"
            ).json()
            assert [one["value"] for one in each["latest"]] == [True, "1.2", 21.5]
        assert client.get("/api/v1/devices/d3").json()["last_seen"] == "2026-11-24T12:00:00Z"

    @pytest.mark.parametrize("cursor", ["%FF", "YQBi", "x" * 1001])
    def test_of_all_devices_refuses_a_cursor_that_it_has_not_given(
        self, own: tuple[str, httpx2.Client], cursor: str
    ) -> None:
        assert is_problem(own[1].get("/api/v1/latest", params={"cursor": cursor}), 422)


class TestMeasurements:
    @pytest.fixture
    def client(self, api: RunningApi, own: tuple[str, httpx2.Client], form: Form) -> httpx2.Client:
        tenant, client = own
        minutes = [NOW + timedelta(minutes=minute) for minute in range(10)]
        rows = [("d", "t", time, float(index)) for index, time in enumerate(minutes)]
        doors = [("d", "door", time, index % 2 == 0) for index, time in enumerate(minutes)]
        store(api.database, tenant, [*rows, *doors, ("d", "firmware", minutes[3], 'a "b", ü')], form)
        return client

    def test_come_by_time_in_their_kinds(self, client: httpx2.Client) -> None:
        answer = client.get("/api/v1/devices/d/measurements", params=DAY).json()
        rows = answer["measurements"]
        assert len(rows) == 21
        assert rows[0] == {"time": "2026-11-24T12:00:00Z", "metric": "door", "value": True}
        assert rows[1] == {"time": "2026-11-24T12:00:00Z", "metric": "t", "value": 0.0}
        assert rows[7] == {"time": "2026-11-24T12:03:00Z", "metric": "firmware", "value": 'a "b", ü'}
        assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
        assert answer["next"] is None

    def test_of_a_range_exclude_its_end(self, client: httpx2.Client) -> None:
        parameters = {"metric": "t", "from": "2026-11-24T12:02:00Z", "to": str(int(NOW.timestamp()) + 240)}
        rows = client.get("/api/v1/devices/d/measurements", params=parameters).json()["measurements"]
        assert [row["value"] for row in rows] == [2.0, 3.0]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("bucket", [{}, {"bucket": "3m", "aggregate": "count"}])
    def test_over_the_limit_go_on_at_the_cursor(
        self, client: httpx2.Client, order: str, bucket: dict[str, str]
    ) -> None:
        everything = client.get("/api/v1/devices/d/measurements", params=DAY | bucket | {"order": order}).json()
        assert everything["next"] is None
        rows = []
        parameters = DAY | bucket | {"order": order, "limit": "2"}
        while True:
            page = client.get("/api/v1/devices/d/measurements", params=parameters).json()
            assert len(page["measurements"]) <= 2
            rows += page["measurements"]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]
        assert rows == everything["measurements"]

    def test_are_aggregated_in_buckets(self, client: httpx2.Client) -> None:
        parameters = DAY | {"metric": "t", "bucket": "5m", "aggregate": "avg,min,max,count"}
        rows = client.get("/api/v1/devices/d/measurements", params=parameters).json()["measurements"]
        common = {"metric": "t", "kind": "number"}
        assert rows == [
            {"time": "2026-11-24T12:00:00Z", **common, "avg": 2.0, "min": 0.0, "max": 4.0, "count": 5},
            {"time": "2026-11-24T12:05:00Z", **common, "avg": 7.0, "min": 5.0, "max": 9.0, "count": 5},
        ]

    def test_of_booleans_are_aggregated_as_zero_and_one(self, client: httpx2.Client) -> None:
        parameters = DAY | {"metric": "door", "bucket": "1h"}
        [row] = client.get("/api/v1/devices/d/measurements", params=parameters).json()["measurements"]
        assert row["avg"] == 0.5

    def test_of_texts_can_only_be_counted(self, client: httpx2.Client) -> None:
        parameters = DAY | {"metric": "firmware", "bucket": "1h"}
        refused = client.get("/api/v1/devices/d/measurements", params=parameters | {"aggregate": "avg"})
        assert is_problem(refused, 422)
        assert "firmware" in refused.json()["detail"]
        counted = client.get("/api/v1/devices/d/measurements", params=parameters | {"aggregate": "count"})
        assert [row["count"] for row in counted.json()["measurements"]] == [1]

    def test_come_as_csv_when_that_is_preferred(self, client: httpx2.Client) -> None:
        parameters = DAY | {"metric": ["firmware", "door"], "limit": "8"}
        answer = client.get("/api/v1/devices/d/measurements", params=parameters, headers={"Accept": "text/csv"})
        assert answer.headers["content-type"].startswith("text/csv")
        lines = answer.text.split("\r\n")
        assert lines[0] == "time,metric,value"
        assert lines[1] == "2026-11-24T12:00:00Z,door,true"
        assert '2026-11-24T12:03:00Z,firmware,"a ""b"", ü"' in lines
        assert re.fullmatch(r"# next: [A-Za-z0-9_-]+", lines[-2])

    def test_over_http_1_0_end_with_a_line(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        store(api.database, tenant, [("d", "t", NOW, 1.0)])
        url = httpx2.URL(api.url)
        with socket.create_connection((url.host, url.port or 80), timeout=30) as plain:
            target = "/api/v1/devices/d/measurements?from=2026-11-24&to=2026-11-25"
            head = f"GET {target} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nAccept: text/csv\r\n\r\n"
            plain.sendall(head.encode())
            received = b""
            while chunk := plain.recv(65_536):
                received += chunk
        header, _, body = received.partition(b"\r\n\r\n")
        assert b"sens-last-line: # end" in header.lower()
        assert body.endswith(b"t,1.0\r\n# end\r\n")

    def test_come_as_a_file_for_spreadsheets(self, client: httpx2.Client) -> None:
        parameters = DAY | {"metric": "t", "limit": "1", "spreadsheet": "comma"}
        answer = client.get("/api/v1/devices/d/measurements", params=parameters)
        assert answer.headers["content-disposition"] == 'attachment; filename="d.csv"'
        assert answer.content.startswith("\ufefftime;metric;value\r\n2026-11-24 12:00:00;t;0,0\r\n".encode())

    def test_of_head_are_not_read(self, client: httpx2.Client) -> None:
        answer = client.head("/api/v1/devices/d/measurements", params=DAY)
        assert answer.status_code == HTTPStatus.OK
        assert answer.headers["content-type"] == "application/json"
        assert client.get("/api/v1/devices/d/measurements", params=DAY).status_code == HTTPStatus.OK

    def test_too_large_to_be_summed_are_averaged(
        self, api: RunningApi, own: tuple[str, httpx2.Client], form: Form
    ) -> None:
        tenant, client = own
        values = [1.7e308, 1.7e308, 1e200, 0.0]
        rows = [("big", "t", NOW + timedelta(minutes=i), value) for i, value in enumerate(values)]
        store(api.database, tenant, rows, form)
        averages = {}
        for width in ("1m", "2m", "1h"):
            answer = client.get("/api/v1/devices/big/measurements", params=DAY | {"bucket": width})
            averages[width] = [row["avg"] for row in answer.json()["measurements"]]
        assert averages["1m"] == values
        assert averages["2m"] == pytest.approx([1.7e308, 5e199])
        assert averages["1h"] == pytest.approx([8.5e307])

    def test_of_an_unknown_metric_are_not_found(self, client: httpx2.Client) -> None:
        answer = client.get("/api/v1/devices/d/measurements", params=DAY | {"metric": "temp"})
        assert is_problem(answer, 404)
        assert answer.json()["detail"] == "the device d has no metric temp; it has door, firmware, t"

    def test_of_averages_come_beside_a_text_of_the_same_name(
        self, api: RunningApi, own: tuple[str, httpx2.Client], form: Form
    ) -> None:
        tenant, client = own
        store(api.database, tenant, [("mixed", "t", NOW, 1.0), ("mixed", "t", NOW, "error")], form)
        parameters = DAY | {"metric": "t", "bucket": "1h"}
        rows = client.get("/api/v1/devices/mixed/measurements", params=parameters).json()["measurements"]
        assert [(row["kind"], row["avg"]) for row in rows] == [("number", 1.0)]

    def test_go_on_at_a_cursor_when_the_range_begins_within_a_bucket(self, client: httpx2.Client) -> None:
        parameters = {"from": "2026-11-24T12:01:00Z", "to": "2026-11-24T12:10:00Z", "metric": "t", "bucket": "5m"}
        first = client.get("/api/v1/devices/d/measurements", params=parameters | {"limit": "1"}).json()
        assert [row["avg"] for row in first["measurements"]] == [2.5]
        second = client.get("/api/v1/devices/d/measurements", params=parameters | {"cursor": first["next"]}).json()
        assert [row["avg"] for row in second["measurements"]] == [7.0]

    def test_with_a_bare_plus_in_the_address_are_understood(self, client: httpx2.Client) -> None:
        target = "/api/v1/devices/d/measurements?metric=t&from=2026-11-24T13:00:00+01:00&to=2026-11-24T13:01:00+01:00"
        rows = client.get(target).json()["measurements"]
        assert [row["value"] for row in rows] == [0.0]

    @pytest.mark.parametrize(
        ("target", "example"),
        [
            ("/api/v1/devices/d/measurements?from=yesterday", "2026-11-29T12:00:00Z"),
            ("/api/v1/devices/d/measurements?bucket=7x", "5m"),
            ("/api/v1/devices/d/measurements?bucket=5m&aggregate=median", "avg,max"),
            ("/api/v1/devices/d/measurements?cursor=!", "next"),
            ("/api/v1/devices/My%20Kitchen/latest", "sensor-0001"),
            ("/api/v1/live?device=My%20Kitchen", "sensor-0001"),
            ("/api/v1/devices?prefix=%20", "letters, digits"),
            ("/api/v1/dead-letters?before=yesterday", ""),
        ],
    )
    def test_with_a_wrong_parameter_say_in_words_what_is_accepted(
        self, client: httpx2.Client, target: str, example: str
    ) -> None:
        answer = client.get(target)
        assert is_problem(answer, 422)
        detail = answer.json()["detail"]
        assert example in detail
        assert not re.search(r"\\d|\[A-Z|\(\?:|\^", detail), detail

    @pytest.mark.parametrize(
        "parameters",
        [
            {"from": "yesterday"},
            {"from": "2026-11-25T00:00:00Z", "to": "2026-11-24T00:00:00Z"},
            {"from": "1900-01-01", "to": "2026-01-01"},
            {"from": "99999999999999999999"},
            {"bucket": "0m"},
            {"bucket": "5"},
            {"bucket": "99999999w"},
            {"aggregate": "avg"},
            {"bucket": "5m", "aggregate": "median"},
            {"limit": "0"},
            {"limit": "100000000"},
            {"metric": "a\nb"},
            {"cursor": "AAAA"},
            {"cursor": "é"},
            {"form": "2026-11-24"},
            {"metric": [f"m{index}" for index in range(101)]},
            {"spreadsheet": "excel"},
        ],
    )
    def test_with_wrong_parameters_are_refused(
        self, client: httpx2.Client, parameters: dict[str, str | list[str]]
    ) -> None:
        answer = client.get("/api/v1/devices/d/measurements", params=parameters)
        assert is_problem(answer, 422)
        assert answer.json()["errors"]

    def test_do_not_exist_in_other_forms(self, client: httpx2.Client) -> None:
        answer = client.get("/api/v1/devices/d/measurements", headers={"Accept": "image/png"})
        assert is_problem(answer, 406)


class TestRequests:
    @pytest.mark.parametrize("target", ["/api/v1/devices/%00", "/api/v1/devices/%ff", "/api/v1/devices?prefix=%00"])
    def test_with_nul_or_invalid_utf_8_are_refused(self, own: tuple[str, httpx2.Client], target: str) -> None:
        assert is_problem(own[1].get(target), 400)

    def test_with_a_large_body_are_refused(self, own: tuple[str, httpx2.Client]) -> None:
        answer = own[1].post("/api/v1/dead-letters/replay", content=b"x" * 600_000)
        assert is_problem(answer, 413)

    def test_with_a_large_target_are_refused(self, own: tuple[str, httpx2.Client]) -> None:
        assert is_problem(own[1].get("/api/v1/devices", params={"prefix": "x" * 9000}), 431)

    def test_to_unknown_paths_and_with_other_methods_are_refused(self, own: tuple[str, httpx2.Client]) -> None:
        assert is_problem(own[1].get("/api/v1/nothing"), 404)
        refused = own[1].delete("/api/v1/devices")
        assert is_problem(refused, 405)
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS"


class TestTenants:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/v1/devices/theirs"),
            ("GET", "/api/v1/devices/theirs/latest"),
            ("GET", "/api/v1/devices/theirs/measurements"),
            ("GET", "/api/v1/dead-letters/{letter}"),
            ("POST", "/api/v1/dead-letters/{letter}/replay"),
            ("DELETE", "/api/v1/dead-letters/{letter}"),
        ],
    )
    def test_do_not_find_what_is_anothers(
        self, api: RunningApi, own: tuple[str, httpx2.Client], method: str, path: str
    ) -> None:
        other, key = api.new_tenant()
        store(api.database, other, [("theirs", "m", NOW, 1.0)])
        [letter] = put_dead_letters(api.database, [dead_letter(tenant=other)])
        target = path.format(letter=letter)
        assert is_problem(own[1].request(method, target), 404)
        with api.client(key) as client:
            assert client.request(method, target).is_success

    def test_list_only_what_is_theirs(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        other, _ = api.new_tenant()
        store(api.database, other, [("theirs", "m", NOW, 1.0)])
        put_dead_letters(api.database, [dead_letter(tenant=other)])
        assert own[1].get("/api/v1/devices").json()["devices"] == []
        assert own[1].get("/api/v1/dead-letters").json()["dead_letters"] == []
        assert own[1].post("/api/v1/dead-letters/replay").json()["replayed"] == 0
        assert own[1].delete("/api/v1/dead-letters?all=true").json()["deleted"] == 0

    def test_are_kept_apart_by_the_database_even_from_a_wrong_query(
        self, api: RunningApi, own: tuple[str, httpx2.Client]
    ) -> None:
        other, _ = api.new_tenant()
        store(api.database, other, [("theirs", "m", NOW, 1.0), ("theirs", "text", NOW, "secret")])

        async def look(connection: object) -> list[int]:
            execute, fetchval = connection.execute, connection.fetchval  # type: ignore[attr-defined]
            tenant_id = await fetchval("SELECT id FROM sens.tenants WHERE name = $1", own[0])
            await execute("SET ROLE sens_api")
            async with connection.transaction():  # type: ignore[attr-defined]
                await execute("SELECT set_config('sens.tenant_id', $1, true)", str(tenant_id))
                views = ("devices", "metrics", "tenant_measurements", "tenant_text_measurements", "tenant_dead_letters")
                return [await fetchval(f"SELECT count(*) FROM sens.{view}") for view in views]  # noqa: S608 - own words

        assert as_owner(api.database, look) == [0, 0, 0, 0, 0]


class TestDeadLetters:
    def test_are_listed_newest_first_shown_and_replayed(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        tenant, client = own
        letters = [dead_letter(tenant=tenant), dead_letter(tenant=tenant, payload=b"\xff")]
        numbers = put_dead_letters(api.database, letters)
        page = client.get("/api/v1/dead-letters", params={"limit": 1}).json()
        assert [letter["id"] for letter in page["dead_letters"]] == numbers[1:]
        page = client.get("/api/v1/dead-letters", params={"cursor": page["next"]}).json()
        assert [letter["id"] for letter in page["dead_letters"]] == numbers[:1]
        assert page["next"] is None
        shown = client.get(f"/api/v1/dead-letters/{numbers[0]}").json()
        assert (shown["payload_text"], shown["payload_base64"]) == ("{", "ew==")
        assert (shown["reason"], shown["payload_bytes"], shown["is_shortened"]) == ("malformed_payload", 1, False)
        assert client.post(f"/api/v1/dead-letters/{numbers[0]}/replay").json() == {"id": numbers[0]}
        assert is_problem(client.post(f"/api/v1/dead-letters/{numbers[0]}/replay"), 404)

    def test_are_listed_by_device_reason_topic_and_time(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        tenant, client = own
        letters = [
            dead_letter(tenant=tenant, device="kitchen.1"),
            dead_letter(tenant=tenant, device="kitchen-1", reason="too_large"),
        ]
        first, second = put_dead_letters(api.database, letters)

        def listed(**parameters: str) -> list[int]:
            answer = client.get("/api/v1/dead-letters", params=parameters)
            return [letter["id"] for letter in answer.json()["dead_letters"]]

        assert listed(device="kitchen.1") == [first]
        assert listed(reason="too_large") == [second]
        assert listed(topic=f"sens/v1/{tenant}/kitchen.1/telemetry") == [first]
        assert listed(topic="sens/v1/+/kitchen.1/#") == [first]
        assert listed(topic="sens/#") == [second, first]
        assert listed(topic="sens/v1/kitchen.1/#") == []
        assert listed(since="2020-01-01", before="2023-01-01") == []
        assert listed(since="2020-01-01") == [second, first]

    def test_are_replayed_by_filter_in_bounded_calls(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        tenant, client = own
        put_dead_letters(api.database, [dead_letter(tenant=tenant, device=f"d{index % 2}") for index in range(6)])
        first = client.post("/api/v1/dead-letters/replay", params={"device": "d0", "limit": 2}).json()
        assert (first["replayed"], first["remaining"]) == (2, 1)
        put_dead_letters(api.database, [dead_letter(tenant=tenant, device="d0")])  # comes back from its replay
        parameters = {"device": "d0", "limit": 2, "cursor": first["next"]}
        second = client.post("/api/v1/dead-letters/replay", params=parameters).json()
        assert second == {"replayed": 1, "incomplete": 0, "next": None, "remaining": 0}
        left = client.get("/api/v1/dead-letters").json()["dead_letters"]
        assert [letter["device"] for letter in left] == ["d0", "d1", "d1", "d1"]

    def test_are_deleted_one_by_one_or_by_filter(self, api: RunningApi, own: tuple[str, httpx2.Client]) -> None:
        tenant, client = own
        numbers = put_dead_letters(
            api.database, [dead_letter(tenant=tenant, device=f"d{index % 2}") for index in range(5)]
        )
        assert client.delete(f"/api/v1/dead-letters/{numbers[0]}").status_code == HTTPStatus.NO_CONTENT
        assert is_problem(client.delete(f"/api/v1/dead-letters/{numbers[0]}"), 404)
        assert is_problem(client.delete("/api/v1/dead-letters"), 422)
        done = client.delete("/api/v1/dead-letters", params={"device": "d0", "limit": 1}).json()
        assert done == {"deleted": 1, "remaining": 1}
        done = client.delete("/api/v1/dead-letters", params={"all": "true"}).json()
        assert done == {"deleted": 3, "remaining": 0}
        assert client.get("/api/v1/dead-letters").json()["dead_letters"] == []

    def test_of_which_only_the_beginning_is_kept_are_not_replayed_once_the_log_has_forgotten_them(
        self, api: RunningApi, own: tuple[str, httpx2.Client]
    ) -> None:
        tenant, client = own
        [number] = put_dead_letters(api.database, [dead_letter(tenant=tenant, payload_bytes=1_000_000)])
        assert client.get(f"/api/v1/dead-letters/{number}").json()["is_shortened"]
        refused = client.post(f"/api/v1/dead-letters/{number}/replay")
        assert is_problem(refused, 409)
        assert "only the beginning" in refused.json()["detail"]
        assert client.post("/api/v1/dead-letters/replay").json()["incomplete"] == 1
        assert [letter["id"] for letter in client.get("/api/v1/dead-letters").json()["dead_letters"]] == [number]


class TestStreaming:
    ROWS = 400_000

    def test_of_many_rows_needs_no_more_memory_than_of_few(
        self, api: RunningApi, own: tuple[str, httpx2.Client]
    ) -> None:
        tenant, client = own
        store(api.database, tenant, [("d", "many", NOW, 0.0)])

        async def fill(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            await allow_former_rows(connection, [NOW, NOW + timedelta(hours=2)])
            await connection.execute(
                """
                INSERT INTO sens.measurements
                SELECT d.id, m.id, $1::timestamptz + i * interval '10 milliseconds', i
                FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id JOIN sens.metrics m ON m.tenant_id = t.id,
                    generate_series(1, $3::int - 1) i
                WHERE t.name = $2
                """,
                NOW,
                tenant,
                self.ROWS,
            )

        as_owner(api.database, fill)
        process = psutil.Process(api.process.pid)
        parameters = DAY | {"limit": str(self.ROWS)}
        size = lines = highest = 0
        before = process.memory_info().rss
        headers = {"Accept": "text/csv"}
        with client.stream("GET", "/api/v1/devices/d/measurements", params=parameters, headers=headers) as answer:
            for chunk in answer.iter_bytes():
                size += len(chunk)
                lines += chunk.count(b"\n")
                highest = max(highest, process.memory_info().rss)
        assert lines == self.ROWS + 1
        assert size > 10 << 20
        assert highest - before < 8 << 20

    def test_ends_the_query_when_the_reader_goes_away(
        self, tmp_path: Path, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        key = make_tenant(database, "demo")
        rows = [("d", "many", NOW + timedelta(milliseconds=i), 0.0) for i in range(100_000)]
        store(database, "demo", rows, Form.READINGS)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'platform-api' AND wait_event_type = 'Lock'"
        )
        target = "/api/v1/devices/d/measurements?from=2026-11-24&to=2026-11-25&limit=1000000"
        with running_api(tmp_path, database, nats) as api, connection_to(api, receive_bytes=16_384) as reader:
            reader.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            assert reader.recv(100).startswith(b"HTTP/1.1 200")
            reader.setblocking(False)

            async def go_away_during_a_query(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
                async with connection.transaction():
                    # Whoever reads on now makes the API ask for a page, which waits for this lock.
                    await connection.execute("LOCK TABLE sens.readings IN ACCESS EXCLUSIVE MODE")
                    while not await connection.fetchval(waiting):
                        with contextlib.suppress(BlockingIOError):
                            reader.recv(65_536)
                    reader.close()
                    while await connection.fetchval(waiting):
                        pass

            as_owner(database, go_away_during_a_query)


class TestOverview:
    def test_tells_what_a_tenant_has_and_what_came_of_its_messages(
        self, api: RunningApi, own: tuple[str, httpx2.Client]
    ) -> None:
        name, client = own
        put_dead_letters(api.database, [dead_letter(tenant=name)])

        async def count(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            await connection.execute(
                """
                INSERT INTO sens.message_counts
                    (tenant_id, day, backend, received, stored, duplicate, dead_lettered, discarded, without_measurements)
                SELECT id, (now() AT TIME ZONE 'UTC')::date - days, days, 15, 4, 3, 2, 1, 5
                FROM sens.tenants, generate_series(0, 1) AS days WHERE name = $1
                """,
                name,
            )
            await connection.execute(
                "INSERT INTO sens.registrations AS r (tenant_id, devices, metrics) SELECT id, 7, 8 FROM sens.tenants WHERE name = $1"
                " ON CONFLICT (tenant_id) DO UPDATE SET devices = 7, metrics = 8",
                name,
            )

        as_owner(api.database, count)
        document = client.get("/api/v1/overview").json()
        assert document["tenant"] == name
        assert (document["devices"]["count"], document["metrics"]["count"]) == (7, 8)
        assert document["messages_today"] == {
            "received": 15,
            "stored": 4,
            "duplicate": 3,
            "dead_lettered": 2,
            "discarded": 1,
            "without_measurements": 5,
        }
        assert document["dead_letters"]["count"] == 1
        assert 0 < document["dead_letters"]["bytes"] < document["dead_letters"]["byte_limit"]
