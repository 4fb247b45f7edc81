"""``sens up`` itself: what it starts, keeps running, stops, and says when it can't."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from pydantic import SecretStr

from sens_cli.up.counts import DatabaseCounts
from sens_cli.up.display import READY_LINE
from sens_cli.up.process import process_identity
from sens_common.command_line.instance import Instance
from sens_common.database import connect
from sens_common.settings import DatabaseSettings
from support.platform import Platform, clean_environment, command, free_port_offset, running_platform, stop
from support.servers import HOST, accepts_connections, scratch_folder, wait_until

STOP_SECONDS = 10


def processes_below(folder: Path) -> list[int]:
    """Return the processes that an instance wrote down and that still run."""
    numbers = [int(note.read_text().split(":")[1].split(",")[0]) for note in (folder / "run").glob("*.pid")]
    return [number for number in numbers if process_identity(number) is not None]


async def counts_of(running: Platform) -> int:
    """Return how many messages the database has counted, as the live line shows it."""
    password = (running.data_dir / "secrets" / "database-password").read_text().strip()
    counts = DatabaseCounts(running.ports.postgres, password)
    try:
        stored = (await counts.read()).stored
    finally:
        await counts.close()
    assert stored is not None
    return stored


def status_of(url: str, key: str | None = None) -> int:
    """Return the status of a GET request, 0 when nobody answers."""
    try:
        return httpx2.get(url, headers={"Authorization": f"Bearer {key}"} if key else {}, trust_env=False).status_code
    except httpx2.HTTPError:
        return 0


def answer_of(url: str) -> tuple[int, str]:
    """Return status and body of a GET request."""
    response = httpx2.get(url, trust_env=False)
    return response.status_code, response.text


def refused(data_dir: Path, offset: int, *options: str) -> str:
    """Run a ``sens up`` that can't start; return its message."""
    result = subprocess.run(
        command(data_dir, offset, *options),
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
        check=False,
    )
    assert result.returncode not in {0, None}
    assert "Traceback" not in result.stderr
    assert READY_LINE not in result.stdout
    assert len(result.stderr.strip().splitlines()) <= 2
    return result.stderr


class TestARunningPlatform:
    def test_ends_its_start_with_the_ready_line(self, platform: Platform) -> None:
        assert READY_LINE in platform.output.read_text().splitlines()

    def test_answers_at_every_address_it_names(self, platform: Platform) -> None:
        assert status_of(f"{platform.api_url}/readyz") == 200
        assert status_of(f"http://{HOST}:{platform.ports.docs}/healthz") == 200
        assert status_of(f"http://{HOST}:{platform.ports.nats_monitoring}/healthz") == 200
        for port in (platform.ports.mqtt, platform.ports.mqtt5, platform.ports.postgres, platform.ports.nats):
            assert accepts_connections(port)
        for component in ("mock-mqtt-broker", "mqtt-ingestion-worker", "http-ingestion-worker", "telemetry-worker"):
            assert status_of(f"http://{HOST}:{platform.operations_port(component)}/readyz") == 200

    def test_prints_a_key_that_the_api_takes(self, platform: Platform) -> None:
        assert platform.key in platform.output.read_text()
        assert status_of(f"{platform.api_url}/api/v1/devices", platform.key) == 200
        assert status_of(f"{platform.api_url}/api/v1/devices") == 401

    def test_keeps_its_secrets_to_its_owner(self, platform: Platform) -> None:
        files = list((platform.data_dir / "secrets").iterdir())
        assert {file.name for file in files} == {
            "database-api-password",
            "database-password",
            "database-worker-password",
            "demo-api-key",
            "nats-api-password",
            "nats-http-ingestion-password",
            "nats-ingestion-password",
            "nats-password",
            "nats-telemetry-password",
            "postgres-superuser-password",
        }
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert (platform.data_dir / "secrets").stat().st_mode & 0o777 == 0o700

    def test_listens_on_this_machine_only(self, platform: Platform) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells the address that other machines see
            outside = probe.getsockname()[0]
        if outside.startswith("127."):
            pytest.skip("this machine has no other address")
        for port in platform.ports:
            with socket.socket() as client:
                client.settimeout(2)
                assert client.connect_ex((outside, port)) != 0

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root starts its children as another account")
    def test_of_root_runs_everything_as_one_account_that_is_not_root(self, platform: Platform) -> None:
        names = [note.stem for note in (platform.data_dir / "run").glob("*.pid")]
        owners = {name: Path(f"/proc/{platform.process_number(name)}").stat().st_uid for name in names}
        assert len(names) >= 8
        assert len(set(owners.values())) == 1
        (account,) = set(owners.values())
        assert account != 0
        stores = [platform.data_dir / "nats", platform.data_dir / "postgres", platform.data_dir / "run/nats.conf"]
        assert {path.stat().st_uid for path in stores} == {account}
        assert (platform.data_dir / "run/nats.conf").stat().st_mode & 0o777 == 0o600
        # What children get they get from us; none reads another one's secret.
        assert {path.stat().st_uid for path in (platform.data_dir / "secrets").iterdir()} == {0}

    async def test_logs_each_part_in_to_the_stores_as_itself(self, platform: Platform) -> None:
        for port in (platform.ports.api, platform.ports.telemetry_operations):
            status, body = answer_of(f"http://{platform.host}:{port}/readyz")
            assert (status, "notes" in json.loads(body)) == (200, False), body
        superuser = DatabaseSettings(
            host=platform.host,
            port=platform.ports.postgres,
            name="sens_platform",
            user="postgres",
            password=SecretStr((platform.data_dir / "secrets/postgres-superuser-password").read_text().strip()),
            ssl="disable",
        )
        connection = await connect(superuser, "test")
        try:
            rows = await connection.fetch(
                "SELECT DISTINCT application_name, usename FROM pg_stat_activity WHERE application_name LIKE '%-%'"
            )
            assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'sens_platform'")
        finally:
            await connection.close()
        assert {(row[0], row[1]) for row in rows} == {
            ("platform-api", "sens_platform_api"),
            ("telemetry-worker", "sens_platform_worker"),
        }
        _, body = answer_of(f"http://{platform.host}:{platform.ports.nats_monitoring}/connz?auth=true")
        users = {each["name"].partition(" ")[0]: each["authorized_user"] for each in json.loads(body)["connections"]}
        assert users == {
            name: name
            for name in ("platform-api", "mqtt-ingestion-worker", "http-ingestion-worker", "telemetry-worker")
        }

    @pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system does not show environments")
    def test_gives_the_services_no_password_of_another_one(self, platform: Platform) -> None:
        secrets = {file.name: file.read_text().strip() for file in (platform.data_dir / "secrets").iterdir()}
        known = {
            name: {
                secret
                for secret, value in secrets.items()
                if value.encode() in Path(f"/proc/{platform.process_number(name)}/environ").read_bytes()
            }
            for name in (
                "platform-api",
                "telemetry-worker",
                "mqtt-ingestion-worker",
                "http-ingestion-worker",
                "docs",
                "mock-mqtt-broker",
            )
        }
        assert known == {
            "platform-api": {"database-api-password", "nats-api-password"},
            "telemetry-worker": {"database-worker-password", "nats-telemetry-password"},
            "mqtt-ingestion-worker": {"nats-ingestion-password"},
            "http-ingestion-worker": {"nats-http-ingestion-password"},
            "docs": set(),
            "mock-mqtt-broker": set(),
        }

    def test_refuses_a_second_instance_on_its_data(self, platform: Platform) -> None:
        message = refused(platform.data_dir, free_port_offset())
        assert f"{platform.data_dir} is in use by another sens up (process {platform.process.pid}" in message
        assert Instance.load(platform.data_dir) is not None

    def test_refuses_a_second_instance_on_its_ports(self, platform: Platform, tmp_path: Path) -> None:
        message = refused(tmp_path / "other", platform.offset)
        assert f"port {platform.ports.postgres} for postgresql is taken" in message
        assert "--port-offset" in message


@pytest.fixture(scope="module")
def folder(platform: Platform) -> Iterator[Path]:
    """A folder of which two data folders have the documentation already: the one of all tests has built it."""
    with scratch_folder("sens up with spaces ") as made:
        if (platform.data_dir / "site.stamp").is_file():
            for name in ("data", "mosquitto"):
                shutil.copytree(platform.data_dir / "site", made / name / "site")
                shutil.copyfile(platform.data_dir / "site.stamp", made / name / "site.stamp")
        yield made


class TestTheLifeOfAnInstance:
    """One folder, several starts: each test leaves it for another one to start with."""

    def test_a_killed_component_is_started_again_and_said_so(self, folder: Path) -> None:
        with running_platform(folder / "data", "--no-simulator") as running:
            before = running.process_number("telemetry-worker")
            os.kill(before, signal.SIGKILL)
            operations = f"http://{HOST}:{running.operations_port('telemetry-worker')}/readyz"
            wait_until(
                lambda: running.process_number("telemetry-worker") != before and status_of(operations) == 200,
                "the worker is started again",
            )
            assert "warning: telemetry-worker was ended by SIGKILL" in running.output.read_text()
            stored = asyncio.run(counts_of(running))
            assert running.sens("publish", "meter-1", "-m", "x=1").returncode == 0
            wait_until(lambda: asyncio.run(counts_of(running)) == stored + 1, "the message is counted")
            assert stop(running) < STOP_SECONDS
            assert running.process.returncode == 0
            assert running.output.read_text().splitlines()[-1] == "stopped"
            assert processes_below(running.data_dir) == []
            assert Instance.load(running.data_dir) is None

    def test_what_is_not_ready_or_not_read_is_said(self, folder: Path) -> None:
        with running_platform(folder / "data", "--no-simulator") as running:
            assert running.sens("publish", "meter-1", "-m", "x=1").returncode == 0
            wait_until(lambda: asyncio.run(counts_of(running)) >= 1, "the message is counted")
        with running_platform(folder / "data", "--no-simulator") as running:
            assert asyncio.run(counts_of(running)) >= 1, "counted in an earlier start"
            worker = psutil.Process(running.process_number("telemetry-worker"))
            running.sens("publish", "x", "{}", "--topic", "tele/x/SENSOR")
            worker.suspend()
            wait_until(lambda: "telemetry-worker is not ready" in running.output.read_text(), "it is said", 60)
            worker.resume()
            wait_until(lambda: "telemetry-worker is ready again" in running.output.read_text(), "it is said", 60)
            assert "nobody reads, most recently tele/x/SENSOR (1)" in running.output.read_text()

    def test_what_is_killed_leaves_nothing_and_starts_again_with_its_data(self, folder: Path) -> None:
        with running_platform(folder / "data", "--no-simulator") as running:
            made = running.sens("tenants", "create", "survivor", "--if-missing")
            assert made.returncode == 0, made.stderr
            numbers = processes_below(running.data_dir)
            assert len(numbers) == 8
            running.process.kill()
            running.process.wait()
            wait_until(
                lambda: (
                    not any(accepts_connections(port) for port in running.ports)
                    and not any(process_identity(number) for number in numbers)
                ),
                "everything ends with sens up",
            )
            key = running.key
        with running_platform(folder / "data", "--no-simulator") as again:
            assert again.key == key
            assert "survivor" in again.sens("tenants", "list").stdout
            again.process.send_signal(signal.SIGINT)
            assert again.process.wait(STOP_SECONDS) == 0


class TestOtherBrokers:
    def test_mosquitto_can_be_the_broker(self, folder: Path) -> None:
        if shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            pytest.skip("mosquitto is not installed")
        options = ("--broker", "mosquitto", "--quiet-fleet", "--rate", "50", "--mqtt-host", "127.0.0.2")
        with running_platform(folder / "mosquitto", *options, "--api-host", "127.0.0.3") as running:
            assert running.sens("publish", "meter-1", "-m", "x=1").returncode == 0
            lost = running.sens("publish", "meter-1", "{}", "--topic", "tele/x/SENSOR")
            assert lost.returncode == 1
            assert "nobody reads the topic tele/x/SENSOR" in lost.stderr
            wait_until(lambda: running.sens("latest", "meter-1").returncode == 0, "the message is stored")
            wait_until(lambda: running.sens("latest", "sensor-0001").returncode == 0, "the fleet publishes to it too")
            assert status_of(f"http://127.0.0.3:{running.ports.api}/readyz") == 200
            assert status_of(f"http://{HOST}:{running.ports.api}/readyz") == 0
            stuck = psutil.Process(running.process_number("mosquitto"))
            stuck.suspend()
            wait_until(lambda: running.process_number("mosquitto") != stuck.pid, "it is started again", 90)
            wait_until(lambda: running.sens("publish", "meter-1", "-m", "x=2").returncode == 0, "it works again", 60)
            assert stop(running) < STOP_SECONDS
            assert processes_below(running.data_dir) == []


class TestRefusals:
    def test_a_data_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("not a folder")
        assert f"{tmp_path}/data can't be used: File exists" in refused(tmp_path / "data", free_port_offset())

    def test_a_path_that_is_too_long(self, tmp_path: Path) -> None:
        deep = tmp_path.joinpath(*["a" * 200] * 5)
        assert "longer than 900 bytes" in refused(deep, free_port_offset())

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        assert "File name too long" in refused(tmp_path / ("a" * 300), free_port_offset())

    def test_an_offset_out_of_range(self, tmp_path: Path) -> None:
        assert "it accepts -1882 to 57313" in refused(tmp_path / "data", 60_000)

    def test_an_offset_with_which_browsers_open_no_page(self, tmp_path: Path) -> None:
        assert "port 10080, which browsers refuse" in refused(tmp_path / "data", 2080)

    def test_an_address_that_is_none(self, tmp_path: Path) -> None:
        assert "not an IP address" in refused(tmp_path / "data", free_port_offset(), "--mqtt-host", "sensors.example")
