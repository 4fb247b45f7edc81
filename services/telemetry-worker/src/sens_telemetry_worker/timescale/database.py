"""The database's connections, through asyncpg, and how its errors are told apart."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sens_common.database import connect_arguments, unavailable
from sens_common.logins import WORKER_ROLE
from sens_common.migrations import REQUIRED_VERSION, schema_version
from sens_common.privileges import shortcomings
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.storing import RowsRefusedError, StoreTooSlowError, StoreUnavailableError

type Connection = PoolConnectionProxy[asyncpg.Record]

REFUSED_CLASSES: Final = frozenset({"22", "23", "54", "P0"})
"""SQLSTATE classes that speak of the rows themselves: data exception, integrity constraint, program limit, raised by a trigger
(PostgreSQL documentation, appendix A). All others speak of the server's state."""


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
    """The pool, and how its errors are told apart.

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
        lent = False
        try:
            async with self._pool.acquire(timeout=10) as connection:
                lent = True
                yield connection
        except asyncpg.QueryCanceledError as error:
            raise StoreTooSlowError(f"{error.sqlstate}: {unavailable(self._settings, error)}") from error
        except asyncpg.ForeignKeyViolationError as error:
            # What the rows belong to was deleted meanwhile; routed again, they belong to nobody.
            raise StoreUnavailableError(f"{error.sqlstate}: {error}") from error
        except asyncpg.PostgresError as error:
            sqlstate: str = error.sqlstate or ""
            if lent and sqlstate[:2] in REFUSED_CLASSES:  # before, they speak of the login and its role
                raise RowsRefusedError(f"{sqlstate}: {error}") from error
            raise StoreUnavailableError(f"{sqlstate}: {unavailable(self._settings, error)}") from error
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            # The driver's words for a session that ended in the middle of something speak of its inner state.
            lost = ConnectionError("the connection was lost")
            raise StoreUnavailableError(str(unavailable(self._settings, lost))) from error
        except (OSError, TimeoutError) as error:
            too_slow = lent and isinstance(error, TimeoutError)
            raise (StoreTooSlowError if too_slow else StoreUnavailableError)(
                str(unavailable(self._settings, error))
            ) from error

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
