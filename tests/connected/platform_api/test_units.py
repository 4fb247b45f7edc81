"""Units of metrics, by the devices' profiles, in every form of answers; and presets of sources."""

import json
from datetime import UTC, datetime
from http import HTTPStatus

import pyarrow as pa

from support.api import RunningApi, as_owner, store
from support.stored_rows import Form

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RANGE = {"from": "2026-11-24", "to": "2026-11-25"}
METRICS = {
    "t": {"name": "temperature", "unit": "Cel"},
    "temperature": {"unit": "[degF]", "ignore": True},
    "humidity": {"unit": "%"},
}
NOTE_SOURCE = """
    SELECT sens.note_device_sources(ARRAY[d.id], ARRAY['field']) FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id
    WHERE t.name = $1 AND d.name = $2
"""


class TestUnits:
    def test_of_a_device_with_a_profile_are_told_and_of_others_not(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        rows = [(device, metric, NOON, 21.5) for device in ("a", "b") for metric in ("temperature", "n")]
        store(api.database, tenant, [*rows, ("a", "state", NOON, "on")], Form.READINGS)
        with api.client(key) as client:
            assert client.put("/api/v1/profiles/climate", json={"metrics": METRICS}).is_success
            assert client.put("/api/v1/devices/a/profile", json={"profile": "climate"}).is_success
            unit = {"unit": "Cel", "unit_text": "°C"}

            latest = {each["metric"]: each for each in client.get("/api/v1/devices/a/latest").json()["latest"]}
            assert latest["temperature"].items() >= unit.items()
            assert latest["n"].keys() == latest["state"].keys() == {"metric", "kind", "time", "value"}
            of_all = client.get("/api/v1/latest").json()["devices"]
            assert [[each.get("unit") for each in device["latest"]] for device in of_all] == [
                [None, None, "Cel"],
                [None, None],
            ]
            metrics = {each["metric"]: each for each in client.get("/api/v1/devices/a").json()["metrics"]}
            assert (metrics["temperature"]["unit_text"], "unit" in metrics["n"]) == ("°C", False)
            assert client.get("/api/v1/devices/b").json()["last_seen"] is None

            one = client.get("/api/v1/devices/a/measurements", params=RANGE).json()
            assert one["units"] == [{"metric": "temperature"} | unit]
            both = client.get("/api/v1/measurements", params=RANGE | {"device": ["a", "b"]}).json()
            assert both["units"] == [{"device": "a", "metric": "temperature"} | unit]
            assert "units" not in client.get("/api/v1/devices/b/measurements", params=RANGE).json()

    def test_are_in_csv_where_they_are_wanted_and_in_metadata_of_arrow(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        store(api.database, tenant, [(device, "humidity", NOON, 40.0) for device in ("a", "b")], Form.READINGS)
        with api.client(key) as client:
            assert client.put("/api/v1/profiles/climate", json={"metrics": METRICS}).is_success
            assert client.put("/api/v1/devices/a/profile", json={"profile": "climate"}).is_success
            path, many = "/api/v1/measurements", RANGE | {"device": ["a", "b"]}
            csv = {"Accept": "text/csv"}
            assert client.get(path, params=many, headers=csv).text.splitlines()[0] == "time,device,metric,value"
            with_units = client.get(path, params=many | {"units": "true"}, headers=csv).text.splitlines()
            assert [line.split(",")[1:] for line in with_units] == [
                ["device", "metric", "value", "unit"],
                ["a", "humidity", "40.0", "%"],
                ["b", "humidity", "40.0", ""],
            ]
            hours = client.get(path, params=many | {"units": "true", "bucket": "1h"}, headers=csv).text.splitlines()
            assert [line.rpartition(",")[2] for line in hours] == ["unit", "%", ""]
            stream = client.get(path, params=many, headers={"Accept": "application/vnd.apache.arrow.stream"})
            field = pa.ipc.open_stream(stream.content).schema.field("humidity")
            assert field.metadata.items() >= {b"sens.unit": b"%", b"sens.unit_text": b"%"}.items()

    def test_of_a_device_that_a_source_named_are_those_of_the_first_rule_that_fits(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        store(api.database, tenant, [(name, "t", NOON, 1.0) for name in ("a_1", "a-1", "b")], Form.READINGS)
        with api.client(key) as client:
            for name, unit in (("one", "Cel"), ("two", "K"), ("rest", "[degF]")):
                assert client.put(f"/api/v1/profiles/{name}", json={"metrics": {"t": {"unit": unit}}}).is_success
            rules = [{"device": "a_*", "profile": "one"}, {"device": "a*", "profile": "two"}]
            body = {"transport": "http", "format": "netmore", "profile_rules": rules, "default_profile": "rest"}
            assert client.put("/api/v1/sources/field", json=body).is_success

            def units() -> dict[str, str | None]:
                devices = client.get("/api/v1/latest").json()["devices"]
                return {device["device"]: device["latest"][0].get("unit") for device in devices}

            assert set(units().values()) == {None}
            as_owner(
                api.database,
                lambda connection: connection.executemany(
                    NOTE_SOURCE, [(tenant, name) for name in ("a_1", "a-1", "b")]
                ),
            )
            assert units() == {"a-1": "K", "a_1": "Cel", "b": "[degF]"}
            assert client.put("/api/v1/devices/a_1/profile", json={"profile": "rest"}).is_success
            assert units()["a_1"] == "[degF]"


class TestPreset:
    def test_makes_a_source(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            presets = {each["preset"]: each for each in client.get("/api/v1/presets").json()["presets"]}
            assert presets.keys() >= {"tasmota", "shelly", "zigbee2mqtt", "victron"}
            made = client.put(
                "/api/v1/sources/plugs", json={"preset": "tasmota", "topic_filter": "tele/plugs/#"}
            ).json()
            assert (made["format"], made["topic_filter"]) == ("json", "tele/plugs/#")
            assert made["settings"] == presets["tasmota"]["settings"]
            body = json.dumps({"ENERGY": {"Power": 12}})
            params = {"topic": "tele/plug-1/SENSOR"}
            tried = client.post("/api/v1/sources/plugs/try", params=params, content=body).json()
            assert tried["uplinks"][0]["metrics"][0]["metric"] == "ENERGY.Power"

    def test_with_several_topics_needs_one_of_them(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            answer = client.put("/api/v1/sources/plugs", json={"preset": "shelly"})
            assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
            assert "+/events/rpc" in answer.text
            unknown = client.put("/api/v1/sources/plugs", json={"preset": "tasmoto"})
            assert "there is no preset 'tasmoto'" in unknown.text
