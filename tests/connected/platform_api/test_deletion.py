"""Deleting devices and metrics over HTTP."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from sens_platform_api.keys import administration as keys
from support.api import RunningApi, as_owner, store
from support.servers import wait_until

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


def filled(api: RunningApi) -> tuple[str, str]:
    """Make a tenant with two devices and three metrics; return its name and a key."""
    tenant, key = api.new_tenant()
    times = [START + timedelta(seconds=second) for second in range(100)]
    store(api.database, tenant, [(device, "t", time, 1.0) for device in ("d1", "d2") for time in times])
    store(api.database, tenant, [("d1", "t", times[0], "text"), ("d1", "a/b ü", times[0], True)])
    return tenant, key


def rows_of(api: RunningApi, tenant: str) -> int:
    """Return how many measurements are still there of devices that the tenant has or had."""
    count: int = as_owner(
        api.database,
        lambda connection: connection.fetchval(
            """
            SELECT count(*) FROM (
                SELECT device_id FROM sens.measurements UNION ALL SELECT device_id FROM sens.text_measurements
            ) m WHERE device_id IN (
                SELECT d.id FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id WHERE t.name = $1
                UNION SELECT l.device_id FROM sens.deletions l JOIN sens.tenants t ON t.id = l.tenant_id WHERE t.name = $1
            )
            """,
            tenant,
        ),
    )
    return count


class TestDevice:
    def test_is_gone_with_all_its_measurements(self, api: RunningApi) -> None:
        tenant, key = filled(api)
        with api.client(key) as client:
            answer = client.delete("/api/v1/devices/d1")
            assert (answer.status_code, answer.json()) == (HTTPStatus.ACCEPTED, {"device": "d1"})
            assert client.get("/api/v1/devices/d1").status_code == HTTPStatus.NOT_FOUND
            assert client.get("/api/v1/devices/d1/measurements").status_code == HTTPStatus.NOT_FOUND
            assert client.delete("/api/v1/devices/d1").status_code == HTTPStatus.NOT_FOUND
            assert [each["device"] for each in client.get("/api/v1/devices").json()["devices"]] == ["d2"]
            wait_until(lambda: rows_of(api, tenant) == 100, "the measurements are deleted")
            event = client.get("/api/v1/audit").json()["events"][0]
            assert (event["action"], event["subject"]) == ("device.deleted", "d1")
            assert event["actor"].startswith("key ")
            assert event["address"] == "127.0.0.1"

    def test_of_another_tenant_is_not_found(self, api: RunningApi) -> None:
        tenant, _ = filled(api)
        _, other = api.new_tenant()
        with api.client(other) as client:
            assert client.delete("/api/v1/devices/d1").status_code == HTTPStatus.NOT_FOUND
            assert client.delete("/api/v1/metrics?metric=t").status_code == HTTPStatus.NOT_FOUND
        assert rows_of(api, tenant) == 202

    def test_is_not_deleted_with_a_key_that_may_only_read(self, api: RunningApi) -> None:
        tenant, _ = filled(api)
        _, key = as_owner(
            api.database,
            lambda connection: keys.create(connection, tenant=tenant, name="reader", access="read_only"),
        )
        with api.client(key) as client:
            for path in ("devices/d1", "metrics?metric=t"):
                assert client.delete(f"/api/v1/{path}").status_code == HTTPStatus.FORBIDDEN
            assert client.get("/api/v1/metrics").status_code == HTTPStatus.OK


class TestMetrics:
    def test_are_listed_in_pages(self, api: RunningApi) -> None:
        _, key = filled(api)
        with api.client(key) as client:
            first = client.get("/api/v1/metrics", params={"limit": 2}).json()
            second = client.get("/api/v1/metrics", params={"limit": 2, "cursor": first["next"]}).json()
            assert [(each["metric"], each["kind"]) for each in first["metrics"] + second["metrics"]] == [
                ("a/b ü", "boolean"),
                ("t", "number"),
                ("t", "text"),
            ]
            assert second["next"] is None
            only = client.get("/api/v1/metrics", params={"prefix": "a/"}).json()
            assert [each["metric"] for each in only["metrics"]] == ["a/b ü"]

    def test_are_gone_from_all_devices(self, api: RunningApi) -> None:
        tenant, key = filled(api)
        with api.client(key) as client:
            answer = client.delete("/api/v1/metrics", params={"metric": "t", "kind": "number"})
            assert (answer.status_code, answer.json()) == (HTTPStatus.ACCEPTED, {"metric": "t", "kinds": ["number"]})
            latest = client.get("/api/v1/devices/d1/latest").json()["latest"]
            assert [(each["metric"], each["kind"]) for each in latest] == [("a/b ü", "boolean"), ("t", "text")]
            assert client.get("/api/v1/devices/d2/measurements").json()["measurements"] == []
            wait_until(lambda: rows_of(api, tenant) == 2, "the measurements are deleted")
            assert client.delete("/api/v1/metrics", params={"metric": "a/b ü"}).json()["kinds"] == ["boolean"]
            wait_until(lambda: rows_of(api, tenant) == 1, "the measurements are deleted")

    def test_that_do_not_exist_are_named(self, api: RunningApi) -> None:
        _, key = filled(api)
        with api.client(key) as client:
            answer = client.delete("/api/v1/metrics", params={"metric": "x"})
            assert answer.json()["detail"] == "there is no metric 'x'"
            assert client.delete("/api/v1/metrics").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
            assert client.delete("/api/v1/metrics?metric=t&kind=no").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
