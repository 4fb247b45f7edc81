"""Orders to decode messages again, and to compare versions, over HTTP; the telemetry worker does them."""

from http import HTTPStatus

from support.api import RunningApi, as_owner

CODEC = "function decodeUplink(input) { return {data: {a: input.bytes[0]}}; }"
ADD_DEVICE = "INSERT INTO sens.devices (tenant_id, name) SELECT id, 'd1' FROM sens.tenants WHERE name = $1"
DRY_RUN = {"kind": "dry_run", "codec": "own@1", "device": "d1", "from": "-7d"}
RUNS = "/api/v1/codec-runs"


class TestRun:
    def test_is_begun_once_shown_listed_and_cancelled_with_rows_of_the_audit(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        as_owner(api.database, lambda owner: owner.execute(ADD_DEVICE, tenant))
        with api.client(key) as client:
            client.post("/api/v1/codecs/own/versions", json={"source": CODEC}).raise_for_status()
            first = client.post(RUNS, json=DRY_RUN | {"kind": "redecode", "from": "2026-01-01"})
            again = client.post(RUNS, json=DRY_RUN | {"kind": "redecode", "from": "2026-01-01"})
            other = client.post(RUNS, json=DRY_RUN)
            path = f"{RUNS}/{first.json()['id']}"

            assert first.status_code == HTTPStatus.ACCEPTED, first.text
            assert (first.json()["state"], first.json()["codec"]) == ("waiting", "own@1")
            assert again.json() == first.json()
            assert (other.status_code, other.json()["code"]) == (HTTPStatus.CONFLICT, "in_use")
            assert client.get(path).json() == first.json()
            assert client.get(RUNS).json() == {"runs": [first.json()], "next": None}
            cancelled = client.delete(path).json()
            assert cancelled["state"] == "cancelled"
            assert client.delete(path).json() == cancelled
            events = [each["action"] for each in client.get("/api/v1/audit").json()["events"]]
            assert events[:2] == ["codec_run.cancelled", "values.redecoding"]

    def test_of_another_tenant_is_not_found(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        _, stranger = api.new_tenant()
        as_owner(api.database, lambda owner: owner.execute(ADD_DEVICE, tenant))
        with api.client(key) as client:
            client.post("/api/v1/codecs/own/versions", json={"source": CODEC}).raise_for_status()
            run = client.post(RUNS, json=DRY_RUN).json()["id"]
        with api.client(stranger) as client:
            assert client.get(RUNS).json()["runs"] == []
            assert client.get(f"{RUNS}/{run}").status_code == HTTPStatus.NOT_FOUND
            assert client.delete(f"{RUNS}/{run}").status_code == HTTPStatus.NOT_FOUND
            assert client.post(RUNS, json=DRY_RUN).status_code == HTTPStatus.NOT_FOUND
        with api.client(key) as client:
            assert client.get(f"{RUNS}/{run}").json()["state"] == "waiting"

    def test_that_makes_no_sense_is_refused(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        as_owner(api.database, lambda owner: owner.execute(ADD_DEVICE, tenant))
        compare = {"kind": "compare", "codec": "own@2", "before": "own@1", "from": "-1d"}
        with api.client(key) as client:
            for body in (
                DRY_RUN | {"codec": "own"},
                DRY_RUN | {"from": "+1d"},
                DRY_RUN | {"device": None},
                compare | {"before": "other@1"},
                compare | {"device": "d1"},
            ):
                assert client.post(RUNS, json=body).status_code == HTTPStatus.UNPROCESSABLE_ENTITY, body
            for body in (DRY_RUN, DRY_RUN | {"device": "d2"}, compare, compare | {"source": "field"}):
                assert client.post(RUNS, json=body).status_code == HTTPStatus.NOT_FOUND, body


class TestSource:
    def test_keeps_messages_for_as_many_days_as_it_says(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        source = {"topic_filter": f"{tenant}/#", "format": "netmore"}
        with api.client(key) as client:
            answers = [
                client.put("/api/v1/sources/field", json=source | {"keep_frames": days}).json()
                for days in (30, 7, None)
            ]

            assert [each["keep_frames"] for each in answers] == [30, 7, None]
            refused = client.put("/api/v1/sources/field", json=source | {"keep_frames": 401})
            assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
