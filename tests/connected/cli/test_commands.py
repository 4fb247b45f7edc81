"""The ``sens`` commands against a running platform."""

import json
import re
import secrets
import subprocess
from pathlib import Path

import httpx2
import pytest

from sens_common.version import product_version
from support.platform import Platform
from support.servers import wait_until


@pytest.fixture
def device() -> str:
    """A device of the test's own."""
    return f"cli-{secrets.token_hex(6)}"


def document(result: "subprocess.CompletedProcess[str]") -> list[dict[str, object]]:
    """Return the JSON list that a command printed."""
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert isinstance(answer, list)
    return answer


def wait_for_device(platform: Platform, device: str) -> None:
    """Wait until a device's first message is stored."""
    with httpx2.Client(base_url=platform.api_url, headers=platform.headers) as api:
        wait_until(lambda: api.get(f"/api/v1/devices/{device}").is_success, f"{device} is stored")


class TestStatus:
    def test_shows_every_component_ready_with_its_version(self, platform: Platform) -> None:
        result = platform.sens("status", "--json")
        assert result.returncode == 0, result.stdout
        components = {each["name"]: each for each in json.loads(result.stdout)["components"]}
        assert set(components) == {
            "postgresql",
            "nats",
            "mock-mqtt-broker",
            "mqtt-ingestion-worker",
            "http-ingestion-worker",
            "telemetry-worker",
            "platform-api",
            "docs",
        }
        assert all(each["ready"] for each in components.values())
        assert components["platform-api"]["version"] == product_version()

    def test_tells_in_words_what_the_first_tenant_has(self, platform: Platform, device: str) -> None:
        assert platform.sens("publish", device, "-m", "temperature=21.5", "--wait", "60").returncode == 0
        result = platform.sens("status")
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"tenant {platform.tenant}: "))
        devices, rate, today, letters = line.split("; ")
        assert re.search(r"[0-9,]+ devices? with [0-9,]+ metrics?$", devices)
        assert re.fullmatch(r"[0-9.]+ messages per second", rate)
        outcomes = ("stored", "duplicate", "dead-lettered", "discarded", "without measurements")
        assert re.fullmatch(f"today {', '.join(f'[0-9,]+ {words}' for words in outcomes)}", today)
        assert re.match(r"[0-9,]+ dead letters? kept", letters)
        tenant = json.loads(platform.sens("status", "--json").stdout)["tenant"]
        assert tenant["devices"]["count"] >= 1
        assert tenant["messages_today"]["stored"] >= 1

    def test_says_that_nothing_runs(self, platform: Platform, tmp_path: Path) -> None:
        result = platform.sens("status", "--data-dir", str(tmp_path))
        assert result.returncode == 69
        assert f"no instance runs from {tmp_path}" in result.stderr


class TestAPublishedMessage:
    def test_comes_back_in_every_view_with_its_types(self, platform: Platform, device: str) -> None:
        sent = platform.sens("publish", device, "-m", "temperature=21.5", "-m", "door=true", "-m", 'firmware="1.20"')
        assert sent.returncode == 0, sent.stderr
        wait_for_device(platform, device)

        latest = json.loads(platform.sens("latest", device, "--json").stdout)["latest"]
        assert {each["metric"]: each["value"] for each in latest} == {
            "temperature": 21.5,
            "door": True,
            "firmware": "1.20",
        }
        assert device in [each["device"] for each in document(platform.sens("devices", "--prefix", device, "--json"))]
        stored = document(platform.sens("measurements", device, "-m", "temperature", "--json"))
        assert [each["value"] for each in stored] == [21.5]
        csv = platform.sens("measurements", device, "-m", "temperature", "--csv").stdout.splitlines()
        assert csv[0] == "time,metric,value"
        assert csv[1].endswith(",temperature,21.5")
        buckets = document(
            platform.sens(
                "measurements", device, "-m", "temperature", "--bucket", "1h", "--aggregate", "max,count", "--json"
            )
        )
        assert [(each["max"], each["count"]) for each in buckets] == [(21.5, 1)]
        table = platform.sens("latest", device).stdout
        assert "METRIC" in table
        assert "1.20" in table

    def test_that_nobody_reads_is_said_to_be_lost(self, platform: Platform, device: str) -> None:
        for topic in (f"sens/v1/demo/{device}", "tele/x/SENSOR"):
            lost = platform.sens("publish", "--topic", topic, "{}")
            assert lost.returncode == 1
            assert f"nobody reads the topic {topic}" in lost.stderr
        assert "most recently tele/x/SENSOR (1)" in platform.sens("status").stdout

    @pytest.mark.parametrize("name", ["two words", "Küche", "a/b", ".hidden"])
    def test_of_a_device_that_can_not_be_stored_is_not_sent(self, platform: Platform, name: str) -> None:
        result = platform.sens("publish", name, "{}")
        assert result.returncode == 1
        assert "not sent, for it could not be stored" in result.stderr

    def test_is_waited_for_until_it_is_stored(self, platform: Platform, device: str) -> None:
        first = platform.sens("publish", device, "-m", "temperature=21.5", "--wait", "60")
        assert (first.returncode, first.stdout.splitlines()[-1]) == (0, "it is stored"), first.stderr
        # An older value changes no latest one; the live view tells.
        old = '{"temperature": 20.5, "ts": "2026-01-01T00:00:00Z"}'
        assert platform.sens("publish", device, old, "--wait", "60").returncode == 0

    def test_is_waited_for_until_it_is_a_dead_letter(self, platform: Platform, device: str) -> None:
        sent = platform.sens("publish", device, '{"temperature": ', "--wait", "60", "--json")
        assert sent.returncode == 1
        answer = json.loads(sent.stdout)
        assert (answer["outcome"], answer["dead_letter"]["reason"]) == ("dead-lettered", "malformed_payload")

    def test_that_was_stored_before_is_told_to_have_no_effect(self, platform: Platform, device: str) -> None:
        body = '{"temperature": 21.5, "ts": "2026-01-01T00:00:00Z"}'
        assert platform.sens("publish", device, body, "--wait", "60").returncode == 0
        again = platform.sens("publish", device, body, "--wait", "1")
        assert again.returncode == 1
        assert "stored before" in again.stderr

    def test_is_taken_from_standard_input(self, platform: Platform, device: str) -> None:
        sent = platform.sens("publish", device, "-", given=b'{"level": 7}')
        assert sent.returncode == 0, sent.stderr
        wait_for_device(platform, device)
        assert [each["value"] for each in document(platform.sens("measurements", device, "--json"))] == [7]

    def test_shows_in_the_live_view(self, platform: Platform, device: str) -> None:
        tail = platform.start_sens("tail", "--device", device, "--count", "1", "--json")
        try:
            # The view begins when the API has taken the request, which nothing tells: publish until something comes.
            wait_until(
                lambda: platform.sens("publish", device, "-m", "x=1").returncode == 0 and tail.poll() is not None,
                "a reading comes",
            )
            output = tail.stdout.read() if tail.stdout is not None else ""
            assert json.loads(output)["device"] == device
        finally:
            tail.kill()
            tail.communicate()


class TestDeadLetters:
    def test_a_malformed_message_is_shown_with_its_bytes(self, platform: Platform, device: str) -> None:
        assert platform.sens("publish", device, '{"a":').returncode == 0

        def letters() -> list[dict[str, object]]:
            return document(platform.sens("dead-letters", "list", "--device", device, "--json"))

        wait_until(lambda: bool(letters()), "the message is a dead letter")
        number = str(letters()[0]["id"])
        assert letters()[0]["reason"] == "malformed_payload"
        assert platform.sens("dead-letters", "show", number, "--raw").stdout == '{"a":'
        assert "malformed_payload" in platform.sens("dead-letters", "show", number).stdout
        assert "replayed 1" in platform.sens("dead-letters", "replay", number).stdout

    def test_messages_without_a_valid_tenant_are_shown_by_the_administration(self, platform: Platform) -> None:
        topic = f"sens/v1/UPPER/{secrets.token_hex(4)}/telemetry"
        assert platform.sens("publish", "x", "{}", "--topic", topic).returncode == 0

        def topics() -> list[object]:
            return [each["topic"] for each in document(platform.sens("dead-letters", "list", "--unrouted", "--json"))]

        wait_until(lambda: topic in topics(), "the message is a dead letter")

    def test_one_that_is_not_there_is_said_so(self, platform: Platform) -> None:
        result = platform.sens("dead-letters", "show", "999999")
        assert result.returncode == 1
        assert "no dead letter 999999" in result.stderr


class TestAdministration:
    def test_a_key_works_until_it_is_revoked(self, platform: Platform) -> None:
        tenant, key = platform.create_tenant()
        listed = document(platform.sens("keys", "list", "--tenant", tenant, "--json"))
        assert [each["tenant"] for each in listed] == [tenant]
        assert platform.sens("devices", "--api-key", key).returncode == 0
        assert platform.sens("keys", "revoke", str(listed[0]["id"])).returncode == 0
        with httpx2.Client(base_url=platform.api_url, headers={"Authorization": f"Bearer {key}"}) as api:
            wait_until(lambda: api.get("/api/v1/devices").status_code == 401, "the key stops working")
        assert platform.sens("devices", "--api-key", key).returncode == 1

    def test_a_tenant_is_made_once(self, platform: Platform) -> None:
        tenant, _key = platform.create_tenant()
        again = platform.sens("tenants", "create", tenant)
        assert again.returncode == 1
        assert "already exists" in again.stderr
        assert platform.sens("tenants", "create", tenant, "--if-missing").returncode == 0

    def test_a_name_that_is_none_is_wrong_usage(self, platform: Platform) -> None:
        assert platform.sens("tenants", "create", "Not A Name").returncode == 2

    def test_the_schema_is_migrated_again_without_effect(self, platform: Platform) -> None:
        assert (
            platform.sens("migrate").stdout
            == "the schema is up to date\nall measurements have the form of this version\n"
        )


class TestErrors:
    def test_a_device_that_is_not_there(self, platform: Platform, device: str) -> None:
        result = platform.sens("latest", device)
        assert result.returncode == 1
        assert result.stderr == f"sens: Not found: there is no device {device} (status 404)\n"

    def test_an_api_that_is_not_there(self, platform: Platform) -> None:
        result = platform.sens("devices", "--api-url", "http://127.0.0.1:9", "--api-key", "any")
        assert result.returncode == 69
        assert "can't be reached" in result.stderr

    def test_an_api_without_a_key(self, platform: Platform) -> None:
        result = platform.sens("devices", "--api-url", "http://127.0.0.1:9")
        assert result.returncode == 78
        assert "SENS_API_KEY" in result.stderr
