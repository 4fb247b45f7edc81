"""From a POST to a row: through the worker's process, whatever becomes of it."""

import asyncio
import hashlib
import signal
import threading
from collections.abc import Iterator, Mapping

import httpx2
import pytest

from sens_common.jetstream import connect
from sens_common.nats_permissions import HTTP_INGESTION_USER
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_common.tenant_limits import IngestKey, TenantLimits
from sens_platform_api.tenants.jetstream import LimitsBucket
from support.brokers import mock_broker
from support.posting import NATIVE, PUSH
from support.servers import HOST, execute_as, free_port, nats_server, scratch_folder, wait_until
from support.workers import TelemetryPath, Worker, running_path

SOURCE = """
    INSERT INTO sens.sources (tenant_id, name, transport, format, settings)
    SELECT id, 'push', 'http', 'json', '{"rules": [{"topic": "{device}", "time": "at"}]}' FROM sens.tenants WHERE name = 'demo'
"""
KEYS = tuple(
    IngestKey(hashlib.sha256(key.encode()).hexdigest(), source) for key, source in ((PUSH, "push"), (NATIVE, None))
)
AT = 1_700_000_000


@pytest.fixture
def path(database: DatabaseSettings) -> Iterator[tuple[TelemetryPath, Worker, str]]:
    """A path, the HTTP worker beside it, and its address."""
    with (
        mock_broker() as broker,
        scratch_folder("sens-nats-") as folder,
        nats_server(folder) as nats,
        running_path(broker, nats, database) as running,
    ):
        asyncio.run(execute_as(database, SOURCE))
        asyncio.run(tell(nats))
        port = free_port()
        assert nats.password is not None
        environment = {
            "SENS_NATS__URL": nats.url,
            "SENS_NATS__USER": HTTP_INGESTION_USER,
            "SENS_NATS__PASSWORD": nats.password.get_secret_value(),
            "SENS_HTTP__PORT": str(port),
        }
        worker = Worker("sens_http_ingestion_worker", environment, free_port(), folder / "http.log")
        worker.start()
        try:
            worker.wait_until_ready()
            yield running, worker, f"http://{HOST}:{port}"
        finally:
            worker.stop(signal.SIGKILL)


async def tell(nats: NatsSettings) -> None:
    """Tell the workers of the keys, as the API does."""
    async with connect(nats, "test") as client:
        await LimitsBucket(client).bring_to({"demo": TenantLimits(ingest_keys=KEYS)})


def bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"}


class TestMessage:
    def test_that_was_answered_is_stored_through_a_kill_of_the_worker(
        self, path: tuple[TelemetryPath, Worker, str]
    ) -> None:
        running, worker, url = path
        native = f"{url}/sens/v1/demo/d1/telemetry"
        assert httpx2.post(native, json={"ts": AT, "n": 0}, headers=bearer(NATIVE)).status_code == 204
        assert httpx2.post(f"{url}/ingest/v1/demo/push/k1", json={"at": AT, "n": 0}, headers=bearer(PUSH)).is_success
        assert httpx2.post(f"{url}/ingest/v1/demo/push/k1", content=b"no json", headers=bearer(PUSH)).is_success
        assert httpx2.post(native, json={"n": 1}).status_code == 401
        answered: list[int] = []
        killed = threading.Event()

        def send(first: int) -> None:
            number = first
            while number < 10_000 * (first + 1):
                try:
                    with httpx2.Client(headers=bearer(NATIVE)) as client:
                        while number < 10_000 * (first + 1):
                            number += 4
                            answer = client.post(native, json={"ts": AT + number, "n": number})
                            if answer.status_code == 204:
                                answered.append(number)
                            if killed.is_set():
                                return
                except httpx2.TransportError:
                    if killed.is_set():
                        return

        senders = [threading.Thread(target=send, args=(first,)) for first in range(4)]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(answered) >= 40, "messages are answered")
        worker.stop(signal.SIGKILL)
        killed.set()
        for sender in senders:
            sender.join()
        running.wait_until_idle()
        values = {
            int(row["number"])
            for row in running.fetch_stored("SELECT number FROM stored_values WHERE metric = 'n' AND device = 'd1'")
        }
        assert set(answered) | {0} <= values
        [counts] = running.fetch(
            "SELECT dead_lettered::int, unaccounted::int FROM sens.conservation() c JOIN sens.tenants t ON t.id = c.tenant_id"
        )
        assert dict(counts) == {"dead_lettered": 1, "unaccounted": 0}
        assert running.fetch_stored("SELECT 1 FROM stored_values WHERE device = 'k1' AND metric = 'n'")
