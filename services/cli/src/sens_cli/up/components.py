"""What ``sens up`` runs: every process with its settings, what it waits for, how it is asked whether it is ready."""

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.up import nats, postgres, postgres_programs
from sens_cli.up.data import DataFolder
from sens_cli.up.database import SUPERUSER_SECRET, ensure_database, server_answers
from sens_cli.up.house_broker import HouseBroker
from sens_cli.up.ports import Ports
from sens_cli.up.postgres import Identity
from sens_cli.up.process import end_with_parent
from sens_cli.up.web import get
from sens_common.command_line.local_settings import (
    HOST,
    NATS_SECRETS,
    OWNER_SECRET,
    api_login,
    database_address,
    nats_environment,
    without_settings_of_instances,
    worker_login,
)
from sens_common.nats_permissions import API_USER, HTTP_INGESTION_USER, INGESTION_USER, TELEMETRY_USER

TENANT: Final = "demo"
EMBEDDED: Final = "mock-mqtt-broker"
"""The broker that comes along; the other one that `Options` may name is ``mosquitto``."""

KEY_SECRET: Final = "demo-api-key"  # noqa: S105 - a file's name
CLIENT_ID_SECRET: Final = "mqtt-client"  # noqa: S105 - a file's name
NATS_CONFIGURATION: Final = "nats.conf"
BROKER_CREDENTIALS: Final = "brokers"
"""Folder in the data folder with the credentials of tenants' own brokers."""

CREDENTIALS_FOLDER: Final = "SENS_BROKERS__CREDENTIALS_FOLDER"
SOURCE_SECRETS: Final = "source-secrets"
"""Folder in the data folder with the AS keys of sources that take messages by HTTP."""
SOURCE_CREDENTIALS_FOLDER: Final = "SENS_SOURCES__CREDENTIALS_FOLDER"

type Probe = Callable[[], Awaitable[str | None]]
"""Returns None when the component is ready, else what is missing."""

STAGE_STOP_SECONDS: Final = 3.0
"""What the components of one stage get to stop by themselves."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line of ``sens up`` says.

    Attributes:
        simulator: Whether the simulated fleet publishes.
        devices: Sensors of the fleet, None for its own default.
        rate: Messages per second of the whole fleet, None for its own default.
        quiet_fleet: Whether the fleet leaves out the messages that it makes malformed on purpose.
        broker: Component that is the broker, where one is run.
        house_broker: A broker that runs already, None for one that is run.
        mqtt_host: Address the broker listens on.
        api_host: Address the API listens on.
        docs_host: Address the documentation listens on.
        postgres_programs: Folder of another PostgreSQL's programs, None for the embedded one's.
    """

    simulator: bool = True
    devices: int | None = None
    rate: float | None = None
    quiet_fleet: bool = False
    broker: str = EMBEDDED
    house_broker: HouseBroker | None = None
    mqtt_host: str = HOST
    api_host: str = HOST
    docs_host: str = HOST
    postgres_programs: Path | None = None


class Launch(NamedTuple):
    """What is executed.

    Attributes:
        command: Program and arguments.
        identity: Whom to run as.
    """

    command: list[str]
    identity: Identity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Component:
    """A process that runs for as long as the platform does.

    Attributes:
        name: As everywhere: images, logs, metrics.
        launch: Returns what is executed, when the time has come.
        environment: Its settings, added to what it inherits.
        after: Names of the components and steps that it waits for at the start.
        ready: How to ask whether it is ready.
        address: What people see.
        stop_stage: Components of a lower stage stop first: sources, then workers, then what serves, then stores.
        stop_signal: Asks it to stop.
        operations: Base URL of its ``/readyz``; None for what is not ours.
        orphan_signal: What it gets when ``sens up`` dies.
        restart_when_stuck: Whether it is ended, and so started again, when it is not ready for long. Our services say by themselves
            when only a new start helps.
    """

    name: str
    launch: Callable[[], Launch]
    environment: dict[str, str]
    after: tuple[str, ...]
    ready: Probe
    address: str
    stop_stage: int
    stop_signal: int = signal.SIGTERM
    operations: str | None = None
    orphan_signal: int = signal.SIGKILL
    restart_when_stuck: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Work that is done once at the start.

    Attributes:
        name: What people see while it runs.
        after: Names of the components and steps that it waits for.
        work: Does it and returns what people are told, empty for nothing; raises `SensError`.
    """

    name: str
    after: tuple[str, ...]
    work: Callable[[], Awaitable[str]]


def inherited(commit: str) -> dict[str, str]:
    """Return the environment that every component gets: ours without what is set for other instances."""
    return without_settings_of_instances() | {
        "SENS_PRODUCT_COMMIT": commit,
        "SENS_SHUTDOWN_SECONDS": str(STAGE_STOP_SECONDS - 1),
    }


def module(name: str) -> list[str]:
    """Return the command line that runs a Python module, without the working directory on its path."""
    return [sys.executable, "-P", "-m", name]


def service(name: str) -> Callable[[], Launch]:
    """Return how to launch one of our services, by its module."""
    return lambda: Launch(module(name), {})


def http_ready(port: int, path: str = "/readyz", *, host: str = HOST) -> Probe:
    """Return a probe that asks an HTTP endpoint: ready is 200, anything else says why in its checks."""

    async def ask() -> str | None:
        try:
            status, body = await get(port, path, host=host)
        except OSError:
            return f"no answer on port {port}"
        return None if status == 200 else _reasons(body) or f"{path} answers {status}"  # noqa: PLR2004 - OK

    return ask


def _reasons(body: bytes) -> str:
    """Return the failed checks of a ``/readyz`` answer."""
    try:
        answer = json.loads(body)
        return "; ".join(f"{name}: {text}" for name, text in answer["checks"].items() if text != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def stores(data: DataFolder, table: Ports, programs: Path | None = None) -> tuple[list[Component], list[Step]]:
    """Return PostgreSQL and NATS, and the steps that make the data folder, role and database.

    Raises:
        SensError: The data folder needs other programs of PostgreSQL.
    """
    postgres_programs.check(data, programs)
    configuration = data.run / NATS_CONFIGURATION
    nats.write_configuration(
        configuration,
        host=HOST,
        port=table.nats,
        monitoring_port=table.nats_monitoring,
        store=data.nats,
        passwords={user: data.secret(name) for user, name in NATS_SECRETS.items()},
    )
    superuser = data.secret(SUPERUSER_SECRET)
    owner = data.secret(OWNER_SECRET)

    async def database_ready() -> str | None:
        return await server_answers(HOST, table.postgres, superuser)

    async def make_data_folder() -> str:
        if (data.postgres / "PG_VERSION").exists():
            return ""
        postgres_programs.note(data, programs)
        await asyncio.to_thread(
            postgres.prepare, data.postgres, superuser, programs=programs, before_exec=end_with_parent()
        )
        return "made"

    def launch_postgres() -> Launch:
        cluster = postgres.prepare(data.postgres, superuser, programs=programs)
        return Launch(cluster.command(host=HOST, port=table.postgres), postgres.identity(cluster.account))

    async def make_database() -> str:
        return await ensure_database(HOST, table.postgres, superuser, owner)

    return [
        Component(
            name="postgresql",
            launch=launch_postgres,
            environment={},
            after=("data folder",),
            ready=database_ready,
            address=f"{HOST}:{table.postgres}",
            stop_stage=4,
            stop_signal=signal.SIGINT,  # "fast": ends the connections and writes a checkpoint
            orphan_signal=signal.SIGQUIT,  # "immediate": the server takes its own children along
        ),
        Component(
            name="nats",
            launch=lambda: Launch([str(nats.embedded_program()), "-c", str(configuration)], {}),
            environment={},
            after=(),
            ready=http_ready(table.nats_monitoring, "/healthz"),
            address=f"{HOST}:{table.nats}",
            stop_stage=4,
        ),
    ], [
        Step(name="data folder", after=(), work=make_data_folder),
        Step(name="database", after=("postgresql",), work=make_database),
    ]


def services(data: DataFolder, table: Ports, options: Options, site: Path) -> list[Component]:
    """Return the platform's own processes but the broker."""
    database = database_address(table.postgres)
    return [
        Component(
            name="mqtt-ingestion-worker",
            launch=service("sens_mqtt_ingestion_worker"),
            environment=nats_environment(data.secret, table.nats, INGESTION_USER)
            | operations(table.ingestion_operations)
            | _broker_settings(data, table, options)
            | {CREDENTIALS_FOLDER: os.environ.get(CREDENTIALS_FOLDER, str(data.path / BROKER_CREDENTIALS))},
            after=("nats", *([] if options.house_broker else [options.broker])),
            ready=http_ready(table.ingestion_operations),
            address=f"operations {HOST}:{table.ingestion_operations}",
            stop_stage=1,
            operations=f"http://{HOST}:{table.ingestion_operations}",
        ),
        Component(
            name="http-ingestion-worker",
            launch=service("sens_http_ingestion_worker"),
            environment=nats_environment(data.secret, table.nats, HTTP_INGESTION_USER)
            | operations(table.http_ingestion_operations)
            | {"SENS_HTTP__HOST": HOST, "SENS_HTTP__PORT": str(table.http_ingestion)}
            | {SOURCE_CREDENTIALS_FOLDER: os.environ.get(SOURCE_CREDENTIALS_FOLDER, str(data.path / SOURCE_SECRETS))},
            after=("nats",),
            ready=http_ready(table.http_ingestion_operations),
            address=f"http://{HOST}:{table.http_ingestion}",
            stop_stage=1,
            operations=f"http://{HOST}:{table.http_ingestion_operations}",
        ),
        Component(
            name="telemetry-worker",
            launch=service("sens_telemetry_worker"),
            environment=nats_environment(data.secret, table.nats, TELEMETRY_USER)
            | database
            | worker_login(data.secret)
            | operations(table.telemetry_operations),
            # Messages of a tenant that does not exist would go to the dead letters.
            after=("nats", "first tenant", "earlier measurements"),
            ready=http_ready(table.telemetry_operations),
            address=f"operations {HOST}:{table.telemetry_operations}",
            stop_stage=2,
            operations=f"http://{HOST}:{table.telemetry_operations}",
        ),
        Component(
            name="platform-api",
            launch=service("sens_platform_api"),
            environment=nats_environment(data.secret, table.nats, API_USER)
            | database
            | api_login(data.secret)
            | {"SENS_HTTP__HOST": options.api_host, "SENS_HTTP__PORT": str(table.api)},
            after=("nats", "migrations"),
            ready=http_ready(table.api, host=reachable(options.api_host)),
            address=f"http://{options.api_host}:{table.api}",
            stop_stage=3,
            operations=f"http://{reachable(options.api_host)}:{table.api}",
        ),
        Component(
            name="docs",
            launch=service("sens_docs_site"),
            environment={
                "SENS_HTTP__HOST": options.docs_host,
                "SENS_HTTP__PORT": str(table.docs),
                "SENS_SITE__FOLDER": str(site),
            },
            after=("documentation",),
            # Without documentation the platform still starts.
            ready=http_ready(table.docs, "/healthz", host=reachable(options.docs_host)),
            address=f"http://{options.docs_host}:{table.docs}",
            stop_stage=3,
            operations=f"http://{reachable(options.docs_host)}:{table.docs}",
        ),
    ]


def _broker_settings(data: DataFolder, table: Ports, options: Options) -> dict[str, str]:
    if options.house_broker is not None:
        # Other instances may use the same broker: each has a name of its own there, and keeps it.
        return options.house_broker.settings(f"sens-up-{data.secret(CLIENT_ID_SECRET)[:12]}")
    return {
        "SENS_MQTT__URL": f"mqtt://{reachable(options.mqtt_host)}:{table.mqtt}",
        "SENS_MQTT__CLIENT_ID": "sens-mqtt-ingestion-worker-0",
    }


def operations(port: int) -> dict[str, str]:
    """Return the settings of a service's operations port."""
    return {"SENS_OPERATIONS__HOST": HOST, "SENS_OPERATIONS__PORT": str(port)}


def reachable(host: str) -> str:
    """Return the address at which this machine reaches what listens on the host."""
    return HOST if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 - compared, not listened on
