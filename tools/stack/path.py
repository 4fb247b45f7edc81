"""The platform's path as processes on this machine: broker, log, database and workers, with every write synced to disk.

Each process can be stopped, killed, paused and started again in its place.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

import asyncpg
from pydantic import SecretStr

from sens_cli.up import nats as embedded_nats
from sens_cli.up import postgres as embedded_postgres
from sens_common.database import connect
from sens_common.errors import SensError
from sens_common.migrations import migrate
from sens_common.names import NATIVE_TOPIC_FILTER
from sens_common.nats_permissions import ADMINISTRATOR, INGESTION_USER, PERMISSIONS, TELEMETRY_USER
from sens_common.settings import DatabaseSettings
from tools.ports import free_port
from tools.stack.disk import Disk
from tools.stack.proxy import Proxy
from tools.stack.tap import Tap
from tools.stack.usage import Usage, tree, usage

HOST: Final = "127.0.0.1"
BROKER: Final = "broker"
NATS: Final = "nats"
POSTGRES: Final = "postgres"
INGESTION: Final = "ingestion"
TELEMETRY: Final = "telemetry"
_MODULES: Final = {INGESTION: "sens_mqtt_ingestion_worker", TELEMETRY: "sens_telemetry_worker"}
_NATS_USERS: Final = {INGESTION: INGESTION_USER, TELEMETRY: TELEMETRY_USER}
_START_SECONDS: Final = 120
_STOP_SECONDS: Final = 30
_READY_SECONDS: Final = 10
_SHOWN_BYTES: Final = 3000
_SESSIONS: Final = "mosquitto.db"


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
        mqtt_port: Where the broker speaks MQTT 5.
        mqtt3_port: Where it speaks MQTT 3.1.1.
        database: How the database's owner connects, past every proxy.
        proxies: By edge: ``mqtt`` (ingestion to broker), ``ingestion-nats``, ``telemetry-nats`` and ``database``; where asked for.
        disks: By server, NATS and PostgreSQL; where asked for and allowed.
    """

    def __init__(self, folder: Path, *, broker: str, postgres_programs: Path | None) -> None:
        self._folder = folder
        self._broker = broker
        self._postgres_programs = postgres_programs
        self._servers: dict[str, Server] = {}
        self._operations: dict[str, int] = {}
        self._password = secrets.token_urlsafe(16)
        self._nats_port, self._monitoring_port = free_port(), free_port()
        self.proxies: dict[str, Proxy] = {}
        self.disks: dict[str, Disk] = {}
        self.mqtt_port = free_port()
        self.mqtt3_port = self.mqtt_port if broker == "mosquitto" else free_port()
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
        tap: Tap | None = None,
        own_disks: bool = False,
        topic_filters: Sequence[Sequence[str]] = ((NATIVE_TOPIC_FILTER,),),
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
            tap: Reads what passes the proxy between broker and ingestion workers.
            own_disks: Whether NATS and PostgreSQL have small disks of their own, where the system allows to mount them.
            topic_filters: What each of the ingestion workers subscribes to.
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
            contextlib.ExitStack() as resources,
        ):
            folder = Path(name)
            folder.chmod(0o755)
            stack = cls(folder, broker=broker, postgres_programs=postgres_programs)
            try:
                for server in (NATS, POSTGRES) if own_disks else ():
                    if (disk := Disk.mounted(folder / f"{server}-disk")) is not None:
                        resources.callback(disk.unmount)
                        stack.disks[server] = disk
                stack._add_nats()
                stack._add_postgres()
                stack._add_broker()
                for server in stack.names:
                    stack.start(server)
                for tenant in tenants:
                    stack.fetch(
                        # A load may tell of any time, so that a time can be a message's number.
                        "INSERT INTO sens.tenants (name, device_limit, metric_limit, new_devices_per_hour, new_metrics_per_hour, late_days,"
                        " dead_letter_count_limit, dead_letter_byte_limit)"
                        " VALUES ($1, 2000000000, 1000000, 2000000000, 1000000, 36500, 2000000000, 1000000000000)",
                        tenant,
                    )
                targets = {
                    "mqtt": stack.mqtt_port,
                    "ingestion-nats": stack._nats_port,
                    "telemetry-nats": stack._nats_port,
                    "database": stack.database.port,
                }
                if proxied:
                    stack.proxies = {
                        edge: resources.enter_context(Proxy(port, tap=tap if edge == "mqtt" else None))
                        for edge, port in targets.items()
                    }
                    targets = {edge: proxy.port for edge, proxy in stack.proxies.items()}
                settings = {"SENS_NATS__STREAM_MAX_BYTES": str(stream_max_bytes), **(worker_settings or {})}
                stack._add_workers(targets, topic_filters, telemetry_workers, settings)
                stack.start_together(stack.workers)
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

    def _store(self, server: str) -> Path:
        """Return where a server keeps its data."""
        return (self.disks[server].folder if server in self.disks else self._folder) / f"{server}-data"

    def _add_nats(self) -> None:
        configuration = self._folder / "nats.conf"
        embedded_nats.write_configuration(
            configuration,
            host=HOST,
            port=self._nats_port,
            monitoring_port=self._monitoring_port,
            store=self._store(NATS),
            passwords=dict.fromkeys((ADMINISTRATOR, *PERMISSIONS), self._password),
        )
        command = [str(embedded_nats.embedded_program()), "-c", str(configuration)]
        self._add(NATS, command, lambda: _answers(f"http://{HOST}:{self._monitoring_port}/healthz"))

    def _add_postgres(self) -> None:
        cluster = embedded_postgres.prepare(self._store(POSTGRES), self._password, programs=self._postgres_programs)
        settings = {"max_wal_size": "512MB" if POSTGRES in self.disks else "4GB", "shared_buffers": "256MB"}
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
            "SENS_BROKER__PORT": str(self.mqtt3_port),
            "SENS_BROKER__PORT_V5": str(self.mqtt_port),
            "SENS_OPERATIONS__PORT": str(free_port()),
            "SENS_FLEET__ENABLED": "false",
        }
        command = [sys.executable, "-m", "sens_mock_mqtt_broker"]
        self._add(BROKER, command, lambda: _listens(self.mqtt_port), env=os.environ | environment)

    def _add_workers(
        self,
        ports: Mapping[str, int],
        topic_filters: Sequence[Sequence[str]],
        telemetry_workers: int,
        settings: Mapping[str, str],
    ) -> None:
        common = {
            "SENS_NATS__PASSWORD": self._password,
            "SENS_MQTT__URL": f"mqtt://{HOST}:{ports['mqtt']}",
            "SENS_DATABASE__HOST": HOST,
            "SENS_DATABASE__PORT": str(ports["database"]),
            "SENS_DATABASE__NAME": self.database.name,
            "SENS_DATABASE__USER": self.database.user,
            "SENS_DATABASE__PASSWORD": self._password,
            "SENS_DATABASE__SSL": "disable",
        }
        own: dict[str, list[dict[str, str]]] = {
            INGESTION: [
                {
                    "SENS_MQTT__CLIENT_ID": f"sens-mqtt-ingestion-worker-{number}",
                    "SENS_MQTT__TOPIC_FILTERS": json.dumps(list(filters)),
                }
                for number, filters in enumerate(topic_filters)
            ],
            TELEMETRY: [{} for _ in range(telemetry_workers)],
        }
        for kind, workers in own.items():
            for number, its_own in enumerate(workers, 1):
                name = kind if number == 1 else f"{kind}-{number}"
                self._operations[name] = port = free_port()
                environment = {
                    **os.environ,
                    **common,
                    **its_own,
                    "SENS_NATS__URL": f"nats://{HOST}:{ports[f'{kind}-nats']}",
                    "SENS_NATS__USER": _NATS_USERS[kind],
                    "SENS_OPERATIONS__PORT": str(port),
                    **settings,
                }
                self._add(name, [sys.executable, "-m", _MODULES[kind]], partial(self._is_ready, name), env=environment)

    def _is_ready(self, worker: str) -> bool:
        return not self.not_ready(worker)

    def not_ready(self, worker: str) -> dict[str, str]:
        """Return what a worker's readiness checks complain of, by check; empty when it is ready."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._operations[worker]}/readyz", timeout=_READY_SECONDS):
                return {}
        except urllib.error.HTTPError as error:
            try:
                checks = json.loads(error.read())["checks"]
            except (OSError, ValueError, LookupError):
                return {"readyz": f"status {error.code}"}
            return {check: text for check, text in checks.items() if text != "ok"}
        except OSError as error:
            return {"readyz": f"no answer: {getattr(error, 'reason', error)}"}

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

    def start_together(self, names: Iterable[str]) -> None:
        """Start processes that do not wait for each other.

        Raises:
            StackError: One of them ends, or is not ready in time.
        """
        names = list(names)
        for name in names:
            self.start(name, wait=False)
        for name in names:
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
            time.sleep(0.1)

    def becomes_ready(self, name: str, seconds: float) -> bool:
        """Tell whether a process is ready within this time, and running."""
        deadline = time.monotonic() + seconds
        while not (ready := self._servers[name].ready()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return ready

    def output(self, name: str, *, since: int | None = None) -> str:
        """Return what a process has written: the end of it, or all since a place that `written` has told."""
        log = self._servers[name].log
        if not log.exists():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, self.written(name) - _SHOWN_BYTES) if since is None else since)
            return file.read().decode(errors="replace")

    def written(self, name: str) -> int:
        """Return how much a process has written, bytes."""
        log = self._servers[name].log
        return log.stat().st_size if log.exists() else 0

    def stop(self, name: str) -> None:
        """Stop a process as its operator does, and wait for its end."""
        self._end(name, signal.SIGINT if name == POSTGRES else signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End a process at once, with its children, as when its container or its machine dies."""
        processes = self.tree(name)
        # A process that is stopped makes no further children.
        self.pause(name)
        processes = [*dict.fromkeys(processes + self.tree(name))]
        _signal(processes, signal.SIGKILL)
        self._end(name, signal.SIGKILL)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(_runs(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(0.005)

    def save_sessions(self) -> None:
        """Let Mosquitto write its sessions to disk, as it does every half an hour (mosquitto(8), SIGUSR1).

        Raises:
            StackError: It does not.
        """
        file = self._folder / _SESSIONS
        before = file.stat().st_ino if file.exists() else 0
        _signal(self.tree(BROKER)[:1], signal.SIGUSR1)
        deadline = time.monotonic() + _STOP_SECONDS
        while not file.exists() or file.stat().st_ino == before:
            if time.monotonic() > deadline:
                raise StackError("the broker does not save its sessions")
            time.sleep(0.01)

    def forget_sessions(self) -> None:
        """Remove what Mosquitto has written, as if it never had."""
        (self._folder / _SESSIONS).unlink(missing_ok=True)

    def pause(self, name: str) -> None:
        """Let a process do nothing (SIGSTOP), with its children."""
        _signal(self.tree(name)[:1], signal.SIGSTOP)
        _signal(self.tree(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        _signal(self.tree(name), signal.SIGCONT)

    def signal(self, name: str, process: int, number: int) -> None:
        """Send a signal to one of a process' children, unless it has ended."""
        _signal([child for child in self.tree(name) if child == process], number)

    def tree(self, name: str) -> list[int]:
        """Return the identifiers of a process and its children; none when it does not run."""
        server = self._servers[name]
        return tree(server.process.pid) if server.process is not None and server.running else []

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

    def database_versions(self) -> dict[str, str]:
        """Return the versions of PostgreSQL and, where it is used, of TimescaleDB, by name."""
        rows = self.fetch(
            "SELECT 'PostgreSQL' AS name, split_part(current_setting('server_version'), ' ', 1) AS version"
            " UNION ALL SELECT 'TimescaleDB', extversion FROM pg_extension WHERE extname = 'timescaledb'"
        )
        return {row["name"]: row["version"] for row in rows}

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database."""

        async def ask() -> list[asyncpg.Record]:
            connection = await connect(self.database, "stack")
            try:
                return list(await connection.fetch(query, *arguments))
            finally:
                await connection.close()

        return asyncio.run(ask())


def _signal(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _runs(process: int) -> bool:
    """Tell whether there is a process that does anything yet: it is no zombie (Linux' proc(5), stat, field 3)."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


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
