"""The API's way to PostgreSQL: a pool of connections that work as a role which sees one tenant at a time.

Row-level security decides what a transaction sees by the setting ``sens.tenant_id``, which `tenant_transaction` sets for one
transaction, so that a connection can't carry one tenant's rights over to another tenant's request.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sens_common.database import connect_arguments
from sens_common.errors import SchemaError, UnavailableError
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from sens_platform_api.errors import TooSlowError

type Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
type Pool = asyncpg.Pool[asyncpg.Record]

ACQUIRE_TIMEOUT_SECONDS = 10
IDLE_IN_TRANSACTION_MILLISECONDS = 60_000
"""A streamed answer whose reader has gone to sleep gives its connection back after this."""


@contextlib.asynccontextmanager
async def open_pool(settings: DatabaseSettings, service: str) -> AsyncIterator[Pool]:
    """Keep a pool open while the context is; connections are made when needed, so that the database may come later."""
    arguments = connect_arguments(settings, service, role=API_ROLE)
    arguments["server_settings"] |= {
        # A little later than the driver's own time limit: it ends what the driver could not cancel.
        "statement_timeout": str(round((settings.command_timeout_seconds + 5) * 1000)),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MILLISECONDS),
    }
    pool: Pool = await asyncpg.create_pool(min_size=0, max_size=settings.pool_size, **arguments)
    try:
        yield pool
    finally:
        pool.terminate()


@contextlib.asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Give a connection inside a read-only transaction that sees no tenant.

    Raises:
        UnavailableError: The database can't be used.
        TooSlowError: A statement took longer than its time limit.
    """
    with translated_errors():
        try:
            connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(
                f"the database can't be used: no connection became free within {ACQUIRE_TIMEOUT_SECONDS} s"
            ) from error
        try:
            async with connection.transaction(readonly=True):
                yield connection
        finally:
            await pool.release(connection)


@contextlib.asynccontextmanager
async def tenant_transaction(pool: Pool, tenant_id: int) -> AsyncIterator[Connection]:
    """Give a connection inside a read-only transaction that sees one tenant's rows; raises as `transaction`."""
    async with transaction(pool) as connection:
        await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(tenant_id))
        yield connection


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's errors into those that the edge knows."""
    try:
        yield
    except (TimeoutError, asyncpg.QueryCanceledError, asyncpg.IdleInTransactionSessionTimeoutError) as error:
        raise TooSlowError("the database took too long; ask for less at once") from error
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
        raise SchemaError("the database's schema is missing or too old; run the migrations (sens migrate)") from error
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.CannotConnectNowError,
        asyncpg.InvalidParameterValueError,
        OSError,
    ) as error:
        raise UnavailableError(f"the database can't be used: {str(error) or type(error).__name__}") from error
