"""Real servers for tests: PostgreSQL, NATS; started once a session on free ports, stopped at its end.

``SENS_TEST_POSTGRES_BIN`` names another PostgreSQL installation's folder of programs (``…/bin``), ``SENS_TEST_DATABASE_URL`` a server
that is already running (``postgresql://user:password@host:port/database``, a role that may create databases and roles).
"""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Unpack

import asyncpg
import psutil
import pytest
from pydantic import SecretStr

from sens_cli.up.postgres import SUPERUSER
from sens_common.database import connect
from sens_common.nats_permissions import ADMINISTRATOR
from sens_common.settings import DatabaseSettings, NatsSettings
from tools import ports
from tools.program import ProcessOptions, Program
from tools.stack import programs, server

HOST = server.HOST
START_SECONDS = 30.0
_ROOM_BYTES: Final = 6 << 30
free_port = ports.free_port
accepts_connections = programs.listens


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait for a condition of another process, which gives no event to wait for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


async def eventually[T](check: Callable[[], Awaitable[T]], what: str, seconds: float = START_SECONDS) -> T:
    """Call the check until its answer is true; return the answer."""
    deadline = time.monotonic() + seconds
    while not (answer := await check()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s; last answer: {answer!r}")
        await asyncio.sleep(0.02)
    return answer


@cache
def _memory() -> Path | None:
    """Return a file system in memory where there is one with room, and None where there is none.

    Servers that live as long as a test write much that nobody reads: there, none waits for a disk.
    """
    folder = Path("/dev/shm")  # noqa: S108 - where Linux has it; what is made there has a name of its own
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    room = min(status.f_bavail * status.f_frsize, psutil.virtual_memory().available)
    return folder if room >= _ROOM_BYTES and not status.f_flag & os.ST_NOEXEC else None


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Give a folder that the account of the PostgreSQL server can reach too."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_memory()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    *,
    ready: Callable[[], bool] = lambda: True,
    stop_signal: int = signal.SIGTERM,
    **options: Unpack[ProcessOptions],
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server while the context is open, once it is ready."""
    program = Program(" ".join(command[:3]), command, log, ready=ready, stop_signal=stop_signal, **options)
    with program.running_until_left():
        assert program.process is not None
        yield program.process


@contextmanager
def postgres_server() -> Iterator[DatabaseSettings]:
    """Run a PostgreSQL server; the settings are those of its superuser."""
    installation = os.environ.get("SENS_TEST_POSTGRES_BIN")
    superuser = DatabaseSettings(
        host=HOST,
        port=free_port(),
        name="postgres",
        user=SUPERUSER,
        password=SecretStr(secrets.token_urlsafe(16)),
        ssl="disable",
    )
    settings = {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        "timescaledb.max_background_workers": "0",  # a policy runs when a test calls it, not in the middle of another
    }
    with scratch_folder("sens-postgres-") as folder:
        server = programs.postgres(
            folder, superuser, settings=settings, programs=Path(installation) if installation else None
        )
        with server.running_until_left():
            yield superuser


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseSettings]:
    """A PostgreSQL server's superuser."""
    url = os.environ.get("SENS_TEST_DATABASE_URL")
    if url is None:
        with postgres_server() as settings:
            yield settings
        return
    parts = urllib.parse.urlsplit(url)
    yield DatabaseSettings(
        host=parts.hostname or HOST,
        port=parts.port or 5432,
        name=parts.path.lstrip("/") or "postgres",
        user=urllib.parse.unquote(parts.username or SUPERUSER),
        password=SecretStr(urllib.parse.unquote(parts.password or "")),
        ssl="prefer",
    )


@asynccontextmanager
async def owner(database: DatabaseSettings) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Connect as the database's owner."""
    connection = await connect(database, "test")
    try:
        yield connection
    finally:
        await connection.close()


async def connect_as(settings: DatabaseSettings) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect as the role of the settings, which may be a database's owner, or a server's superuser."""
    assert settings.password is not None
    return await asyncpg.connect(
        host=settings.host,
        port=settings.port,
        database=settings.name,
        user=settings.user,
        password=settings.password.get_secret_value(),
    )


async def execute_as(settings: DatabaseSettings, *statements: str) -> None:
    """Run statements as the role of the settings."""
    connection = await connect_as(settings)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def owner_pool(settings: DatabaseSettings) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    """Keep connections as the role of the settings; a service's own work as a role with fewer rights."""
    assert settings.password is not None
    async with asyncpg.create_pool(
        host=settings.host,
        port=settings.port,
        database=settings.name,
        user=settings.user,
        password=settings.password.get_secret_value(),
        min_size=0,
    ) as pool:
        yield pool


@contextmanager
def refusing_connections(postgres: DatabaseSettings, name: str) -> Iterator[None]:
    """Have the server end and refuse all connections to a database while the context is open."""
    asyncio.run(
        execute_as(
            postgres,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608 - our own name
        )
    )
    try:
        yield
    finally:
        asyncio.run(execute_as(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))


@contextmanager
def nats_server(folder: Path, port: int | None = None, password: str | None = None) -> Iterator[NatsSettings]:
    """Run a NATS server with JetStream in the folder; give port and password to start one again where another one was.

    The settings are the administrator's; the services' users have the same password.
    """
    port = port or free_port()
    password = password or secrets.token_urlsafe(16)
    with programs.nats(folder, port=port, password=password).running_until_left():
        yield NatsSettings(
            url=f"nats://{HOST}:{port}", user=ADMINISTRATOR, password=SecretStr(password), stream_max_bytes=64 << 20
        )


@pytest.fixture
def nats() -> Iterator[NatsSettings]:
    """A NATS server of the test's own, with an empty store."""
    with scratch_folder("sens-nats-") as folder, nats_server(folder) as settings:
        yield settings
