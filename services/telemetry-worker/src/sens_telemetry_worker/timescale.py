"""The database: TimescaleDB or plain PostgreSQL, through asyncpg. All of the worker's SQL is here."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Final, cast

import asyncpg
import numpy as np
import structlog
from asyncpg.pool import PoolConnectionProxy
from numpy.typing import NDArray

from sens_common.database import connect_arguments, unavailable
from sens_common.migrations import REQUIRED_VERSION, schema_version
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker import metrics
from sens_telemetry_worker.columns import Kind, Tenant
from sens_telemetry_worker.pipeline import RowsRefusedError, StoreTooSlowError, StoreUnavailableError, Written
from sens_telemetry_worker.rows import Prepared, copy_bytes, text_copy_bytes

log = structlog.get_logger()

type Connection = PoolConnectionProxy[asyncpg.Record]

_COLUMNS: Final = ["device_id", "metric_id", "ts", "value"]
_REFUSED_CLASSES: Final = frozenset({"22", "23", "54", "P0"})
"""SQLSTATE classes that speak of the rows themselves: data exception, integrity constraint, program limit, raised by a trigger
(PostgreSQL documentation, appendix A). All others speak of the server's state."""

_NUMBERS: Final = "measurements"
_TEXTS: Final = "text_measurements"
_COPY_LINE: Final = re.compile(rf"^COPY ({_NUMBERS}|{_TEXTS}), line ([0-9]+)", re.MULTILINE)
_PARTITIONS_AHEAD: Final = "2 months"
_COUNT: Final = """
    INSERT INTO sens.message_counts AS c (tenant_id, day, backend, stored, duplicate)
    SELECT tenant_id, (now() AT TIME ZONE 'UTC')::date, pg_backend_pid(), stored, duplicate
    FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS batch (tenant_id, stored, duplicate)
    ON CONFLICT (tenant_id, day, backend)
    DO UPDATE SET stored = c.stored + excluded.stored, duplicate = c.duplicate + excluded.duplicate
"""


async def _keep_state(_connection: object) -> None:
    """Give a connection back without resetting it: the worker changes no session state."""


@contextlib.asynccontextmanager
async def open_pool(settings: DatabaseSettings, application: str) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    """Keep a pool open while the context is; connections are made when they are needed."""
    pool = asyncpg.create_pool(
        **connect_arguments(settings, application),
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
    """The pool, and how its errors are told apart."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: DatabaseSettings) -> None:
        self._pool = pool
        self._settings = settings

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
        except asyncpg.PostgresError as error:
            sqlstate: str = error.sqlstate or ""
            if sqlstate[:2] in _REFUSED_CLASSES:
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


class TimescaleStore:
    """The measurements, as `pipeline.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._months: set[int] = set()  # months since 1970-01 that are known to have their partitions

    async def write(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written:
        """See `pipeline.Store.write`."""
        await self._ensure_partitions(rows)
        try:
            written = await self._copy(rows, tenants)
        except _NoPartitionError as error:
            # Somebody has dropped one that was known.
            self._months.clear()
            raise StoreUnavailableError(str(error)) from error
        except RowsRefusedError as error:
            raise RowsRefusedError(str(error), _suspect(error.__cause__, rows)) from error
        if written is not None:
            metrics.BATCHES.labels("copy").inc()
            return written
        metrics.BATCHES.labels("merge").inc()
        return await self._merge(rows, tenants)

    async def keep_partitions_ahead(self, interval_seconds: float = 3600) -> None:
        """Make the partitions of the coming months, now and then again."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await connection.execute(
                        f"SELECT sens.ensure_partitions(now(), now() + interval '{_PARTITIONS_AHEAD}')"
                    )
            except (StoreUnavailableError, RowsRefusedError) as error:
                log.warning("partitions can't be made ahead; they are made when a reading needs them", error=str(error))
            await asyncio.sleep(interval_seconds)

    async def _ensure_partitions(self, rows: Prepared) -> None:
        times = np.concatenate([rows.numbers.measured_at, np.array([row.measured_at for row in rows.texts], np.int64)])
        if not len(times):
            return
        all_months = times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
        earliest = int(all_months.min())
        months = {earliest + month for month in np.flatnonzero(np.bincount(all_months - earliest)).tolist()}
        for month in sorted(months - self._months):
            moment = datetime(1970 + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            async with self._database.connection() as connection:
                await connection.execute("SELECT sens.ensure_partitions($1, $1)", moment)
            self._months.add(month)

    async def _copy(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written | None:
        """Copy straight into the tables; None, and nothing stored, when a key is there already."""
        written = Written(_values_per_message(rows, len(tenants)), set())
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    if len(rows.numbers.message):
                        await _copy_to(connection, _NUMBERS, _COLUMNS, copy_bytes(rows.numbers), schema="sens")
                    if rows.texts:
                        await _copy_to(connection, _TEXTS, _COLUMNS, text_copy_bytes(rows.texts), schema="sens")
                    await _count(connection, rows, tenants, written)
            except asyncpg.UniqueViolationError:
                return None
            except asyncpg.CheckViolationError as error:
                if "no partition of relation" in str(error):
                    raise _NoPartitionError(str(error)) from error
                raise
        return written

    async def _merge(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written:
        """Insert what is not there yet, and compare the rest with what is."""
        written = Written(_values_per_message(rows, len(tenants)), set())
        async with self._database.connection() as connection, connection.transaction():
            for table, value_type, data in (
                (
                    _NUMBERS,
                    "float8",
                    copy_bytes(rows.numbers, with_message=True) if len(rows.numbers.message) else None,
                ),
                (_TEXTS, "text", text_copy_bytes(rows.texts, with_message=True) if rows.texts else None),
            ):
                if data is None:
                    continue
                for message, differs in await _merge_table(connection, table, value_type, data):
                    written.new_values[message] -= 1
                    if differs:
                        written.conflicting.add(message)
            await _count(connection, rows, tenants, written)
        return written


def _suspect(refusal: BaseException | None, rows: Prepared) -> int | None:
    """Return the message of the row that a COPY was at when it was refused, None when the server does not say.

    The server counts a binary COPY's rows as lines, from 1.
    """
    line = _COPY_LINE.search(getattr(refusal, "context", None) or "")
    if line is None:
        return None
    messages = rows.numbers.message.tolist() if line[1] == _NUMBERS else [row.message for row in rows.texts]
    position = int(line[2]) - 1
    return messages[position] if position < len(messages) else None


class _NoPartitionError(Exception):
    """A row has no partition to go to."""


async def _copy_to(
    connection: Connection, table: str, columns: list[str], data: bytes, *, schema: str | None = None
) -> None:
    await connection.copy_to_table(table, source=_whole(data), columns=columns, schema_name=schema, format="binary")


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    """Give the driver everything at once; a file it would read through a thread."""
    yield data


async def _count(connection: Connection, rows: Prepared, tenants: NDArray[np.int32], written: Written) -> None:
    """Add the messages that are stored, and those that were stored before, to their tenants' counts."""
    settled = tenants.copy()
    settled[[*rows.conflicting, *written.conflicting]] = 0  # they become dead letters
    ids = sorted(set(settled.tolist()) - {0})
    new = written.new_values > 0
    counts = [(np.count_nonzero(new & (settled == id_)), np.count_nonzero(~new & (settled == id_))) for id_ in ids]
    if ids:
        await connection.execute(_COUNT, ids, *zip(*counts, strict=True))


async def _merge_table(connection: Connection, table: str, value_type: str, data: bytes) -> list[tuple[int, bool]]:
    """Return, for each row that was there already, its message and whether the stored value is another one."""
    staged = f"staged_{table}"
    await connection.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged}"
        f" (device_id int, metric_id int, ts timestamptz, value {value_type}, message int) ON COMMIT DELETE ROWS"
    )
    await _copy_to(connection, staged, [*_COLUMNS, "message"], data)
    await connection.execute(
        f"""
        WITH inserted AS (
            INSERT INTO sens.{table} (device_id, metric_id, ts, value)
            SELECT device_id, metric_id, ts, value FROM {staged} ORDER BY device_id, metric_id, ts
            ON CONFLICT DO NOTHING
            RETURNING device_id, metric_id, ts
        )
        DELETE FROM {staged} s USING inserted i
        WHERE s.device_id = i.device_id AND s.metric_id = i.metric_id AND s.ts = i.ts
        """  # noqa: S608 - the table's name is one of two constants
    )
    weeks = await connection.fetch(
        f"SELECT min(ts), max(ts) FROM {staged} GROUP BY date_bin('7 days', ts, 'epoch')"  # noqa: S608 - same
    )
    left: list[tuple[int, bool]] = []
    for week in weeks:
        # The planner knows nothing of the temporary table's size. One look-up by the key for each row is always right, which OFFSET
        # makes it do: a join would read a columnstore chunk from end to end for each row. The week leaves it one chunk or two, which
        # TimescaleDB would else choose for each row among all.
        rows = await connection.fetch(
            f"""
            SELECT s.message, m.value IS DISTINCT FROM s.value
            FROM {staged} s LEFT JOIN LATERAL (
                SELECT value FROM sens.{table} m
                WHERE m.device_id = s.device_id AND m.metric_id = s.metric_id AND m.ts = s.ts AND m.ts BETWEEN $1 AND $2
                OFFSET 0
            ) m ON true
            WHERE s.ts BETWEEN $1 AND $2
            """,  # noqa: S608 - same
            *week,
        )
        left += [(row[0], row[1]) for row in rows]
    return left


def _values_per_message(rows: Prepared, message_count: int) -> NDArray[np.int64]:
    texts = np.array([row.message for row in rows.texts], np.int64)
    return np.bincount(rows.numbers.message, minlength=message_count) + np.bincount(texts, minlength=message_count)


class TimescaleRegistry:
    """Tenants, devices and metrics, as `routing.Registry`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._tenants: dict[str, Tenant] = {}
        self._limits: dict[int, tuple[int, int]] = {}
        self._device_counts: Counter[int] = Counter()
        self._counted: set[int] = set()

    async def tenant(self, name: str) -> Tenant | None:
        """See `routing.Registry.tenant`."""
        if name not in self._tenants:
            # Never remembered as missing: a tenant's first message may come right after it was made.
            await self._load_tenants()
        return self._tenants.get(name)

    async def _load_tenants(self) -> None:
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT id, name, device_limit, metric_limit FROM sens.tenants")
        for row in rows:
            self._tenants.setdefault(row["name"], Tenant(row["id"], row["name"]))
            self._limits[row["id"]] = (row["device_limit"], row["metric_limit"])

    async def devices(self, wanted: Iterable[tuple[Tenant, str]]) -> dict[tuple[int, str], int]:
        """See `routing.Registry.devices`."""
        # Sorted, so that two workers that register the same devices wait for each other instead of dying together.
        names = sorted({(tenant.id, name) for tenant, name in wanted})
        async with self._lock, self._database.connection() as connection:
            found = await _find_devices(connection, names)
            missing = await self._within_limits(connection, [name for name in names if name not in found])
            if missing:
                created = await connection.fetch(
                    "INSERT INTO sens.devices (tenant_id, name) SELECT * FROM unnest($1::int[], $2::text[])"
                    " ON CONFLICT DO NOTHING RETURNING tenant_id",
                    [tenant for tenant, _ in missing],
                    [name for _, name in missing],
                )
                self._device_counts.update(row["tenant_id"] for row in created)
                metrics.DEVICES.inc(len(created))
                found |= await _find_devices(connection, missing)
        return found

    async def _within_limits(self, connection: Connection, names: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """Return those of the new devices that the tenants' limits leave room for."""
        allowed = []
        room: dict[int, int] = {}
        for tenant_id, name in names:
            if tenant_id not in room:
                limit = self._limits[tenant_id][0]
                if tenant_id not in self._counted or self._device_counts[tenant_id] >= limit:
                    self._device_counts[tenant_id] = await connection.fetchval(
                        "SELECT count(*) FROM sens.devices WHERE tenant_id = $1", tenant_id
                    )
                    self._counted.add(tenant_id)
                room[tenant_id] = limit - self._device_counts[tenant_id]
            if room[tenant_id] > 0:
                room[tenant_id] -= 1
                allowed.append((tenant_id, name))
        return allowed

    async def metrics(self, wanted: Iterable[tuple[Tenant, str, Kind]]) -> None:
        """See `routing.Registry.metrics`."""
        by_tenant: dict[int, tuple[Tenant, set[tuple[str, Kind]]]] = {}
        for tenant, name, kind in wanted:
            by_tenant.setdefault(tenant.id, (tenant, set()))[1].add((name, kind))
        async with self._lock, self._database.connection() as connection:
            for tenant, new in by_tenant.values():
                await self._load_metrics(connection, tenant)
                limit = self._limits[tenant.id][1]
                room = limit - sum(len(ids) for ids in tenant.metric_ids.values())
                missing = sorted((name, kind) for name, kind in new if name not in tenant.metric_ids[kind])[
                    : max(room, 0)
                ]
                if missing:
                    await connection.execute(
                        "INSERT INTO sens.metrics (tenant_id, name, kind)"
                        " SELECT $1, * FROM unnest($2::text[], $3::text[]) ON CONFLICT DO NOTHING",
                        tenant.id,
                        [name for name, _ in missing],
                        [kind for _, kind in missing],
                    )
                    await self._load_metrics(connection, tenant)

    async def _load_metrics(self, connection: Connection, tenant: Tenant) -> None:
        for row in await connection.fetch("SELECT id, name, kind FROM sens.metrics WHERE tenant_id = $1", tenant.id):
            kind: Kind = row["kind"]
            tenant.metric_ids[kind][row["name"]] = row["id"]


async def _find_devices(connection: Connection, names: list[tuple[int, str]]) -> dict[tuple[int, str], int]:
    rows = await connection.fetch(
        "SELECT d.id, d.tenant_id, d.name FROM unnest($1::int[], $2::text[]) AS wanted (tenant_id, name)"
        " JOIN sens.devices d USING (tenant_id, name)",
        [tenant for tenant, _ in names],
        [name for _, name in names],
    )
    return {(row["tenant_id"], row["name"]): row["id"] for row in rows}
