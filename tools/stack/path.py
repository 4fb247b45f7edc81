"""The platform's path as processes on this machine: broker, stream, database and workers, with every write synced to disk.

Each process can be stopped, killed, paused and started again.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import asyncpg
from pydantic import SecretStr

from sens_cli.up.postgres import SUPERUSER
from sens_common.database import connect
from sens_common.nats_permissions import API_USER, HTTP_INGESTION_USER, INGESTION_USER, TELEMETRY_USER
from sens_common.settings import DatabaseSettings
from sens_common.topics import NATIVE_PATTERN
from tools.ports import free_port
from tools.program import STOP_SECONDS, ProgramError
from tools.stack import programs
from tools.stack.disk import Disk
from tools.stack.programs import BROKER, MOSQUITTO_SESSIONS, NATS, POSTGRES
from tools.stack.proxy import Proxy
from tools.stack.server import HOST, Server, Worker
from tools.stack.stored import VALUE_TABLES, with_stored_values
from tools.stack.tap import Tap
from tools.stack.usage import Usage

INGESTION: Final = "ingestion"
TELEMETRY: Final = "telemetry"
API: Final = "api"
HTTP: Final = "http"
_MODULES: Final = {INGESTION: "sens_mqtt_ingestion_worker", TELEMETRY: "sens_telemetry_worker"}
_NATS_USERS: Final = {INGESTION: INGESTION_USER, TELEMETRY: TELEMETRY_USER}
_START_SECONDS: Final = 120


class StackError(Exception):
    """Something did not start, or did not do what it should; the text says what."""


class Stack:
    """The running path. `stack[name]` is one of its servers.

    Attributes:
        mqtt_port: Where the broker speaks MQTT 5.
        mqtt3_port: Where it speaks MQTT 3.1.1.
        database: How the database's owner connects, past every proxy.
        proxies: By edge: ``mqtt`` (ingestion to broker), ``ingestion-nats``, ``telemetry-nats`` and ``database``; where asked for.
        disks: By server, NATS and PostgreSQL; where asked for and allowed.
    """

    def __init__(self, folder: Path, *, broker: str) -> None:
        self._folder = folder
        self._servers: dict[str, Server] = {}
        self._password = secrets.token_urlsafe(16)
        self._nats_port = free_port()
        self.proxies: dict[str, Proxy] = {}
        self.disks: dict[str, Disk] = {}
        self.mqtt_port = free_port()
        self.mqtt3_port = self.mqtt_port if broker == "mosquitto" else free_port()
        self.database = DatabaseSettings(
            host=HOST,
            port=free_port(),
            name="postgres",
            user=SUPERUSER,
            password=SecretStr(self._password),
            ssl="disable",
        )

    @classmethod
    @contextlib.contextmanager
    def running(
        cls,
        broker: str,
        *,
        postgres_programs: Path | None = None,
        proxied: bool = False,
        tap: Tap | None = None,
        own_disks: bool = False,
        topic_filters: Sequence[Sequence[str]] = ((NATIVE_PATTERN.filter,),),
        telemetry_workers: int = 1,
        tenants: tuple[str, ...] = ("demo",),
        stream_max_bytes: int = 4 << 30,
        worker_settings: Mapping[str, str] | None = None,
        python: Path = Path(sys.executable),
    ) -> Iterator[Self]:
        """Start everything in a folder of its own, and stop it at the end.

        Args:
            broker: ``mosquitto`` or ``mock-mqtt-broker``.
            postgres_programs: Folder with another PostgreSQL's programs, None for the embedded one.
            proxied: Whether there is a proxy between each pair of components.
            tap: Reads what passes the proxy between broker and ingestion workers.
            own_disks: Whether NATS and PostgreSQL have small disks of their own, where the system allows to mount them.
            topic_filters: What each of the ingestion workers subscribes to.
            telemetry_workers: How many share the stream.
            tenants: Those that exist.
            stream_max_bytes: Limit of the stream.
            worker_settings: Further variables of both workers.
            python: Whose packages run: another checkout's workers and migrations, if it is its environment's.

        Raises:
            StackError: Something did not start.
        """
        # A program that is told to end must not leave servers behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with (
            tempfile.TemporaryDirectory(prefix="sens-stack-", ignore_cleanup_errors=True) as name,
            contextlib.ExitStack() as resources,
        ):
            folder = Path(name)
            folder.chmod(0o755)
            stack = cls(folder, broker=broker)
            try:
                for server in (NATS, POSTGRES) if own_disks else ():
                    if (disk := Disk.mounted(folder / f"{server}-disk")) is not None:
                        resources.callback(disk.unmount)
                        stack.disks[server] = disk
                stack._add_servers(broker, postgres_programs)
                stack.start(*stack.names)
                stack.sens("migrate", python=python)
                stack._create_tenants(tenants)
                ports = stack._ports(resources, tap, proxied=proxied)
                settings = {"SENS_NATS__STREAM_MAX_BYTES": str(stream_max_bytes), **(worker_settings or {})}
                stack._add_workers(ports, topic_filters, telemetry_workers, settings, python)
                stack.start(*stack.workers)
                yield stack
            finally:
                for server in reversed(stack.names):
                    stack[server].resume()
                    stack[server].stop()

    def __getitem__(self, name: str) -> Server:
        """Return a server by its name."""
        return self._servers[name]

    @property
    def nats_login(self) -> dict[str, str]:
        """Return how to reach the stream, past every proxy: arguments of ``nats.connect``."""
        return {"servers": f"nats://{HOST}:{self._nats_port}", "user": "sens", "password": self._password}

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings with which the database's and the stream's administrator reach both, past every proxy."""
        login = self.nats_login
        return {
            "SENS_DATABASE__HOST": HOST,
            "SENS_DATABASE__PORT": str(self.database.port),
            "SENS_DATABASE__NAME": self.database.name,
            "SENS_DATABASE__USER": self.database.user,
            "SENS_DATABASE__PASSWORD": self._password,
            "SENS_DATABASE__SSL": "disable",
            "SENS_NATS__URL": login["servers"],
            "SENS_NATS__USER": login["user"],
            "SENS_NATS__PASSWORD": login["password"],
        }

    def sens(self, *arguments: str, python: Path = Path(sys.executable)) -> str:
        """Run a command of `sens` as the administrator; return what it prints.

        Raises:
            StackError: It fails.
        """
        result = subprocess.run(
            [str(python), "-m", "sens_cli", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise StackError(f"sens {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    @property
    def names(self) -> list[str]:
        """Return the servers' names, those first that others need."""
        return list(self._servers)

    @property
    def workers(self) -> dict[str, Worker]:
        """Return the workers among them, by name."""
        return {name: server for name, server in self._servers.items() if isinstance(server, Worker)}

    def _store(self, server: str) -> Path:
        """Return where a server keeps its data."""
        return (self.disks[server].folder if server in self.disks else self._folder) / f"{server}-data"

    def _add_servers(self, broker: str, postgres_programs: Path | None) -> None:
        self._servers[NATS] = programs.nats(
            self._folder, port=self._nats_port, password=self._password, store=self._store(NATS)
        )
        self._servers[POSTGRES] = programs.postgres(
            self._folder,
            self.database,
            settings={"max_wal_size": "512MB" if POSTGRES in self.disks else "4GB", "shared_buffers": "256MB"},
            data=self._store(POSTGRES),
            programs=postgres_programs,
        )
        if broker != "mosquitto":
            ports = (self.mqtt3_port, self.mqtt_port, free_port())
            self._servers[BROKER] = programs.mock_broker(self._folder, ports)
            return
        try:
            self._servers[BROKER] = programs.mosquitto(self._folder, port=self.mqtt_port, in_flight=0)
        except ProgramError as error:
            raise StackError(str(error)) from error

    def _create_tenants(self, tenants: Sequence[str]) -> None:
        for tenant in tenants:
            self.fetch(
                # A load may tell of any time, so that a time can be a message's number.
                "INSERT INTO sens.tenants (name, device_limit, metric_limit, new_devices_per_hour, new_metrics_per_hour, late_days,"
                " dead_letter_count_limit, dead_letter_byte_limit)"
                " VALUES ($1, 2000000000, 1000000, 2000000000, 1000000, 36500, 2000000000, 1000000000000)",
                tenant,
            )

    def _ports(self, resources: contextlib.ExitStack, tap: Tap | None, *, proxied: bool) -> dict[str, int]:
        """Return where the workers reach the servers, by edge."""
        ports = {
            "mqtt": self.mqtt_port,
            "ingestion-nats": self._nats_port,
            "telemetry-nats": self._nats_port,
            "database": self.database.port,
        }
        if not proxied:
            return ports
        for edge, port in ports.items():
            self.proxies[edge] = resources.enter_context(Proxy(port, tap=tap if edge == "mqtt" else None))
        return {edge: proxy.port for edge, proxy in self.proxies.items()}

    def _add_workers(
        self,
        ports: Mapping[str, int],
        topic_filters: Sequence[Sequence[str]],
        telemetry_workers: int,
        settings: Mapping[str, str],
        python: Path,
    ) -> None:
        common = {
            **self.environment,
            "SENS_MQTT__URL": f"mqtt://{HOST}:{ports['mqtt']}",
            "SENS_DATABASE__PORT": str(ports["database"]),
        }
        own: dict[str, list[dict[str, str]]] = {
            INGESTION: [
                {
                    "SENS_MQTT__CLIENT_ID": f"sens-mqtt-ingestion-worker-{index}",
                    "SENS_MQTT__TOPIC_FILTERS": json.dumps(list(filters)),
                }
                for index, filters in enumerate(topic_filters)
            ],
            TELEMETRY: [{}] * telemetry_workers,
        }
        for kind, workers in own.items():
            for count, its_own in enumerate(workers, 1):
                name = kind if count == 1 else f"{kind}-{count}"
                environment = {
                    **common,
                    **its_own,
                    "SENS_NATS__URL": f"nats://{HOST}:{ports[f'{kind}-nats']}",
                    "SENS_NATS__USER": _NATS_USERS[kind],
                    **settings,
                }
                log = self._folder / f"{name}.log"
                self._servers[name] = Worker(name, _MODULES[kind], environment, free_port(), log, python=python)

    def add_api(self, settings: Mapping[str, str]) -> None:
        """Start the API too, with further settings.

        Raises:
            StackError: It does not start.
        """
        port = free_port()
        environment = {**self.environment, "SENS_NATS__USER": API_USER, "SENS_HTTP__PORT": str(port), **settings}
        self._servers[API] = Worker(API, "sens_platform_api", environment, port, self._folder / "api.log")
        self.start(API)

    def add_http(self, settings: Mapping[str, str] = MappingProxyType({})) -> int:
        """Start the HTTP ingestion worker too, with further settings; return its port.

        Raises:
            StackError: It does not start.
        """
        port = free_port()
        environment = {
            **self.environment,
            "SENS_NATS__USER": HTTP_INGESTION_USER,
            "SENS_HTTP__PORT": str(port),
            **settings,
        }
        log = self._folder / "http.log"
        self._servers[HTTP] = Worker(HTTP, "sens_http_ingestion_worker", environment, free_port(), log)
        self.start(HTTP)
        return port

    def start(self, *names: str) -> None:
        """Start servers that do not run, and wait until all of these are ready; they do not wait for each other.

        Raises:
            StackError: One of them ends, or is not ready in time.
        """
        for name in names:
            self[name].start()
        for name in names:
            try:
                self[name].wait_until_ready(_START_SECONDS)
            except ProgramError as error:
                raise StackError(str(error)) from error

    def save_sessions(self) -> None:
        """Let Mosquitto write its sessions to disk, as it does every half an hour (mosquitto(8), SIGUSR1).

        Raises:
            StackError: It does not.
        """
        file = self._folder / MOSQUITTO_SESSIONS
        before = file.stat().st_ino if file.exists() else 0
        self[BROKER].send(signal.SIGUSR1)
        deadline = time.monotonic() + STOP_SECONDS
        while not file.exists() or file.stat().st_ino == before:
            if time.monotonic() > deadline:
                raise StackError("the broker does not save its sessions")
            time.sleep(0.01)

    def forget_sessions(self) -> None:
        """Remove what Mosquitto has written, as if it never had."""
        (self._folder / MOSQUITTO_SESSIONS).unlink(missing_ok=True)

    def usage(self) -> dict[str, Usage]:
        """Return what each running server uses."""
        return {name: used for name, server in self._servers.items() if (used := server.usage()) is not None}

    def database_versions(self) -> dict[str, str]:
        """Return the versions of PostgreSQL and, where it is used, of TimescaleDB, by name."""
        rows = self.fetch(
            "SELECT 'PostgreSQL' AS name, split_part(current_setting('server_version'), ' ', 1) AS version"
            " UNION ALL SELECT 'TimescaleDB', extversion FROM pg_extension WHERE extname = 'timescaledb'"
        )
        return {row["name"]: row["version"] for row in rows}

    def value_tables(self) -> list[str]:
        """Return the names of the tables that hold values."""
        return [row["name"] for row in self.fetch(VALUE_TABLES)]

    def fetch_stored(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database, with the table `stored_values` of `tools.stack.stored`."""
        return self.fetch(with_stored_values(self.value_tables(), query), *arguments)

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database."""

        async def ask() -> list[asyncpg.Record]:
            connection = await connect(self.database, "stack")
            try:
                return list(await connection.fetch(query, *arguments))
            finally:
                await connection.close()

        return asyncio.run(ask())
