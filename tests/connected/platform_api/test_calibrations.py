"""Calibrations over HTTP."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from support.api import RunningApi, store
from support.stored_rows import Form

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RANGE = {"from": "2026-11-24", "to": "2026-11-25", "metric": "t"}
PATH = "/api/v1/devices/a/calibrations"


class TestCalibration:
    def test_is_added_read_with_listed_and_removed(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        rows = [(device, "t", NOON + timedelta(hours=hour), 10.0) for device in ("a", "b") for hour in range(3)]
        store(api.database, tenant, rows, Form.READINGS)
        with api.client(key) as client:
            body = {
                "metric": "t",
                "valid_from": "2026-11-24T13:00:00Z",
                "scale": 2.0,
                "offset": -0.5,
                "reason": "compared",
            }
            made = client.post(PATH, json=body)
            assert made.status_code == HTTPStatus.CREATED, made.text
            assert made.json().items() >= (body | {"removed_at": None}).items()
            assert client.get(PATH).json() == {"device": "a", "calibrations": [made.json()]}

            def values(**more: str) -> list[float]:
                return [
                    each["value"]
                    for each in client.get("/api/v1/devices/a/measurements", params=RANGE | more).json()["measurements"]
                ]

            assert values() == [10.0, 19.5, 19.5]
            assert values(calibration="none") == [10.0] * 3
            assert values(calibration_as_of="2026-11-24") == [10.0] * 3
            lines = client.get(
                "/api/v1/devices/a/measurements", params=RANGE, headers={"Accept": "text/csv"}
            ).text.splitlines()
            assert [line.rpartition(",")[2] for line in lines] == ["value", "10.0", "19.5", "19.5"]
            assert client.get("/api/v1/devices/a/latest").json()["latest"][0]["value"] == 19.5
            assert (
                client.get("/api/v1/devices/a/latest", params={"calibration": "none"}).json()["latest"][0]["value"]
                == 10.0
            )
            newest = {
                each["device"]: each["latest"][0]["value"] for each in client.get("/api/v1/latest").json()["devices"]
            }
            assert newest == {"a": 19.5, "b": 10.0}

            removed = client.delete(f"{PATH}/{made.json()['calibration']}")
            assert removed.status_code == HTTPStatus.NO_CONTENT
            assert values() == [10.0] * 3
            assert values(calibration_as_of=made.json()["added_at"]) == [10.0, 19.5, 19.5]
            assert client.get(PATH).json()["calibrations"] == []
            [shown] = client.get(PATH, params={"removed": "true"}).json()["calibrations"]
            assert shown["removed_by"] == shown["added_by"]
            actions = [each["action"] for each in client.get("/api/v1/audit").json()["events"][:2]]
            assert actions == ["calibration.removed", "calibration.added"]

    def test_that_is_wrong_is_refused_in_words(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        _, stranger = api.new_tenant()
        store(api.database, tenant, [("a", "t", NOON, 10.0), ("a", "word", NOON, "x")], Form.READINGS)
        with api.client(key) as client:
            for change, status, words in (
                ({"metric": "word"}, HTTPStatus.UNPROCESSABLE_ENTITY, "word has no numbers"),
                ({"metric": "other"}, HTTPStatus.NOT_FOUND, "there is no metric other"),
                ({"scale": 0.0}, HTTPStatus.UNPROCESSABLE_ENTITY, "a scale is from 1e-9"),
                ({"valid_from": "soon"}, HTTPStatus.UNPROCESSABLE_ENTITY, "valid_from"),
            ):
                answer = client.post(PATH, json={"metric": "t", "valid_from": "2026-11-24"} | change)
                assert answer.status_code == status, answer.text
                assert words in answer.text
            both = client.get("/api/v1/latest", params={"calibration": "none", "calibration_as_of": "now"})
            assert both.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        with api.client(stranger) as client:
            assert client.get(PATH).status_code == HTTPStatus.NOT_FOUND
            assert client.post(PATH, json={"metric": "t", "valid_from": "now"}).status_code == HTTPStatus.NOT_FOUND
