"""The API's way to PostgreSQL: pools of connections that work as a role which sees one tenant at a time.

Row-level security decides what a transaction sees by the setting ``sens.tenant_id``, which `TenantDatabase` sets for one transaction, so
that a connection can't carry one tenant's rights over to another tenant's request.

One tenant's requests use a part of the pool for data at most (`tenant_turns`). Keys and readiness have a pool of their own, so that
neither waits for tenants' queries.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sens_common.database import connect_arguments
from sens_common.database_errors import DRIVER_ERRORS, DatabaseFault, fault_of, words_of_fault
from sens_common.errors import SchemaError, UnavailableError
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from sens_platform_api.errors import NumberTooLargeError, TooSlowError
from sens_platform_api.settings import LimitSettings
from sens_platform_api.tenant_turns import TenantTurns

type Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

ACQUIRE_TIMEOUT_SECONDS = 10
IDLE_IN_TRANSACTION_MILLISECONDS = 30_000
"""No answer keeps a transaction open while its reader reads; this ends a transaction that a fault in this program leaves open."""


class QueryKind(StrEnum):
    """The kinds of queries; each has a time limit of its own."""

    KEY = "key"
    LOOKUP = "lookup"
    MEASUREMENTS = "measurements"
    AGGREGATES = "aggregates"


class Pool:
    """Connections that are made when needed, so that the database may come later.

    Attributes:
        connections: The driver's pool.
        limits: Time limits of queries.
        turns: Gives each tenant a part of the connections, None where no tenant asks.
    """

    def __init__(
        self, connections: "asyncpg.Pool[asyncpg.Record]", limits: LimitSettings, turns: TenantTurns | None = None
    ) -> None:
        self.connections = connections
        self.limits = limits
        self.turns = turns

    def milliseconds(self, kind: QueryKind) -> int:
        """Return the time limit of a statement."""
        seconds = {
            QueryKind.KEY: self.limits.key_query_seconds,
            QueryKind.LOOKUP: self.limits.lookup_query_seconds,
            QueryKind.MEASUREMENTS: self.limits.measurements_query_seconds,
            QueryKind.AGGREGATES: self.limits.aggregates_query_seconds,
        }
        return round(seconds[kind] * 1000)


@contextlib.asynccontextmanager
async def open_pools(
    settings: DatabaseSettings, service: str, limits: LimitSettings
) -> AsyncIterator[tuple[Pool, Pool]]:
    """Keep the pools open while the context is: the one for data, and the one for keys and readiness."""
    turns = TenantTurns(settings.pool_size, limits.wait_seconds)
    async with (
        _driver_pool(settings, service, settings.pool_size) as data,
        _driver_pool(settings, service, limits.key_connections) as keys,
    ):
        yield Pool(data, limits, turns), Pool(keys, limits)


@contextlib.asynccontextmanager
async def _driver_pool(
    settings: DatabaseSettings, service: str, size: int
) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    arguments = connect_arguments(settings, service, role=API_ROLE)
    arguments["server_settings"] |= {
        # A little later than the driver's own time limit: it ends statements that the driver could not cancel.
        "statement_timeout": str(round((settings.command_timeout_seconds + 5) * 1000)),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MILLISECONDS),
    }
    pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
        min_size=0, max_size=size, reset=_leave_as_it_is, **arguments
    )
    try:
        yield pool
    finally:
        pool.terminate()


async def _leave_as_it_is(_connection: Connection) -> None:
    """Do nothing with a connection that comes back: every setting here is for one transaction, which has ended."""


@contextlib.asynccontextmanager
async def transaction(
    pool: Pool, kind: QueryKind = QueryKind.KEY, *, readonly: bool = True
) -> AsyncIterator[Connection]:
    """Give a connection inside a transaction that sees no tenant.

    Raises:
        UnavailableError: The database can't be used.
        TooSlowError: A statement took longer than its time limit.
    """
    async with _transaction(pool, readonly=readonly) as connection:
        await connection.execute("SELECT set_config('statement_timeout', $1, true)", str(pool.milliseconds(kind)))
        yield connection


class TenantDatabase:
    """The database as one tenant sees it, through the tenant's part of the pool."""

    def __init__(self, pool: Pool, tenant_id: int) -> None:
        self._pool = pool
        self._tenant_id = tenant_id
        self._calibration = ""

    def with_calibration(self, setting: str) -> "TenantDatabase":
        """Return the database with values by other calibrations than those that hold: ``none``, or those that were known at a time."""
        other = TenantDatabase(self._pool, self._tenant_id)
        other._calibration = setting
        return other

    @contextlib.asynccontextmanager
    async def transaction(
        self, kind: QueryKind = QueryKind.LOOKUP, *, readonly: bool = True, patient: bool = False
    ) -> AsyncIterator[Connection]:
        """Give a connection inside a transaction that sees the tenant's rows alone.

        Args:
            kind: Of the queries, for the time limit of each statement.
            readonly: Whether the transaction may only read.
            patient: Whether to wait for the tenant's turn for as long as it takes: an answer that has begun can't be refused any more.

        Raises:
            TenantBusyError: All of the tenant's connections stay in use.
            UnavailableError: The database can't be used.
            TooSlowError: A statement took longer than its time limit.
        """
        pool = self._pool
        async with contextlib.AsyncExitStack() as stack:
            if pool.turns is not None:
                await stack.enter_async_context(pool.turns.turn(self._tenant_id, patient=patient))
            connection = await stack.enter_async_context(_transaction(pool, readonly=readonly))
            await connection.execute(
                "SELECT set_config('sens.tenant_id', $1, true), set_config('statement_timeout', $2, true)",
                str(self._tenant_id),
                str(pool.milliseconds(kind)),
            )
            if self._calibration:
                await connection.execute("SELECT set_config('sens.calibration', $1, true)", self._calibration)
            yield connection


@contextlib.asynccontextmanager
async def _transaction(pool: Pool, *, readonly: bool) -> AsyncIterator[Connection]:
    with translated_errors(connected=False):
        connection = await pool.connections.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
    with translated_errors():
        try:
            async with connection.transaction(readonly=readonly):
                yield connection
        finally:
            await pool.connections.release(connection)


@contextlib.contextmanager
def translated_errors(*, connected: bool = True) -> Iterator[None]:
    """Turn the driver's errors into those that the edge knows; other errors pass.

    Args:
        connected: Whether there is a connection; else the errors are about getting one.
    """
    try:
        yield
    except asyncpg.NumericValueOutOfRangeError as error:
        raise NumberTooLargeError(str(error)) from error
    except DRIVER_ERRORS as error:
        match fault_of(error, connected=connected):
            case DatabaseFault.TOO_SLOW:
                raise TooSlowError("the database took too long; ask for less at once") from error
            case DatabaseFault.SCHEMA:
                raise SchemaError(
                    "the database's schema is missing or too old; run the migrations (sens migrate)"
                ) from error
            case DatabaseFault.TRANSIENT | DatabaseFault.FORBIDDEN:
                words = words_of_fault(error, connected=connected)
                raise UnavailableError(f"the database can't be used: {words}") from error
            case _:
                raise
