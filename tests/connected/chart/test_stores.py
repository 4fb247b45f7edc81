"""The configuration that the chart gives its stores is one that real servers take and that holds what the services ask for."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from sens_cli.up import postgres as embedded_postgres
from sens_cli.up.nats import embedded_program
from sens_common.database import connect as connect_database
from sens_common.errors import UnavailableError
from sens_common.jetstream import connect, ensure_streams
from sens_common.logins import API_ROLE, Login
from sens_common.migrations import migrate
from sens_common.names import TELEMETRY_STREAM
from sens_common.nats_permissions import ADMINISTRATOR, API_USER, HTTP_INGESTION_USER, INGESTION_USER, TELEMETRY_USER
from sens_common.privileges import ADVISORY_LOCKS, TENANT_LOGINS, shortcomings
from sens_common.settings import DatabaseSettings, NatsSettings
from support.brokers import mock_broker
from support.chart import Render, matrix_render, needs_helm, render
from support.servers import HOST, accepts_connections, free_port, postgres_server, process, scratch_folder, wait_until
from tools import nats_users

pytestmark = needs_helm

TOKEN = "token-of-a-test"
PASSWORDS = {
    "administrator": "a",
    "api": "12345678901234",
    "ingestion": "6e10",
    "http-ingestion": "$NATS",
    "telemetry": "x} y: [z]",
}
"""What NATS would take for numbers or for its own syntax, if it were not quoted."""
USERS = {
    "administrator": ADMINISTRATOR,
    "api": API_USER,
    "ingestion": INGESTION_USER,
    "http-ingestion": HTTP_INGESTION_USER,
    "telemetry": TELEMETRY_USER,
}


@pytest.fixture(scope="module")
def rendered() -> Render:
    return render({"nats": {"requireToken": True}})


@pytest.fixture
def server(rendered: Render) -> Iterator[tuple[NatsSettings, int]]:
    """A server with the chart's configuration at free ports, and its monitoring port."""
    with scratch_folder("sens-chart-nats-") as folder:
        port, monitoring = free_port(), free_port()
        text: str = rendered.find("ConfigMap", "nats").document["data"]["nats.conf"]
        for before, after in (
            ("port: 4222", f"port: {port}\nhost: {HOST}"),
            ("http_port: 8222", f"http_port: {monitoring}"),
            ('"/data/', f'"{folder}/'),
            ('"/tmp/', f'"{folder}/'),
            ("$POD_NAME", "test"),
            ("$NATS_TOKEN", TOKEN),
        ):
            assert before in text
            text = text.replace(before, after)
        configuration = Path(folder) / "nats.conf"
        configuration.write_text(text, encoding="utf-8")
        with process([str(embedded_program()), "--config", str(configuration)], Path(folder) / "log"):
            wait_until(lambda: accepts_connections(port), "NATS starts")
            environment = rendered.container("telemetry-worker").environment
            largest = int(environment["SENS_NATS__STREAM_MAX_BYTES"].value or "")
            url = f"nats://{HOST}:{port}"
            yield NatsSettings(url=url, token=SecretStr(TOKEN), stream_max_bytes=largest), monitoring


@pytest.fixture
def server_with_users() -> Iterator[NatsSettings]:
    """A server as the chart starts it where each service has credentials of its own."""
    rendered = render({"perServiceCredentials": True})
    pod: dict[str, str] = {}
    for entry in rendered.container("nats").env:
        if entry.value_from is not None and entry.value_from.secret_key_ref is not None:
            pod[entry.name] = PASSWORDS[
                entry.value_from.secret_key_ref.key.removeprefix("nats-").removesuffix("-password")
            ]
        elif entry.value is not None:
            # As kubelet does it: earlier variables by $(NAME).
            pod[entry.name] = re.sub(r"\$\((\w+)\)", lambda match: pod[match[1]], entry.value)
    with scratch_folder("sens-chart-nats-") as folder:
        port = free_port()
        text: str = rendered.find("ConfigMap", "nats").document["data"]["nats.conf"]
        text = text.replace("port: 4222", f"port: {port}\nhost: {HOST}").replace("http_port: 8222", "")
        text = text.replace('"/data/', f'"{folder}/').replace('"/tmp/', f'"{folder}/')
        (folder / "nats.conf").write_text(text, encoding="utf-8")
        command = [str(embedded_program()), "--config", str(folder / "nats.conf")]
        with process(command, folder / "log", env=os.environ | pod | {"POD_NAME": "test"}) as child:
            wait_until(lambda: child.poll() is not None or accepts_connections(port), "NATS starts")
            assert child.poll() is None, (folder / "log").read_text()
            yield NatsSettings(url=f"nats://{HOST}:{port}")


class TestNatsWithAUserForEachService:
    async def test_takes_each_one_with_its_password_and_nobody_else(self, server_with_users: NatsSettings) -> None:
        async def log_in(user: str | None, password: str | None) -> str:
            secret = None if password is None else SecretStr(password)
            async with connect(server_with_users.model_copy(update={"user": user, "password": secret}), "test"):
                return "in"

        for who, user in USERS.items():
            assert await log_in(user, PASSWORDS[who]) == "in"
        for other, password in ((None, None), (API_USER, PASSWORDS["telemetry"]), (ADMINISTRATOR, "b")):
            with pytest.raises(UnavailableError):
                await log_in(other, password)

    async def test_lets_the_api_purge_nothing(self, server_with_users: NatsSettings) -> None:
        for who, client_name in (("telemetry", TELEMETRY_USER), ("api", API_USER)):
            settings = server_with_users.model_copy(update={"user": USERS[who], "password": SecretStr(PASSWORDS[who])})
            async with connect(settings, client_name) as client:
                jetstream = client.jetstream(timeout=0.5)
                if who == "telemetry":
                    await ensure_streams(jetstream, settings)
                    await jetstream.purge_stream(TELEMETRY_STREAM)
                else:
                    await jetstream.stream_info(TELEMETRY_STREAM)
                    with pytest.raises(TimeoutError):  # the server refuses the question, so that nobody answers
                        await jetstream.purge_stream(TELEMETRY_STREAM)

    def test_has_the_users_of_the_products_table(self) -> None:
        assert nats_users.FILE.read_text(encoding="utf-8") == nats_users.text()


class TestANewDatabase:
    @pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed: see scripts/install-test-programs")
    def test_has_an_owner_who_is_no_superuser_and_gets_its_logins_from_the_migrations(self, rendered: Render) -> None:
        script: str = rendered.find("ConfigMap", "timescaledb").document["data"]["sens-platform.sh"]
        assert ADVISORY_LOCKS.strip() in script
        assert TENANT_LOGINS.strip() in script
        with postgres_server() as superuser:
            assert superuser.password is not None
            environment = {
                **os.environ,
                "POSTGRES_USER": superuser.user,
                "POSTGRES_PASSWORD": "pass'word of the\\owner",
                "PGPASSWORD": superuser.password.get_secret_value(),
                "PGHOST": HOST,
                "PGPORT": str(superuser.port),
            }
            # As the image does it: sourced by a shell that ends at the first failure.
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            owner = superuser.model_copy(
                update={
                    "name": "sens_platform",
                    "user": "sens_platform",
                    "password": SecretStr(environment["POSTGRES_PASSWORD"]),
                }
            )
            login = Login("sens_platform_api", SecretStr("of the api"), API_ROLE)

            async def work() -> tuple[list[str], bool]:
                await migrate(owner, [login])
                api = owner.model_copy(update={"user": login.user, "password": login.password})
                connection = await connect_database(api, "test", role=API_ROLE)
                try:
                    found = await shortcomings(connection, "x", "y")
                    super_ = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'sens_platform'")
                finally:
                    await connection.close()
                with pytest.raises(UnavailableError, match="password authentication failed"):
                    await connect_database(superuser, "test")
                return found, bool(super_)

            assert asyncio.run(work()) == ([], False)


class TestNats:
    async def test_has_room_for_both_streams(self, server: tuple[NatsSettings, int]) -> None:
        async with connect(server[0], "test") as client:
            await ensure_streams(client.jetstream(), server[0])
            assert {info.config.name or "" for info in await client.jetstream().streams_info()} == {TELEMETRY_STREAM}

    def test_answers_its_probes(self, server: tuple[NatsSettings, int], rendered: Render) -> None:
        container = rendered.container("nats")
        for probe in (container.startup_probe, container.liveness_probe, container.readiness_probe):
            assert probe is not None
            path = probe["httpGet"]["path"]
            wait_until(lambda path=path: _ok(server[1], path), f"{path} answers")  # type: ignore[misc]  # of a lambda's default

    async def test_asks_for_the_token(self, server: tuple[NatsSettings, int]) -> None:
        with pytest.raises(UnavailableError):
            async with connect(server[0].model_copy(update={"token": SecretStr("wrong")}), "test"):
                pass


def _ok(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class TestDatabase:
    async def test_knows_its_parameters(self, postgres: DatabaseSettings, rendered: Render) -> None:
        arguments = rendered.container("timescaledb").args
        given = {match[1] for argument in arguments if (match := re.match(r"([a-z_.]+)=", argument))}

        # Those of TimescaleDB exist only where it is loaded.
        connection = await connect_database(postgres, "test")
        try:
            assert {name for name in given if not name.startswith("timescaledb.")} <= {
                row["name"] for row in await connection.fetch("SELECT name FROM pg_settings")
            }
        finally:
            await connection.close()
        assert "shared_preload_libraries" in given


@contextlib.contextmanager
def database_server(*, recovers: bool) -> Iterator[tuple[int, Path]]:
    """Run PostgreSQL, one that recovers for ever where it is asked for; give its port, and the folder of its programs."""
    with scratch_folder("sens-chart-postgres-") as folder:
        cluster = embedded_postgres.prepare(folder / "data", "only for this test")
        settings = {"fsync": "off"}
        if recovers:
            # It waits for the next piece of an archive that has none, and takes nobody meanwhile.
            signal_file = cluster.data / "standby.signal"
            signal_file.touch()
            if cluster.account is not None:
                os.chown(signal_file, cluster.account.uid, cluster.account.gid)
            settings |= {"hot_standby": "off", "restore_command": "false"}
        port = free_port()
        command = cluster.command(host=HOST, port=port, settings=settings)
        identity = embedded_postgres.identity(cluster.account)
        with process(command, folder / "log", stop_signal=signal.SIGINT, cwd="/", **identity):
            wait_until(lambda: accepts_connections(port), "PostgreSQL listens")
            yield port, cluster.programs


class TestTheDatabasesProbes:
    def passed(self, rendered: Render, port: int, programs: Path) -> dict[str, bool]:
        container = rendered.container("timescaledb")
        environment = os.environ | {"PGPORT": str(port), "PATH": f"{programs}:{os.environ['PATH']}"}
        found = {}
        for name in ("startup", "liveness", "readiness"):
            command = getattr(container, f"{name}_probe")["exec"]["command"]
            found[name] = subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
        return found

    def test_leave_a_server_alone_that_recovers(self, rendered: Render) -> None:
        with database_server(recovers=True) as (port, programs):
            assert self.passed(rendered, port, programs) == {"startup": True, "liveness": True, "readiness": False}

    def test_see_that_a_server_works(self, rendered: Render) -> None:
        with database_server(recovers=False) as (port, programs):
            wait_until(lambda: self.passed(rendered, port, programs)["readiness"], "PostgreSQL takes connections")
            assert set(self.passed(rendered, port, programs).values()) == {True}

    def test_see_that_there_is_none(self, rendered: Render) -> None:
        programs = embedded_postgres.embedded_programs()

        assert set(self.passed(rendered, free_port(), programs).values()) == {False}


class TestTheMockBrokersProbe:
    def alive(self, rendered: Render, port: int) -> bool:
        probe = rendered.container("mock-mqtt-broker").liveness_probe
        assert probe is not None
        [_python, *arguments] = probe["exec"]["command"]
        environment = os.environ | {"SENS_BROKER__PORT": "1", "SENS_BROKER__PORT_V5": str(port)}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == (done.stderr == "")
        return done.returncode == 0

    def test_sees_that_clients_are_greeted(self, rendered: Render) -> None:
        with mock_broker() as broker:
            assert self.alive(rendered, broker.port_v5)

    @pytest.mark.parametrize("said", [b"", b"\xd0\x00"], ids=["nothing", "something else"])
    def test_sees_a_broker_that_listens_and_greets_nobody(self, rendered: Render, said: bytes) -> None:
        with socket.create_server((HOST, 0)) as listener:

            def talk() -> None:
                connection, _address = listener.accept()
                # Whoever was told nonsense ends the connection as it likes.
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(said)
                    while connection.recv(100):
                        pass

            server = threading.Thread(target=talk)
            server.start()
            assert not self.alive(rendered, listener.getsockname()[1])
            server.join()

    def test_sees_that_there_is_none(self, rendered: Render) -> None:
        assert not self.alive(rendered, free_port())


class TestTheChecks:
    def look(self, **environment: str) -> tuple[int, list[str]]:
        script = render({"checks": {"enabled": True}}).find("CronJob", "checks").pod
        assert script is not None
        [_python, *arguments] = script.containers[0].command
        done = subprocess.run(
            [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    def test_look_at_everything_and_need_no_password(
        self, postgres: DatabaseSettings, server: tuple[NatsSettings, int]
    ) -> None:
        database, health = f"{HOST}:{postgres.port}", f"http://{HOST}:{server[1]}/healthz"
        wait_until(lambda: _ok(server[1], "/healthz"), "NATS is healthy")

        code, lines = self.look(NAMES="localhost", DATABASE=database, NATS_HEALTH=health)

        assert code == 0
        assert lines[0].startswith("ok name localhost: ")
        assert "127.0.0.1" in lines[0]
        assert lines[1:] == [f"ok database {database}: accepts connections", f"ok nats {health}: is healthy"]

    def test_tell_all_that_is_wrong(self) -> None:
        gone = free_port()

        code, lines = self.look(
            NAMES="no.such.name.invalid", DATABASE=f"{HOST}:{gone}", NATS_HEALTH=f"http://{HOST}:{gone}/"
        )

        assert code == 1
        assert [line.split()[:2] for line in lines] == [["failed", what] for what in ("name", "database", "nats")]

    def test_see_a_database_that_recovers(self) -> None:
        with database_server(recovers=True) as (port, _programs):
            code, lines = self.look(NAMES="", DATABASE=f"{HOST}:{port}")

        assert (code, lines) == (1, [f"failed database {HOST}:{port}: it does not accept connections (57P03)"])

    def test_look_up_what_the_platform_is_reached_by_and_reaches(self) -> None:
        def names(base: str) -> str | None:
            found = render({"checks": {"enabled": True}}, base=base).find("CronJob", "checks").pod
            assert found is not None
            return found.containers[0].environment["NAMES"].value

        release = "sens-platform-test"
        assert names("test") == f"{release}-timescaledb,{release}-nats"
        assert (
            names("production")
            == f"{release}-timescaledb,{release}-nats,broker.example.org,api.example.org,docs.example.org"
        )
        external = matrix_render("external everything").find("CronJob", "checks").pod
        assert external is not None
        assert external.containers[0].environment["NAMES"].value == (
            "db.example.org,nats-0.example.org,nats-1.example.org,broker.example.org"
        )
