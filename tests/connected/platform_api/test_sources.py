"""Sources, profiles and codecs over HTTP."""

import json
from http import HTTPStatus
from typing import Any

import httpx2
import msgspec
import pytest

from sens_payloads.formats.sparkplug_b import birth_in
from sens_payloads.uplinks import Received
from support.api import RunningApi, as_owner
from support.sparkplug import metric, payload

EUI = "70b3d57ed0a1b2c3"
UPLINK = json.dumps(
    [{"devEui": EUI, "timestamp": "2026-09-04T08:00:01Z", "payload": "03670110056700ff", "fPort": "2", "rssi": "-73"}]
)
CLIMATE = {"codec": "cayenne_lpp", "metrics": {"temperature_3": {"name": "temperature", "unit": "Cel"}}}
CODEC = "function decodeUplink(input) { return {data: {a: input.bytes[0]}}; }"
ADD_BIRTH = """
    WITH node AS (
        INSERT INTO sens.edge_nodes (tenant_id, source_id, name) SELECT s.tenant_id, s.id, 'plant.line1' FROM sens.sources s
        JOIN sens.tenants t ON t.id = s.tenant_id WHERE t.name = $1 AND s.name = 'plant' RETURNING id
    )
    INSERT INTO sens.births (edge_node_id, device, stream, sequence, number, is_birth, content) SELECT id, 'plant.line1.press7', 1, 1, 0, true, $2 FROM node
"""
ADD_DEVICE = "INSERT INTO sens.devices (tenant_id, name) SELECT id, $2 FROM sens.tenants WHERE name = $1"


def netmore(name: str) -> dict[str, object]:
    return {"topic_filter": f"{name}/#", "format": "netmore"}


def details(answer: httpx2.Response) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"]


def made(answer: httpx2.Response) -> None:
    assert answer.is_success, answer.text


class TestSource:
    def test_is_made_shown_listed_replaced_and_deleted_with_rows_of_the_audit(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            made(client.put("/api/v1/profiles/climate", json=CLIMATE))
            rules = [{"device": "70b3*", "profile": "climate"}]
            first = client.put("/api/v1/sources/field", json=netmore(tenant) | {"profile_rules": rules})
            assert first.status_code == HTTPStatus.OK, first.text
            expected = {
                "source": "field", "transport": "mqtt", "topic_filter": f"{tenant}/#", "format": "netmore", "settings": {},
                "registers_devices": True, "radio": False, "default_profile": None, "profile_rules": rules, "enabled": True,
            }  # fmt: skip
            assert first.json().items() >= expected.items()
            assert client.get("/api/v1/sources/field").json() == first.json()
            assert client.get("/api/v1/sources").json() == {"sources": [first.json()], "next": None}
            again = client.put("/api/v1/sources/field", json=netmore(tenant) | {"profile_rules": rules})
            assert again.json() == first.json()
            off = {"default_profile": "climate", "enabled": False, "radio": True}
            changed = client.put("/api/v1/sources/field", json=netmore(tenant) | off).json()
            assert changed.items() >= (off | {"profile_rules": []}).items()
            assert client.delete("/api/v1/sources/field").status_code == HTTPStatus.NO_CONTENT
            assert client.get("/api/v1/sources/field").status_code == HTTPStatus.NOT_FOUND
            events = client.get("/api/v1/audit").json()["events"]
            assert [(each["action"], each["subject"]) for each in events[:4]] == [
                ("source.deleted", "source field"),
                ("source.changed", "source field"),
                ("source.created", "source field"),
                ("profile.created", "profile climate"),
            ]

    def test_that_is_enabled_is_not_deleted(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            made(client.put("/api/v1/sources/field", json=netmore(tenant)))
            status, code, detail = details(client.delete("/api/v1/sources/field"))
            assert (status, code) == (HTTPStatus.CONFLICT, "in_use")
            assert "disable it first" in detail

    def test_of_another_tenant_is_not_found(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        _, stranger = api.new_tenant()
        with api.client(key) as client:
            made(client.put("/api/v1/profiles/climate", json=CLIMATE))
            made(
                client.put(
                    "/api/v1/sources/field", json=netmore(tenant) | {"default_profile": "climate", "enabled": False}
                )
            )
            made(client.post("/api/v1/codecs/mine/versions", json={"source": CODEC}))
        with api.client(stranger) as client:
            for path in ("sources/field", "profiles/climate", "codecs/mine", "codecs/mine/versions/1"):
                assert client.get(f"/api/v1/{path}").status_code == HTTPStatus.NOT_FOUND, path
                assert client.delete(f"/api/v1/{path}").status_code == HTTPStatus.NOT_FOUND, path
            assert client.get("/api/v1/codecs/mine/versions").status_code == HTTPStatus.NOT_FOUND
            assert client.post("/api/v1/sources/field/try", content=UPLINK).status_code == HTTPStatus.NOT_FOUND
            for room in ("sources", "profiles", "codecs"):
                assert client.get(f"/api/v1/{room}").json()[room] == []
            own = client.put("/api/v1/sources/mine", json=netmore(f"{tenant}-2") | {"default_profile": "climate"})
            assert own.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        with api.client(key) as client:
            assert client.get("/api/v1/sources/field").status_code == HTTPStatus.OK

    def test_does_not_get_the_topics_of_another_one(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        _, stranger = api.new_tenant()
        with api.client(key) as client:
            made(client.put("/api/v1/sources/field", json=netmore(tenant)))
            status, code, detail = details(client.put("/api/v1/sources/other", json=netmore(tenant)))
            assert (status, code) == (HTTPStatus.CONFLICT, "overlap")
            assert f"source other with {tenant}/# and source field match the same topics" in detail
        with api.client(stranger) as client:
            body = {"topic_filter": f"{tenant}/+/up", "format": "netmore"}
            status, code, detail = details(client.put("/api/v1/sources/mine", json=body))
            assert (status, code) == (HTTPStatus.CONFLICT, "overlap")
            assert "another tenant" in detail
            assert "field" not in detail

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": "of_tomorrow"}, "there is no format 'of_tomorrow'"),
            ({"settings": {"nothing": 1}}, "settings of format netmore: nothing"),
            ({"topic_filter": "a/#/b"}, "# for all remaining ones"),
            ({"topic_filter": "$SYS/#"}, "the broker's own"),
            ({"topic_filter": None}, "a source of MQTT has a topic_filter"),
            ({"default_profile": "none"}, "there is no profile none"),
            ({"profile_rules": [{"device": "*", "profile": "none"}]}, "there is no profile none"),
            ({"settings": {"text": "a\0b"}}, "NUL"),
            ({"unknown": 1}, "extra"),
        ],
    )
    def test_that_makes_no_sense_is_refused_with_the_reason(
        self, api: RunningApi, change: dict[str, object], words: str
    ) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            status, code, detail = details(client.put("/api/v1/sources/field", json=netmore(tenant) | change))
            assert (status, code) == (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request")
            assert words in detail
            assert client.get("/api/v1/sources").json()["sources"] == []

    def test_may_not_match_the_platforms_own_topics(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            answer = client.put("/api/v1/sources/all", json={"topic_filter": "#", "format": "netmore"})
            assert answer.status_code == HTTPStatus.CONFLICT
            assert "topics of the platform itself" in answer.json()["detail"]


class TestProfile:
    def test_that_is_used_is_not_deleted_and_says_by_whom(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        as_owner(api.database, lambda connection: connection.execute(ADD_DEVICE, tenant, EUI))
        with api.client(key) as client:
            assert client.put("/api/v1/profiles/climate", json=CLIMATE).json()["units"] == {"temperature_3": "°C"}
            rule = {"device": "a*", "profile": "climate"}
            made(client.put("/api/v1/sources/field", json=netmore(tenant) | {"profile_rules": [rule]}))
            given = client.put(f"/api/v1/devices/{EUI.upper()}/profile", json={"profile": "climate"})
            assert given.json() == {"device": EUI, "profile": "climate"}
            assert client.get(f"/api/v1/devices/{EUI}/profile").json() == given.json()
            status, code, detail = details(client.delete("/api/v1/profiles/climate"))
            assert (status, code) == (HTTPStatus.CONFLICT, "in_use")
            assert f"source field, device {EUI}" in detail
            made(client.put("/api/v1/sources/field", json=netmore(tenant)))
            assert client.delete("/api/v1/profiles/climate").status_code == HTTPStatus.CONFLICT
            made(client.put(f"/api/v1/devices/{EUI}/profile", json={"profile": None}))
            assert client.delete("/api/v1/profiles/climate").status_code == HTTPStatus.NO_CONTENT
            assert (
                client.put("/api/v1/devices/nobody/profile", json={"profile": None}).status_code == HTTPStatus.NOT_FOUND
            )

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"codec": "dragino"}, "one of your own with its version"),
            ({"codec": "dragino@1"}, "there is no codec dragino@1"),
            ({"metrics": {"a": {"unit": "°C"}}}, "a UCUM code is needed"),
            ({"metrics": {"a": {"scale": "x"}}}, "number"),
            ({"metrics": {"a": {"size": 1}}}, "extra"),
        ],
    )
    def test_that_makes_no_sense_is_refused_with_the_reason(
        self, api: RunningApi, body: dict[str, object], words: str
    ) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            status, _, detail = details(client.put("/api/v1/profiles/climate", json=body))
            assert status == HTTPStatus.UNPROCESSABLE_ENTITY
            assert words in detail


class TestCodec:
    def test_gets_a_version_for_each_source_once(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        path = "/api/v1/codecs/mine/versions"
        first = {"source": CODEC, "examples": [{"bytes": "0A", "f_port": 2, "fields": {"a": 10}}]}
        with api.client(key) as client:
            new = client.post(path, json=first)
            again = client.post(path, json=first)
            second = client.post(path, json={"source": CODEC + "// other"})
            assert [answer.status_code for answer in (new, again, second)] == [201, 200, 201]
            assert again.json() == new.json()
            assert second.json()["version"] == 2
            whole = client.get(f"{path}/1").json()
            assert whole["version"] == new.json()
            assert (whole["source"], whole["examples"]) == (
                first["source"],
                [{"bytes": "0a", "f_port": 2, "fields": {"a": 10.0}}],
            )
            assert [each["version"] for each in client.get(path).json()["versions"]] == [2, 1]
            assert client.get("/api/v1/codecs").json()["codecs"][0].items() >= {
                "codec": "mine", "newest": 2, "versions": 2
            }.items()  # fmt: skip

    def test_that_is_used_is_not_deleted_and_its_number_is_not_given_again(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        path = "/api/v1/codecs/mine/versions"
        with api.client(key) as client:
            for source in ("// one", "// two"):
                made(client.post(path, json={"source": CODEC + source}))
            made(client.put("/api/v1/profiles/climate", json={"codec": "mine@1"}))
            for used in ("/api/v1/codecs/mine", f"{path}/1"):
                status, code, detail = details(client.delete(used))
                assert (status, code) == (HTTPStatus.CONFLICT, "in_use")
                assert "profile climate uses mine@1" in detail
            assert client.delete(f"{path}/2").status_code == HTTPStatus.NO_CONTENT
            assert client.post(path, json={"source": CODEC + "// three"}).json()["version"] == 3
            made(client.put("/api/v1/profiles/climate", json={}))
            assert client.delete("/api/v1/codecs/mine").status_code == HTTPStatus.NO_CONTENT

    def test_as_large_as_it_may_be_fits_into_a_request(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            path = "/api/v1/codecs/mine/versions"
            assert client.post(path, json={"source": CODEC.ljust(262_144)}).status_code == HTTPStatus.CREATED
            assert (
                client.post(path, json={"source": CODEC.ljust(262_145)}).status_code == HTTPStatus.UNPROCESSABLE_ENTITY
            )

    def test_that_does_not_do_what_an_example_says_is_refused(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        examples = [{"bytes": "0a", "fields": {"a": 10}}, {"bytes": "0b", "fields": {"a": 10}}]
        with api.client(key) as client:
            answer = client.post("/api/v1/codecs/mine/versions", json={"source": CODEC, "examples": examples})
            status, _, detail = details(answer)
            assert status == HTTPStatus.UNPROCESSABLE_ENTITY
            assert "example 2: it gave a: 11" in detail
            assert "example 1" not in detail
            assert client.get("/api/v1/codecs").json()["codecs"] == []


class TestDocuments:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("devices/a/profile", {"profile": "a\0"}),
            ("devices/a/profile", {}),
            ("profiles/a", {"metrics": {"a": {"ignore": 1}}}),
            ("profiles/a", {"metrics": {"a": {"scale": "2"}}}),
            ("profiles/a", {"metrics": {"\0": {}}}),
            ("sources/a", {"topic_filter": "a", "format": "netmore", "enabled": "yes"}),
        ],
    )
    def test_take_no_values_of_other_types(self, api: RunningApi, path: str, body: dict[str, object]) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            assert client.put(f"/api/v1/{path}", json=body).status_code == HTTPStatus.UNPROCESSABLE_ENTITY

    @pytest.mark.parametrize("example", [{"error": 0}, {"error": 0, "fields": {}}, {"f_port": "1", "error": True}, {}])
    def test_of_codecs_have_examples_that_expect_one_thing(self, api: RunningApi, example: dict[str, object]) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            body = {"source": CODEC, "examples": [{"bytes": "d7"} | example]}
            answer = client.post("/api/v1/codecs/mine/versions", json=body)
            assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY


class TestTry:
    def test_shows_what_each_step_makes_of_a_message(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            made(client.put("/api/v1/profiles/climate", json=CLIMATE))
            rule = {"device": "70b3*", "profile": "climate"}
            made(client.put("/api/v1/sources/field", json=netmore(tenant) | {"profile_rules": [rule], "radio": True}))
            for content_type in ("application/json", "application/octet-stream"):
                answer = client.post(
                    "/api/v1/sources/field/try", content=UPLINK, headers={"Content-Type": content_type}
                )
                assert answer.status_code == HTTPStatus.OK, answer.text
            found = answer.json()
            (uplink,) = found.pop("uplinks")
            assert found == {"refused": False, "without_measurements": None, "refusal": None}
            assert (uplink["device"], uplink["time"], uplink["bytes"], uplink["codec"]) == (
                EUI, "2026-09-04T08:00:01Z", "03670110056700ff", "cayenne_lpp"
            )  # fmt: skip
            assert uplink["fields"] == {"temperature_3": 27.2, "temperature_5": 25.5}
            assert uplink["metrics"] == [
                {"metric": "temperature", "value": 27.2, "unit": "Cel", "unit_text": "°C"},
                {"metric": "temperature_5", "value": 25.5, "unit": None, "unit_text": None},
                {"metric": "lorawan.rssi", "value": -73.0, "unit": None, "unit_text": None},
            ]
            assert client.get("/api/v1/devices").json()["devices"] == []

    def test_says_at_which_step_a_message_fails(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            made(client.put("/api/v1/sources/field", json=netmore(tenant)))

            def refusal(body: str) -> tuple[object, ...]:
                found = client.post("/api/v1/sources/field/try", content=body).json()
                failed = found["refusal"] or found["uplinks"][0]["refusal"]
                return found["refused"], failed["step"], failed["reason"]

            assert refusal("{") == (True, "unwrap", "malformed_payload")
            assert refusal(UPLINK) == (True, "name", "no_codec")
            made(client.put("/api/v1/profiles/climate", json=CLIMATE))
            made(client.put("/api/v1/sources/field", json=netmore(tenant) | {"default_profile": "climate"}))
            assert refusal(UPLINK.replace("03670110056700ff", "0367")) == (True, "decode", "malformed_payload")
            throws = "function decodeUplink() { throw new Error('no such frame'); }"
            made(client.post("/api/v1/codecs/mine/versions", json={"source": throws}))
            made(client.put("/api/v1/profiles/climate", json={"codec": "mine@1"}))
            assert refusal(UPLINK) == (True, "decode", "codec_error")

    def test_runs_a_codec_of_the_tenant(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        with api.client(key) as client:
            made(client.post("/api/v1/codecs/mine/versions", json={"source": CODEC}))
            made(client.put("/api/v1/profiles/climate", json={"codec": "mine@1", "metrics": {"a": {"scale": 0.5}}}))
            made(client.put("/api/v1/sources/field", json=netmore(tenant) | {"default_profile": "climate"}))
            (uplink,) = client.post("/api/v1/sources/field/try", content=UPLINK).json()["uplinks"]
            assert (uplink["codec"], uplink["fields"]) == ("mine@1", {"a": 3})
            assert [(each["metric"], each["value"]) for each in uplink["metrics"]] == [("a", 1.5)]

    def test_knows_the_profile_that_a_device_was_given_by_hand(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        as_owner(api.database, lambda connection: connection.execute(ADD_DEVICE, tenant, EUI))
        with api.client(key) as client:
            made(client.put("/api/v1/profiles/climate", json=CLIMATE))
            made(client.put("/api/v1/sources/field", json=netmore(tenant)))
            made(client.put(f"/api/v1/devices/{EUI}/profile", json={"profile": "climate"}))
            (uplink,) = client.post("/api/v1/sources/field/try", content=UPLINK).json()["uplinks"]
            assert (uplink["profile"], uplink["refusal"]) == ("climate", None)


class TestSparkplug:
    def test_is_tried_with_the_births_that_are_stored_and_comes_over_mqtt_alone(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        group = f"spBv1.0/{tenant}"
        birth = payload(1_785_000_000_123, metric("temperature", 20.0, alias=1))
        born = birth_in(Received(birth, 0, "spBv1.0/plant/DBIRTH/line1/press7"))
        with api.client(key) as client:
            made(client.put("/api/v1/sources/plant", json={"topic_filter": f"{group}/#", "format": "sparkplug_b"}))

            def tried() -> dict[str, Any]:
                body = payload(1_785_000_000_123, metric(None, 22.0, alias=1))
                topic = {"topic": "spBv1.0/plant/DDATA/line1/press7"}
                answer = client.post("/api/v1/sources/plant/try", params=topic, content=body)
                found: dict[str, Any] = answer.json()
                return found

            before = tried()
            content = msgspec.msgpack.encode(born)
            as_owner(api.database, lambda connection: connection.execute(ADD_BIRTH, tenant, content))
            (uplink,) = tried()["uplinks"]
            over_http = client.put("/api/v1/sources/push", json={"transport": "http", "format": "sparkplug_b"})

        assert before["refusal"]["reason"] == "unknown_alias"
        assert "whose birth has not come; let the edge node send its births again" in before["refusal"]["detail"]
        assert (uplink["device"], uplink["fields"]) == ("plant.line1.press7", {"temperature": 22.0})
        assert over_http.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
