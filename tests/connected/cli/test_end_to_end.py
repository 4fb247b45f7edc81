"""What a person sees with ``sens up`` running: one's own message in every place where it should show."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
from aiomqtt import ProtocolVersion

from support.brokers import MqttBroker
from support.platform import Platform, clean_environment
from support.servers import HOST, wait_until
from support.workers import Publisher
from tools.stack.metrics import samples


@pytest.fixture
def broker(platform: Platform) -> MqttBroker:
    return MqttBroker(HOST, platform.ports.mqtt, platform.ports.mqtt5, 0, 0, platform.output)


@pytest.fixture
def api(platform: Platform) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{platform.api_url}/api/v1", headers=platform.headers, timeout=10) as client:
        yield client


def device_name() -> str:
    return f"mine-{time.time_ns():x}"


class LiveReader:
    """Reads ``live`` in a thread until it is closed."""

    def __init__(self, platform: Platform, device: str) -> None:
        self.lines: list[str] = []
        self.connected = threading.Event()
        self._client = httpx2.Client(headers=platform.headers, timeout=30)
        self._url = f"{platform.api_url}/api/v1/live?device={device}"
        self._thread = threading.Thread(target=self._read, name="live reader", daemon=True)
        self._thread.start()
        assert self.connected.wait(10)

    def _read(self) -> None:
        with self._client.stream("GET", self._url) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            self.connected.set()
            for line in answer.iter_lines():
                self.lines.append(line)
                if "21.5" in line:
                    return

    def close(self) -> None:
        self._thread.join(20)
        self._client.close()


class TestOneMessage:
    @pytest.mark.parametrize("version", [ProtocolVersion.V311, ProtocolVersion.V5], ids=["MQTT 3.1.1", "MQTT 5"])
    def test_shows_in_latest_measurements_live_and_tail(
        self, platform: Platform, broker: MqttBroker, api: httpx2.Client, version: ProtocolVersion
    ) -> None:
        device = device_name()
        live = LiveReader(platform, device)
        seen: list[str] = []
        command = [sys.executable, "-m", "sens_cli", "tail", "--device", device, "--json"]
        environment = clean_environment() | {"SENS_DATA_DIR": str(platform.data_dir), "PYTHONUNBUFFERED": "1"}
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as tail,
            Publisher(broker, version=version) as publisher,
        ):
            output = tail.stdout
            assert output is not None
            reading = threading.Thread(target=lambda: seen.extend(output), name="sens tail", daemon=True)
            reading.start()

            def shown() -> bool:
                # `tail` gives no sign of having connected: publish until it has shown one.
                publisher.publish(
                    f"sens/v1/demo/{device}/telemetry", '{"temperature": 21.5, "open": true, "note": "mine"}'
                )
                return any('"temperature"' in line for line in seen)

            try:
                wait_until(shown, "sens tail shows the message")
            finally:
                tail.terminate()
                reading.join(10)
        live.close()
        assert any("21.5" in line for line in live.lines)
        latest = api.get(f"/devices/{device}/latest").raise_for_status().json()["latest"]
        assert {entry["metric"]: entry["value"] for entry in latest} == {
            "temperature": 21.5,
            "open": True,
            "note": "mine",
        }
        measurements = (
            api.get(f"/devices/{device}/measurements", params={"metric": "temperature"}).raise_for_status().json()
        )
        assert measurements["measurements"][0]["value"] == 21.5
        assert device in [entry["device"] for entry in api.get("/devices", params={"prefix": device}).json()["devices"]]


class TestMalformedMessage:
    def test_shows_in_the_dead_letters(self, broker: MqttBroker, api: httpx2.Client) -> None:
        device = device_name()
        with Publisher(broker) as publisher:
            publisher.publish(f"sens/v1/demo/{device}/telemetry", b'{"temperature": ')

        def listed() -> list[dict[str, object]]:
            answer = api.get("/dead-letters", params={"device": device}).raise_for_status().json()
            letters: list[dict[str, object]] = answer["dead_letters"]
            return letters

        wait_until(lambda: bool(listed()), "the dead letter is listed")
        (letter,) = listed()
        assert letter["reason"] == "malformed_payload"
        shown = api.get(f"/dead-letters/{letter['id']}").raise_for_status().json()
        assert shown["payload_text"] == '{"temperature": '


class TestReplay:
    def test_stores_the_message_once_its_cause_is_gone(self, platform: Platform, broker: MqttBroker) -> None:
        tenant = f"later-{time.time_ns():x}"
        metrics = f"http://{HOST}:{platform.operations_port('telemetry-worker')}/metrics"
        series = "sens_telemetry_messages_dead_lettered_total"

        def dead_lettered() -> float:
            return sum(samples(httpx2.get(metrics).text, series, reason="unknown_tenant", tenant="~"))

        before = dead_lettered()
        with Publisher(broker) as publisher:
            publisher.publish(f"sens/v1/{tenant}/d1/telemetry", '{"temperature": 21.5}')
        wait_until(lambda: dead_lettered() > before, "the message is dead-lettered")
        listed = platform.sens("dead-letters", "list", "--tenant", tenant, "--json")
        assert [entry["reason"] for entry in json.loads(listed.stdout)] == ["unknown_tenant"]
        _, key = platform.create_tenant(tenant)
        with httpx2.Client(
            base_url=f"{platform.api_url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=10
        ) as api:
            (letter,) = api.get("/dead-letters").raise_for_status().json()["dead_letters"]
            assert api.post(f"/dead-letters/{letter['id']}/replay").is_success

            def stored() -> list[object]:
                answer = api.get("/devices/d1/measurements", params={"metric": "temperature"})
                values: list[object] = answer.json().get("measurements", [])
                return values

            wait_until(lambda: bool(stored()), "the message is stored")
            assert len(stored()) == 1
            assert api.get("/dead-letters").json()["dead_letters"] == []
            assert api.post(f"/dead-letters/{letter['id']}/replay").status_code == 404


class TestIsolation:
    def test_another_tenants_device_does_not_exist(self, platform: Platform, broker: MqttBroker) -> None:
        device = device_name()
        with Publisher(broker) as publisher:
            publisher.publish(f"sens/v1/demo/{device}/telemetry", '{"temperature": 1}')
        _, key = platform.create_tenant()
        wait_until(
            lambda: httpx2.get(f"{platform.api_url}/api/v1/devices/{device}", headers=platform.headers).is_success,
            "it is there",
        )
        for route in ("", "/latest", "/measurements?metric=temperature"):
            answer = httpx2.get(
                f"{platform.api_url}/api/v1/devices/{device}{route}", headers={"Authorization": f"Bearer {key}"}
            )
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"


def test_the_documentation_is_served(platform: Platform) -> None:
    answer = httpx2.get(f"http://{HOST}:{platform.ports.docs}/")
    assert answer.status_code == 200
    assert "SENS Platform" in answer.text


def test_readiness_names_every_check(platform: Platform) -> None:
    for component in ("mqtt-ingestion-worker", "telemetry-worker"):
        answer = httpx2.get(f"http://{HOST}:{platform.operations_port(component)}/readyz")
        assert answer.status_code == 200
        assert set(json.loads(answer.text)["checks"].values()) == {"ok"}
