"""What the database does by itself beside the storing: old chunks go to the columnstore, and what is too old is dropped.

Readings of the load are young enough to be kept, but on TimescaleDB a third of them are of chunks that the columnstore has already. For what
is too old, readings of a device of its own are put into past years.
"""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self

import asyncpg

from sens_common.database import connect
from sens_common.errors import SensError
from tools.stack.path import Stack
from tools.torture.messages import FIRST_TIME_MILLISECONDS
from tools.torture.results import COLUMNSTORE, DROPPED

_INTERVAL_SECONDS: Final = 1.0
_FIRST_YEAR: Final = 1980
_YEARS: Final = 30
_READINGS: Final = 500
_SPARE_DAYS: Final = 30
_ALLOWED: Final = (SensError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a fault does to a session."""

_JOBS: Final = """
    SELECT job_id FROM timescaledb_information.jobs
    WHERE hypertable_schema = 'sens' AND hypertable_name IN ('readings', 'measurements', 'text_measurements')
        AND proc_name IN ('policy_compression', 'policy_columnstore')
"""
_DEVICE: Final = """
    WITH tenant AS (INSERT INTO sens.tenants (name) VALUES ('past') RETURNING id),
        device AS (INSERT INTO sens.devices (tenant_id, name) SELECT id, 'past' FROM tenant RETURNING id),
        metric AS (INSERT INTO sens.metrics (tenant_id, name, kind) SELECT id, 'past', 'number' FROM tenant RETURNING tenant_id, id)
    INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) SELECT tenant_id, ARRAY[id], '{}' FROM metric
"""
_PAST: Final = """
    WITH own AS (
        SELECT d.id AS device_id, s.id AS metric_set_id
        FROM sens.tenants t JOIN sens.devices d ON d.tenant_id = t.id JOIN sens.metric_sets s ON s.tenant_id = t.id
        WHERE t.name = 'past'
    ), days AS (
        INSERT INTO sens.device_metric_sets AS m SELECT device_id, metric_set_id, $1::timestamptz::date, $1::timestamptz::date + 1 FROM own
        ON CONFLICT (device_id, metric_set_id) DO UPDATE
            SET first_day = least(m.first_day, excluded.first_day), last_day = greatest(m.last_day, excluded.last_day)
    )
    INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers)
    SELECT device_id, metric_set_id, $1::timestamptz + n * interval '1 minute', ARRAY[n::float8] FROM own, generate_series(1, $2::int) n
    ON CONFLICT DO NOTHING
"""


def prepare(stack: Stack) -> None:
    """Let every tenant keep what the load may tell of and no more, and make the device that has something older."""
    loaded = datetime.now(UTC) - datetime.fromtimestamp(FIRST_TIME_MILLISECONDS / 1000, UTC)
    late_days = loaded.days + _SPARE_DAYS
    stack.fetch(_DEVICE)
    stack.fetch("UPDATE sens.tenants SET late_days = $1", late_days)
    stack.fetch(
        "INSERT INTO sens.retention (tenant_id, kind, days) SELECT id, 'raw', $1 FROM sens.tenants",
        late_days + _SPARE_DAYS,
    )


class Maintenance:
    """Does it in a thread of its own until it is left.

    Attributes:
        done: How often what was done.
    """

    def __init__(self, stack: Stack, done: dict[str, int]) -> None:
        self.done = done
        self._stack = stack
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="maintenance")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    async def _run(self) -> None:
        turn = sum(self.done.values())
        while not self._ended.is_set():
            turn += 1
            try:
                await self._turn(_FIRST_YEAR + turn % _YEARS)
            except _ALLOWED as error:
                if type(error).__name__ not in self.done:
                    print(f"     the maintenance meets a {type(error).__name__}: {error}", flush=True)
                self._count(type(error).__name__)
            await asyncio.to_thread(self._ended.wait, _INTERVAL_SECONDS)

    async def _turn(self, year: int) -> None:
        connection = await connect(self._stack.database, "maintenance")
        try:
            for limit in ("statement_timeout = '20s'", "lock_timeout = '500ms'"):
                await connection.execute(f"SET {limit}")
            if await connection.fetchval("SELECT kind = 'timescaledb' FROM sens.storage"):
                for job in await connection.fetch(_JOBS):
                    await connection.execute("CALL public.run_job($1)", job["job_id"])
                    self._count(COLUMNSTORE)
            past = datetime(year, 6, 1, tzinfo=UTC)
            await connection.execute(
                "SELECT sens.ensure_reading_partitions($1, $2)", past, past + timedelta(minutes=_READINGS)
            )
            await connection.execute(_PAST, past, _READINGS)
            while await connection.fetchval("SELECT sens.drop_expired()") is not None:
                self._count(DROPPED)
        finally:
            await connection.close(timeout=5)
