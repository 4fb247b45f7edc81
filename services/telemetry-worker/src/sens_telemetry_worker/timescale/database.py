"""The database's connections, through asyncpg, and what the driver's errors mean for storing."""

import contextlib
from collections.abc import AsyncIterator
from typing import cast

import asyncpg

from sens_common.database import Connection, connect_arguments, unavailable
from sens_common.database_errors import DRIVER_ERRORS, DatabaseFault, fault_of, words_of_fault
from sens_common.logins import WORKER_ROLE
from sens_common.migrations import REQUIRED_VERSION, schema_version
from sens_common.privileges import shortcomings
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.storing import RowsRefusedError, StoreTooSlowError, StoreUnavailableError


async def _keep_state(_connection: object) -> None:
    """Give a connection back without resetting it: the worker changes no session state."""


@contextlib.asynccontextmanager
async def open_pool(settings: DatabaseSettings, application: str) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    """Keep a pool open while the context is; connections are made when they are needed."""
    pool = asyncpg.create_pool(
        **connect_arguments(settings, application, role=WORKER_ROLE),
        min_size=0,
        max_size=settings.pool_size,
        max_inactive_connection_lifetime=0,
        reset=_keep_state,
    )
    async with pool:
        yield pool
        # Leaving the context would wait for a statement that a dead server never answers.
        pool.terminate()


class Database:
    """The pool.

    Attributes:
        name_generation: The newest generation of devices' and metrics' ids that a transaction has seen; what was remembered before is void.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: DatabaseSettings) -> None:
        self._pool = pool
        self._settings = settings
        self.name_generation = 0

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection.

        Raises:
            StoreUnavailableError: The server can't be reached or can't work just now.
            StoreTooSlowError: A statement took longer than it may.
            RowsRefusedError: The server refuses the rows for what they are.
        """
        connected = False
        try:
            async with self._pool.acquire(timeout=10) as connection:
                connected = True
                yield connection
        except DRIVER_ERRORS as error:
            raise self._store_error(error, connected=connected) from error

    def _store_error(self, error: Exception, *, connected: bool) -> Exception:
        """Return the error of storing that an error of the driver means."""
        fault = fault_of(error, connected=connected)
        if fault is DatabaseFault.REFUSED:
            return RowsRefusedError(words_of_refusal(error))
        if fault is DatabaseFault.OUTDATED:
            # A row's device or metric was deleted meanwhile; interpreted again, it has another one, or none.
            return StoreUnavailableError(words_of_refusal(error))
        words = f"{_sqlstate(error)}{unavailable(self._settings, ConnectionError(words_of_fault(error, connected=connected)))}"
        return StoreTooSlowError(words) if fault is DatabaseFault.TOO_SLOW else StoreUnavailableError(words)

    async def check(self) -> str | None:
        """Readiness check: the server answers, and its schema is new enough."""
        try:
            async with self.connection() as connection:
                version = await schema_version(cast("asyncpg.Connection[asyncpg.Record]", connection))
        except (StoreUnavailableError, RowsRefusedError) as error:
            return str(error)
        if version < REQUIRED_VERSION:
            return f"the schema is at version {version}, {REQUIRED_VERSION} is needed; run the migrations"
        return None

    async def roles_note(self) -> str | None:
        """Return what the worker's session could do in the database that it need not, None when it has a login of its own."""
        async with self.connection() as connection:
            found = await shortcomings(connection, "SENS_WORKER_LOGIN__PASSWORD", "postgres-worker-password")
        return "; ".join(found) or None


def words_of_refusal(error: Exception) -> str:
    """Return what the server says against rows, for people."""
    return f"{_sqlstate(error)}{words_of_fault(error)}"


def _sqlstate(error: Exception) -> str:
    return f"{error.sqlstate}: " if isinstance(error, asyncpg.PostgresError) else ""
