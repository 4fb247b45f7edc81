"""Ingest keys over HTTP and by the administration: made, listed, told to the ingestion workers, revoked."""

import asyncio
from http import HTTPStatus

from nats.js.errors import KeyNotFoundError

from sens_common.jetstream import connect
from sens_common.keys import key_hash
from sens_common.tenant_limits import BUCKET, IngestKey, decode, key
from support.api import RunningApi
from support.servers import wait_until

KEYS = "/api/v1/ingest-keys"
PUSH = {"transport": "http", "format": "netmore"}


def told(api: RunningApi, tenant: str) -> tuple[IngestKey, ...]:
    """Return the keys that the ingestion workers are told of."""

    async def read() -> tuple[IngestKey, ...]:
        async with connect(api.nats, "test") as client:
            bucket = await client.jetstream().key_value(BUCKET)
            try:
                found = await bucket.get(key(tenant))
            except KeyNotFoundError:
                return ()
            return decode(found.value or b"").ingest_keys

    return asyncio.run(read())


class TestIngestKey:
    def test_is_made_told_to_the_workers_and_revoked_with_rows_of_the_audit(self, api: RunningApi) -> None:
        tenant, api_key = api.new_tenant()
        _, others_key = api.new_tenant()
        with api.client(api_key) as client:
            assert client.put("/api/v1/sources/push", json=PUSH).is_success
            made = client.post(KEYS, json={"name": "barn", "source": "push", "device": "70-B3-D5-7E-D0-A1-B2-C3"})
            assert made.status_code == HTTPStatus.CREATED, made.text
            text, stored = made.json()["key"], made.json()["created"]
            assert stored.items() >= {"source": "push", "device": "70b3d57ed0a1b2c3", "state": "valid"}.items()
            assert text.startswith(stored["prefix"])
            assert client.get(KEYS).json() == {"keys": [stored], "next": None}
            expected = (IngestKey(key_hash(text).hex(), "push", "70b3d57ed0a1b2c3"),)
            wait_until(lambda: told(api, tenant) == expected, "the workers are told of the key")

            # It can do nothing else, and is nobody else's.
            with api.client(text) as with_ingest_key:
                assert with_ingest_key.get(KEYS).status_code == HTTPStatus.UNAUTHORIZED
            with api.client(others_key) as other:
                assert other.get(KEYS).json() == {"keys": [], "next": None}
                assert other.delete(f"{KEYS}/{stored['id']}").status_code == HTTPStatus.NOT_FOUND

            assert client.delete(f"{KEYS}/{stored['id']}").status_code == HTTPStatus.NO_CONTENT
            assert client.delete(f"{KEYS}/{stored['id']}").status_code == HTTPStatus.NO_CONTENT
            assert client.get(KEYS).json()["keys"][0]["state"] == "revoked"
            wait_until(lambda: told(api, tenant) == (), "the workers are told that it is revoked")
            actions = [each["action"] for each in client.get("/api/v1/audit").json()["events"]]
            assert actions[:2] == ["ingest_key.revoked", "ingest_key.created"]
