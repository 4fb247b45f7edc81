"""The platform's path as processes on this machine: broker, log, database and workers, with every write synced to disk.

Each process can be stopped, killed, paused and started again in its place.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import asyncpg
from pydantic import SecretStr
from scripts.lib.stack.proxy import Proxy
from scripts.lib.stack.usage import Usage, usage

from sens_cli.up import nats as embedded_nats
from sens_cli.up import postgres as embedded_postgres
from sens_common.database import connect
from sens_common.errors import SensError
from sens_common.migrations import migrate
from sens_common.settings import DatabaseSettings

HOST: Final = "127.0.0.1"
BROKER: Final = "broker"
NATS: Final = "nats"
POSTGRES: Final = "postgres"
INGESTION: Final = "ingestion"
TELEMETRY: Final = "telemetry"
_MODULES: Final = {INGESTION: "sens_mqtt_ingestion_worker", TELEMETRY: "sens_telemetry_worker"}
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 30


class StackError(Exception):
    """Something did not start or did not come to rest; the text says what."""


@dataclass
class Server:
    """A process of the path, running or not.

    Attributes:
        command: How it is started.
        log: File with its output.
        ready: Whether it can do its work.
        options: How it is started: environment, account, folder.
    """

    command: list[str]
    log: Path
    ready: Callable[[], bool]
    options: Mapping[str, object] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def running(self) -> bool:
        """Tell whether there is a process."""
        return self.process is not None and self.process.poll() is None


class Stack:
    """The running path.

    Attributes:
        mqtt_port: Where publishers reach the broker.
        database: How the database's owner connects, past every proxy.
        proxies: By edge: ``mqtt`` (ingestion to broker), ``ingestion-nats``, ``telemetry-nats`` and ``database``; where asked for.
    """

    def __init__(self, folder: Path, *, broker: str, postgres_programs: Path | None, telemetry_workers: int) -> None:
        self._folder = folder
        self._broker = broker
        self._postgres_programs = postgres_programs
        self._telemetry_workers = telemetry_workers
        self._servers: dict[str, Server] = {}
        self._operations: dict[str, int] = {}
        self._password = secrets.token_urlsafe(16)
        self._nats_port, self._monitoring_port = free_port(), free_port()
        self.proxies: dict[str, Proxy] = {}
        self.mqtt_port = free_port()
        self.database = DatabaseSettings(
            host=HOST,
            port=free_port(),
            name="postgres",
            user=embedded_postgres.SUPERUSER,
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
        telemetry_workers: int = 1,
        tenants: tuple[str, ...] = ("demo",),
        stream_max_bytes: int = 4 << 30,
        worker_settings: Mapping[str, str] | None = None,
    ) -> Iterator[Self]:
        """Start everything in a folder of its own, and stop it at the end.

        Args:
            broker: ``mosquitto`` or ``mock-mqtt-broker``.
            postgres_programs: Folder with another PostgreSQL's programs, None for the embedded one.
            proxied: Whether there is a proxy between each pair of components.
            telemetry_workers: How many share the log.
            tenants: Those that exist.
            stream_max_bytes: Limit of the log.
            worker_settings: Further variables of both workers.

        Raises:
            StackError: Something did not start.
        """
        # A program that is told to end must not leave servers behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with (
            tempfile.TemporaryDirectory(prefix="sens-stack-", ignore_cleanup_errors=True) as name,
            contextlib.ExitStack() as proxies,
        ):
            folder = Path(name)
            folder.chmod(0o755)
            stack = cls(folder, broker=broker, postgres_programs=postgres_programs, telemetry_workers=telemetry_workers)
            try:
                stack._add_nats()
                stack._add_postgres()
                stack._add_broker()
                for server in stack.names:
                    stack.start(server)
                for tenant in tenants:
                    stack.fetch(
                        "INSERT INTO sens.tenants (name, device_limit, metric_limit) VALUES ($1, 2000000000, 1000000)",
                        tenant,
                    )
                targets = {
                    "mqtt": stack.mqtt_port,
                    "ingestion-nats": stack._nats_port,
                    "telemetry-nats": stack._nats_port,
                    "database": stack.database.port,
                }
                if proxied:
                    stack.proxies = {edge: proxies.enter_context(Proxy(port)) for edge, port in targets.items()}
                    targets = {edge: proxy.port for edge, proxy in stack.proxies.items()}
                stack._add_workers(targets, stream_max_bytes, worker_settings or {})
                for worker in stack.workers:
                    stack.start(worker)
                yield stack
            finally:
                for server in reversed(stack.names):
                    stack.resume(server)
                    stack.stop(server)

    @property
    def nats_login(self) -> dict[str, str]:
        """Return how to reach the log, past every proxy: arguments of ``nats.connect``."""
        return {"servers": f"nats://{HOST}:{self._nats_port}", "user": "sens", "password": self._password}

    @property
    def names(self) -> list[str]:
        """Return the processes, those that others need first."""
        return list(self._servers)

    @property
    def workers(self) -> list[str]:
        """Return the workers among them."""
        return [name for name in self._servers if name.startswith((INGESTION, TELEMETRY))]

    def _add(self, name: str, command: list[str], ready: Callable[[], bool], **options: object) -> None:
        self._servers[name] = Server(command, self._folder / f"{name}.log", ready, options)

    def _add_nats(self) -> None:
        configuration = self._folder / "nats.conf"
        embedded_nats.write_configuration(
            configuration,
            host=HOST,
            port=self._nats_port,
            monitoring_port=self._monitoring_port,
            store=self._folder / "nats",
            user="sens",
            password=self._password,
        )
        command = [str(embedded_nats.embedded_program()), "-c", str(configuration)]
        self._add(NATS, command, lambda: _answers(f"http://{HOST}:{self._monitoring_port}/healthz"))

    def _add_postgres(self) -> None:
        cluster = embedded_postgres.prepare(self._folder / POSTGRES, self._password, programs=self._postgres_programs)
        settings = {"max_wal_size": "4GB", "shared_buffers": "256MB"}
        if list(cluster.programs.parent.glob("**/timescaledb.so")):
            settings |= {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
        command = cluster.command(host=HOST, port=self.database.port, settings=settings)
        self._add(POSTGRES, command, self._migrated, cwd="/", **embedded_postgres.identity(cluster.account))

    def _migrated(self) -> bool:
        try:
            asyncio.run(migrate(self.database))
        except SensError:
            return False
        return True

    def _add_broker(self) -> None:
        if self._broker == "mosquitto":
            program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
            if program is None:
                raise StackError("mosquitto is not installed: install it, or choose the mock MQTT broker")
            configuration = self._folder / "mosquitto.conf"
            lines = [
                f"listener {self.mqtt_port} {HOST}",
                "allow_anonymous true",
                "persistence true",
                f"persistence_location {self._folder}/",
                "max_queued_messages 0",
                "max_inflight_messages 0",
                *(["user root"] if os.geteuid() == 0 else []),
            ]
            configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
            self._add(BROKER, [program, "-c", str(configuration)], lambda: _listens(self.mqtt_port))
            return
        environment = {
            "SENS_BROKER__PORT": str(free_port()),
            "SENS_BROKER__PORT_V5": str(self.mqtt_port),
            "SENS_OPERATIONS__PORT": str(free_port()),
            "SENS_FLEET__ENABLED": "false",
        }
        command = [sys.executable, "-m", "sens_mock_mqtt_broker"]
        self._add(BROKER, command, lambda: _listens(self.mqtt_port), env=os.environ | environment)

    def _add_workers(self, ports: Mapping[str, int], stream_max_bytes: int, settings: Mapping[str, str]) -> None:
        common = {
            "SENS_NATS__USER": "sens",
            "SENS_NATS__PASSWORD": self._password,
            "SENS_NATS__STREAM_MAX_BYTES": str(stream_max_bytes),
            "SENS_MQTT__URL": f"mqtt://{HOST}:{ports['mqtt']}",
            "SENS_DATABASE__HOST": HOST,
            "SENS_DATABASE__PORT": str(ports["database"]),
            "SENS_DATABASE__NAME": self.database.name,
            "SENS_DATABASE__USER": self.database.user,
            "SENS_DATABASE__PASSWORD": self._password,
            "SENS_DATABASE__SSL": "disable",
        }
        names = [INGESTION, TELEMETRY, *(f"{TELEMETRY}-{number}" for number in range(2, self._telemetry_workers + 1))]
        for name in names:
            kind = name.partition("-")[0]
            self._operations[name] = port = free_port()
            environment = common | {
                "SENS_NATS__URL": f"nats://{HOST}:{ports[f'{kind}-nats']}",
                "SENS_OPERATIONS__PORT": str(port),
                **settings,
            }
            command = [sys.executable, "-m", _MODULES[kind]]
            url = f"http://{HOST}:{port}/readyz"
            self._add(name, command, lambda url=url: _answers(url), env=os.environ | environment)  # type: ignore[misc]

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start a process that is not running.

        Raises:
            StackError: It ends, or is not ready in time.
        """
        server = self._servers[name]
        if not server.running:
            with server.log.open("ab") as output:
                server.process = subprocess.Popen(
                    server.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **server.options
                )  # type: ignore[call-overload]
        if wait:
            self.wait(name)

    def wait(self, name: str) -> None:
        """Wait until a process that was started is ready.

        Raises:
            StackError: It ends, or is not ready in time.
        """
        server = self._servers[name]
        deadline = time.monotonic() + _START_SECONDS
        while not server.ready():
            if not server.running or time.monotonic() > deadline:
                what = f"is not ready after {_START_SECONDS} s" if server.running else "has ended"
                raise StackError(f"{name} {what}:\n{self.output(name)}")
            time.sleep(0.02)

    def output(self, name: str) -> str:
        """Return the end of what a process has written."""
        log = self._servers[name].log
        return log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""

    def stop(self, name: str) -> None:
        """Stop a process as its operator does, and wait for its end."""
        self._end(name, signal.SIGINT if name == POSTGRES else signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End a process at once."""
        self._end(name, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """Let a process do nothing (SIGSTOP), with its children."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: int) -> None:
        process = self._servers[name].process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _end(self, name: str, number: int) -> None:
        process = self._servers[name].process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()

    def pid(self, name: str) -> int:
        """Return the identifier of a process that was started."""
        process = self._servers[name].process
        return process.pid if process is not None else 0

    def usage(self) -> dict[str, Usage]:
        """Return what each running process uses."""
        return {
            name: usage(server.process.pid)
            for name, server in self._servers.items()
            if server.process is not None and server.running
        }

    def metric(self, name: str, metric: str) -> float:
        """Return a metric of a worker, summed over its labels.

        Raises:
            OSError: It does not answer.
        """
        with urllib.request.urlopen(f"http://{HOST}:{self._operations[name]}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric}{{", f"{metric} ")))

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database."""

        async def ask() -> list[asyncpg.Record]:
            connection = await connect(self.database, "stack")
            try:
                return list(await connection.fetch(query, *arguments))
            finally:
                await connection.close()

        return asyncio.run(ask())


def free_port() -> int:
    """Return a TCP port that is free just now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((HOST, port)) == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - an address of this module
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's "OK"
    except OSError:
        return False
