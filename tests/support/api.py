"""What tests of the API and of the administration command have in common."""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import asyncpg
import httpx2
import pytest
from structlog.testing import capture_logs

from sens_common.database import connect
from sens_common.jetstream import connect as connect_nats
from sens_common.jetstream import ensure_streams
from sens_common.migrations import migrate
from sens_common.nats_permissions import API_USER
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.keys import administration as keys
from sens_platform_api.tenants import repository as tenants
from support.databases import Databases
from support.servers import HOST, free_port, nats_server, process, scratch_folder
from support.stored_rows import Form, Row, insert_measurements


def set_environment(
    patch: pytest.MonkeyPatch, *, database: DatabaseSettings | None = None, nats: NatsSettings | None = None
) -> None:
    """Set the variables by which a service finds the servers."""
    if database is not None:
        assert database.password is not None
        for name in ("host", "port", "name", "user", "ssl"):
            patch.setenv(f"SENS_DATABASE__{name.upper()}", str(getattr(database, name)))
        patch.setenv("SENS_DATABASE__PASSWORD", database.password.get_secret_value())
    if nats is not None:
        assert nats.password is not None
        patch.setenv("SENS_NATS__URL", nats.url)
        patch.setenv("SENS_NATS__USER", API_USER)
        patch.setenv("SENS_NATS__PASSWORD", nats.password.get_secret_value())


def as_owner[T](database: DatabaseSettings, work: Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[T]]) -> T:
    """Do something on a connection of the owning role."""

    async def run() -> T:
        connection = await connect(database, "test")
        try:
            return await work(connection)
        finally:
            await connection.close()

    with capture_logs():
        return asyncio.run(run())


def make_tenant(database: DatabaseSettings, name: str) -> str:
    """Make a tenant and return a key of it."""

    async def make(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
        await tenants.create(connection, name)
        _, key = await keys.create(connection, tenant=name, name="test")
        return key

    return as_owner(database, make)


def store(database: DatabaseSettings, tenant: str, rows: Sequence[Row], form: Form = Form.FORMER) -> None:
    """Store measurements as the owner of a database."""
    as_owner(database, lambda connection: insert_measurements(connection, tenant, rows, form))


async def make_stream(nats: NatsSettings) -> None:
    """Make the stream of envelopes, as the first worker does."""
    async with connect_nats(nats, "test") as client:
        await ensure_streams(client.jetstream(), nats)


@dataclasses.dataclass(frozen=True, slots=True)
class RunningApi:
    """An API process and the servers that it uses.

    Attributes:
        url: Its base.
        database: The owning role's settings.
        nats: Settings of NATS.
        log: File with what the process wrote.
        process: The process.
    """

    url: str
    database: DatabaseSettings
    nats: NatsSettings
    log: Path
    process: "subprocess.Popen[bytes]"

    def client(self, key: str | None = None) -> httpx2.Client:
        """Return a client that carries a key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def async_client(self, key: str | None = None) -> httpx2.AsyncClient:
        """Return a client that carries a key, for several requests at a time."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def new_tenant(self) -> tuple[str, str]:
        """Make a tenant; return its name and a key."""
        name = f"tenant-{secrets.token_hex(4)}"
        return name, make_tenant(self.database, name)


@contextmanager
def running_api(
    folder: Path,
    database: DatabaseSettings,
    nats: NatsSettings,
    settings: Mapping[str, str] | None = None,
    *,
    ready_path: str = "/readyz",
) -> Iterator[RunningApi]:
    """Run the API's process while the context is open."""
    port = free_port()
    log = folder / "api.log"
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, database=database, nats=nats)
        patch.setenv("SENS_HTTP__PORT", str(port))
        for name, value in (settings or {}).items():
            patch.setenv(name, value)
        environment = dict(os.environ)
    url = f"http://{HOST}:{port}"

    def ready() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{url}{ready_path}", trust_env=False).status_code == HTTPStatus.OK
        return False

    command = [sys.executable, "-m", "sens_platform_api"]
    with process(command, log, ready=ready, env=environment) as child:
        yield RunningApi(url, database, nats, log, child)


@contextmanager
def connection_to(api: RunningApi, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """Open a plain connection; with a small buffer, what its client does not read waits at the server."""
    url = httpx2.URL(api.url)
    with socket.socket() as plain:
        plain.settimeout(30)
        if receive_bytes is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.connect((url.host, url.port or 80))
        yield plain


@pytest.fixture(scope="session")
def api(databases: Databases) -> Iterator[RunningApi]:
    """An API that all tests share; each makes tenants of its own."""
    with (
        scratch_folder("sens-api-") as folder,
        databases.new(migrate) as database,
        nats_server(folder) as nats,
    ):
        asyncio.run(make_stream(nats))
        # All tests ask from one address, and some ask in a loop.
        rates = {"SENS_LIMITS__WRONG_KEYS_PER_MINUTE": "1000000", "SENS_LIMITS__REQUESTS_PER_MINUTE": "1000000"}
        with running_api(folder, database, nats, rates) as running:
            yield running
