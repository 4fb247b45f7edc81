"""The images against each other: from the simulated fleet, and from a request, through broker, log and database to an answer of the API."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from sens_common.settings import DatabaseSettings, NatsSettings
from support.databases import Databases
from support.images import Built, needs_images
from support.servers import HOST, wait_until
from tools.images.catalogue import IMAGES
from tools.ports import free_port
from tools.program import Program

pytestmark = needs_images

TENANT = "acme"


class Answers(NamedTuple):
    """Where the API and the HTTP ingestion listen, and the keys for them."""

    url: str
    key: str
    ingestion_url: str
    ingest_key: str

    def get(self, path: str, *, key: str | None = None) -> httpx2.Response:
        """Ask with the tenant's key, or another one."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx2.get(f"{self.url}{path}", headers=headers, timeout=10, trust_env=False)


def environment_of(database: DatabaseSettings, nats: NatsSettings) -> dict[str, str]:
    """Return the variables by which every service finds the servers."""
    assert database.password is not None
    assert nats.password is not None
    return {
        "SENS_DATABASE__HOST": database.host,
        "SENS_DATABASE__PORT": str(database.port),
        "SENS_DATABASE__NAME": database.name,
        "SENS_DATABASE__USER": database.user,
        "SENS_DATABASE__PASSWORD": database.password.get_secret_value(),
        "SENS_DATABASE__SSL": database.ssl,
        "SENS_NATS__URL": nats.url,
        "SENS_NATS__USER": nats.user or "",
        "SENS_NATS__PASSWORD": nats.password.get_secret_value(),
        "SENS_NATS__STREAM_MAX_BYTES": str(nats.stream_max_bytes),
    }


def wait_until_ready(process: Program, port: int, log: Path) -> None:
    """Wait for ``/readyz`` to say yes."""

    def ready() -> bool:
        try:
            return httpx2.get(f"http://{HOST}:{port}/readyz", timeout=5, trust_env=False).status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    wait_until(lambda: process.exit_code is not None or ready(), f"{log.name} is ready", 60)
    assert process.exit_code is None, log.read_text(encoding="utf-8")


@pytest.fixture
def api(built: Built, databases: Databases, nats: NatsSettings, tmp_path: Path) -> Iterator[Answers]:
    """All images run, in the order of the chart: schema, services, tenant and key, sensors."""
    http, ingestion, posts, post_operations, telemetry, operations, mqtt, mqtt5 = (free_port() for _ in range(8))
    with databases.new() as database, ExitStack() as running:
        servers = environment_of(database, nats)

        def start(name: str, port: int, environment: dict[str, str]) -> None:
            [image] = [image for image in IMAGES if image.name == name]
            log = tmp_path / name
            process = running.enter_context(
                built.service(name, log, servers | environment | {image.port_setting: str(port)}, image.writable)
            )
            wait_until_ready(process, port, log)

        # What the chart's Job and its notes run.
        built.run("telemetry-worker", tmp_path / "migrate", servers, "python", "-m", "sens_common.migrations")
        built.run("platform-api", tmp_path / "tenant", servers, "sens", "tenants", "create", TENANT)
        create = ("sens", "keys", "create", "--tenant", TENANT)
        key = built.run("platform-api", tmp_path / "key", servers, *create)
        ingest_key = built.run("platform-api", tmp_path / "ingest-key", servers, *create, "--ingest")
        start(
            "mock-mqtt-broker",
            operations,
            {
                "SENS_BROKER__PORT": str(mqtt),
                "SENS_BROKER__PORT_V5": str(mqtt5),
                "SENS_FLEET__TENANT": TENANT,
                "SENS_FLEET__DEVICES": "3",
            },
        )
        start("telemetry-worker", telemetry, {})
        start("mqtt-ingestion-worker", ingestion, {"SENS_MQTT__URL": f"mqtt://{HOST}:{mqtt5}"})
        start("http-ingestion-worker", post_operations, {"SENS_HTTP__PORT": str(posts)})
        start("platform-api", http, {})
        yield Answers(f"http://{HOST}:{http}", key.split()[-1], f"http://{HOST}:{posts}", ingest_key.split()[-1])


class TestPlatformOfImages:
    def test_shows_what_the_sensors_measure_and_what_is_posted_to_their_tenant_alone(self, api: Answers) -> None:
        wait_until(lambda: bool(api.get("/api/v1/devices").json()["devices"]), "a sensor is registered", 60)
        device = api.get("/api/v1/devices").json()["devices"][0]["device"]

        latest = api.get(f"/api/v1/devices/{device}/latest")

        assert latest.status_code == httpx2.codes.OK
        assert latest.json()["latest"]
        assert api.get("/api/v1/devices", key="sens_wrong").status_code == httpx2.codes.UNAUTHORIZED

        def post(ingest_key: str) -> int:
            url = f"{api.ingestion_url}/sens/v1/{TENANT}/kitchen/telemetry"
            headers = {"Authorization": f"Bearer {ingest_key}"}
            return httpx2.post(
                url, json={"temperature": 21.5}, headers=headers, timeout=10, trust_env=False
            ).status_code

        wait_until(lambda: post(api.ingest_key) == httpx2.codes.NO_CONTENT, "the new ingest key works", 60)
        wait_until(lambda: "temperature" in api.get("/api/v1/devices/kitchen/latest").text, "the message is stored", 60)
        assert post(api.key) == httpx2.codes.UNAUTHORIZED
