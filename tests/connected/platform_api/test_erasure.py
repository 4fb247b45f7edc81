"""Erasures and deletions of time ranges over HTTP, with the stream CONTROL."""

import asyncio
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from sens_common import control
from sens_common.jetstream import connect as connect_nats
from sens_common.names import CONTROL_STREAM
from support.api import RunningApi, as_owner
from support.regular_readings import store_readings
from support.servers import wait_until

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
COUNT = """
    SELECT count(*) FROM sens.readings r JOIN sens.devices d ON d.id = r.device_id JOIN sens.tenants t ON t.id = d.tenant_id WHERE t.name = $1
"""


def filled(api: RunningApi) -> tuple[str, str]:
    """Make a tenant with two devices of a hundred readings each; return its name and a key."""
    tenant, key = api.new_tenant()
    for device in ("d1", "d2"):
        as_owner(
            api.database,
            lambda connection, device=device: store_readings(  # type: ignore[misc] # bound at once
                connection, tenant, device, {"a": 1.0, "b": "x"}, first=START, step=timedelta(minutes=1), count=100
            ),
        )
    return tenant, key


class TestErasure:
    def test_deletes_and_gives_a_receipt(self, api: RunningApi) -> None:
        tenant, key = filled(api)
        with api.client(key) as client:
            answer = client.post("/api/v1/erasures", params={"device": "d1"})
            assert answer.status_code == HTTPStatus.ACCEPTED
            receipt = answer.json()
            assert receipt["device_hash"] == control.device_hash("d1").hex()
            assert client.get("/api/v1/devices/d1").status_code == HTTPStatus.NOT_FOUND
            path = f"/api/v1/erasures/{receipt['id']}"
            wait_until(lambda: client.get(path).json()["finished_at"] is not None, "it is erased")
            receipt = client.get(path).json()
            assert (receipt["readings"], receipt["values"], receipt["dead_letters"]) == (100, 200, 0)
            erased_at = datetime.fromisoformat(receipt["erased_at"])
            assert datetime.fromisoformat(receipt["stream_free_at"]) == erased_at + timedelta(days=1)
            assert (receipt["backups_free_at"], receipt["backups"]) == (None, "no backups are configured")
            assert client.get("/api/v1/erasures").json()["erasures"] == [receipt]
            assert client.get("/api/v1/erasures/999999").status_code == HTTPStatus.NOT_FOUND
            # A device that is not there, or not any more, is erased too: the stream may hold messages of it.
            again = client.post("/api/v1/erasures", params={"device": "d1"})
            assert again.status_code == HTTPStatus.ACCEPTED
            event = client.get("/api/v1/audit").json()["events"][0]
            assert (event["action"], "d1" in event["subject"]) == ("device.erased", False)
        assert as_owner(api.database, lambda connection: connection.fetchval(COUNT, tenant)) == 100
        assert control.device_hash("d1").hex() in {each.device_hash for each in asyncio.run(self.kept(api))}

    def test_that_the_database_has_lost_is_carried_out_again(self, api: RunningApi) -> None:
        tenant, key = filled(api)
        with api.client(key) as client:
            erasure = client.post("/api/v1/erasures", params={"device": "d1"}).json()["id"]
            wait_until(
                lambda: client.get(f"/api/v1/erasures/{erasure}").json()["finished_at"] is not None, "it is erased"
            )
            # As after a restore of a backup from before.
            as_owner(api.database, lambda connection: connection.execute("DELETE FROM sens.erasures"))
            as_owner(
                api.database,
                lambda connection: connection.execute("UPDATE sens.control_progress SET sequence = 0, stream = 0"),
            )
            wait_until(lambda: len(client.get("/api/v1/erasures").json()["erasures"]) == 1, "it is applied again")
            assert client.get("/api/v1/devices/d2").status_code == HTTPStatus.OK
        assert as_owner(api.database, lambda connection: connection.fetchval(COUNT, tenant)) == 100

    @staticmethod
    async def kept(api: RunningApi) -> list[control.Erasure]:
        """Return the erasures of the stream."""
        async with connect_nats(api.nats, "test") as client:
            info = await client.jetstream().stream_info(CONTROL_STREAM)
            assert info.config.deny_purge
            assert info.config.deny_delete
            found = [
                await client.jetstream().get_msg(CONTROL_STREAM, seq=sequence)
                for sequence in range(info.state.first_seq, info.state.last_seq + 1)
            ]
        return [control.decode(message.data or b"") for message in found]


class TestRange:
    def test_is_deleted_and_shown_in_the_list(self, api: RunningApi) -> None:
        tenant, key = filled(api)
        with api.client(key) as client:
            url = "/api/v1/devices/d1/measurements"
            answer = client.delete(url, params={"from": "2026-11-24T12:10:00Z", "to": "2026-11-24T12:30:00Z"})
            assert answer.status_code == HTTPStatus.ACCEPTED
            assert answer.json()["kept_aggregates"] == []
            number = answer.json()["deletion"]
            wait_until(
                lambda: client.get("/api/v1/deletions").json()["deletions"][0]["finished_at"] is not None, "it is gone"
            )
            deletion = client.get("/api/v1/deletions", params={"limit": 1}).json()["deletions"][0]
            assert (deletion["id"], deletion["subject"], deletion["readings"], deletion["values"]) == (
                number, "readings of device d1", 20, 40
            )  # fmt: skip
            assert len(client.get(url, params={"from": "2026-11-24", "metric": "a"}).json()["measurements"]) == 80
            backwards = client.delete(url, params={"from": "2026-11-25", "to": "2026-11-24"})
            assert backwards.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
            unknown = client.delete(url, params={"from": "2026-11-23", "to": "2026-11-24", "metric": "c"})
            assert unknown.status_code == HTTPStatus.NOT_FOUND
        assert as_owner(api.database, lambda connection: connection.fetchval(COUNT, tenant)) == 180


class TestRenaming:
    def test_of_a_device_keeps_its_measurements(self, api: RunningApi) -> None:
        _, key = filled(api)
        with api.client(key) as client:
            answer = client.post("/api/v1/devices/d1/rename", params={"name": "d1-old"})
            assert (answer.status_code, answer.json()) == (HTTPStatus.OK, {"device": "d1-old"})
            url = "/api/v1/devices/d1-old/measurements"
            found = client.get(url, params={"from": "2026-11-24", "metric": "a"}).json()["measurements"]
            assert len(found) == 100
            taken = client.post("/api/v1/devices/d1-old/rename", params={"name": "d2"})
            assert (taken.status_code, taken.json()["code"]) == (HTTPStatus.CONFLICT, "already_exists")
            gone = client.post("/api/v1/devices/d1/rename", params={"name": "d3"})
            assert gone.status_code == HTTPStatus.NOT_FOUND
            assert client.get("/api/v1/audit").json()["events"][0]["details"] == {"name": "d1-old"}


class TestMove:
    def test_brings_a_device_with_its_history_to_another_tenant(self, api: RunningApi) -> None:
        tenant, key = filled(api)
        other, other_key = api.new_tenant()
        url = "/api/v1/devices/d1/measurements"
        with api.client(key) as client, api.client(other_key) as there:
            before = client.get(url, params={"from": "2026-11-24", "metric": "a"}).json()["measurements"]
            answer = client.post("/api/v1/devices/d1/move", headers={"Sens-Target-Key": other_key})
            assert answer.status_code == HTTPStatus.ACCEPTED
            assert (answer.json()["device"], answer.json()["tenant"]) == ("d1", other)
            assert client.get("/api/v1/devices/d1").status_code == HTTPStatus.NOT_FOUND
            for each in (client, there):
                wait_until(
                    lambda each=each: each.get("/api/v1/deletions").json()["deletions"][0]["finished_at"] is not None,  # type: ignore[misc] # bound at once
                    "it is moved",
                )
            assert there.get(url, params={"from": "2026-11-24", "metric": "a"}).json()["measurements"] == before
            assert there.get("/api/v1/audit").json()["events"][0]["action"] == "device.moved"
            assert client.get("/api/v1/audit").json()["events"][0]["subject"] == "d1"
        assert as_owner(api.database, lambda connection: connection.fetchval(COUNT, tenant)) == 100
        assert as_owner(api.database, lambda connection: connection.fetchval(COUNT, other)) == 100

    def test_is_refused_with_the_reason(self, api: RunningApi) -> None:
        _, key = filled(api)
        _, other_key = filled(api)
        url = "/api/v1/devices/d1/move"
        with api.client(key) as client:
            answers = {
                "missing": client.post(url),
                "malformed": client.post(url, headers={"Sens-Target-Key": "x"}),
                "unknown": client.post(url, headers={"Sens-Target-Key": "sens_" + "x" * 43}),
                "own": client.post(url, headers={"Sens-Target-Key": key}),
                "taken": client.post(url, headers={"Sens-Target-Key": other_key}),
                "no device": client.post("/api/v1/devices/d9/move", headers={"Sens-Target-Key": other_key}),
            }
        assert {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()} == {
            "missing": (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
            "malformed": (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
            "unknown": (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
            "own": (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
            "taken": (HTTPStatus.CONFLICT, "already_exists"),
            "no device": (HTTPStatus.NOT_FOUND, "not_found"),
        }
        assert other_key not in "".join(answer.text for answer in answers.values())
