"""The data of two tenants, as the API's ports show it, in PostgreSQL; `memory_tenant_data` has the same in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final, Protocol

import asyncpg

from sens_common.settings import DatabaseSettings
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import TenantEvents
from sens_platform_api.audit.service import Events
from sens_platform_api.caller import Caller
from sens_platform_api.dead_letters.repository import Actor, DeadLetters
from sens_platform_api.dead_letters.service import Letters
from sens_platform_api.devices.repository import TenantDevices
from sens_platform_api.devices.service import Devices
from sens_platform_api.measurements.repository import TenantMeasurements
from sens_platform_api.measurements.service import Measurements
from sens_platform_api.overview.repository import TenantNumbers
from sens_platform_api.overview.service import Numbers
from sens_platform_api.postgresql import Pool, TenantDatabase, open_pools
from sens_platform_api.registry.repository import StoredDeletions, TenantNames
from sens_platform_api.registry.service import Deletions, Names
from sens_platform_api.settings import LimitSettings
from sens_platform_api.tenants.repository import IngestionLimits
from sens_platform_api.tenants.service import StoredLimits
from support.letters import LetterRow, insert_dead_letters
from support.servers import owner_pool
from support.stored_rows import Form, Row, insert_measurements

TENANTS: Final = ("demo", "other")


class TenantData(Protocol):
    """The tenants demo and other with their data through the API's ports, and what others do to it."""

    def devices(self, tenant: str) -> Devices: ...

    def names(self, tenant: str) -> Names: ...

    def events(self, tenant: str) -> Events: ...

    def numbers(self, tenant: str) -> Numbers: ...

    def letters(self, tenant: str) -> Letters: ...

    def measurements(self, tenant: str) -> Measurements: ...

    @property
    def deletions(self) -> Deletions: ...

    @property
    def limits(self) -> StoredLimits: ...

    async def store(self, tenant: str, rows: Sequence[Row]) -> None:
        """Store measurements, and register their devices and metrics, as the telemetry worker does."""

    async def count(self, tenant: str, word: str, messages: int) -> None:
        """Count messages of today under one word of the conservation."""

    async def keep(self, letters: Sequence[LetterRow]) -> list[int]:
        """Keep dead letters; return their ids."""

    async def record(self, tenant: str | None, action: str) -> None:
        """Add an event to the audit, of a tenant or of none."""

    async def add_source(self, tenant: str, name: str, topic_filter: str | None) -> None:
        """Give a tenant a source, by HTTP where there is no topic filter."""

    async def limit_rate(self, tenant: str, messages_per_second: int | None) -> None:
        """Change a tenant's limit of messages a second."""

    async def remove(self, tenant: str) -> None:
        """Delete a tenant that has no devices."""

    async def measurement_count(self) -> int:
        """Return how many measurements are stored, also those that no tenant sees any more."""


type Opener = Callable[[], AbstractAsyncContextManager[TenantData]]


@contextmanager
def open_for_examples(opened: Opener) -> Iterator[tuple[asyncio.Runner, TenantData]]:
    """Open data that all examples of a test share."""
    with asyncio.Runner() as runner:
        context = opened()
        it = runner.run(_enter(context))
        try:
            yield runner, it
        finally:
            runner.run(_leave(context))


async def _enter(context: AbstractAsyncContextManager[TenantData]) -> TenantData:
    return await context.__aenter__()


async def _leave(context: AbstractAsyncContextManager[TenantData]) -> None:
    await context.__aexit__(None, None, None)


class TenantDataInDatabase:
    """The tenants' data in PostgreSQL."""

    def __init__(self, owner: "asyncpg.Pool[asyncpg.Record]", pool: Pool, ids: dict[str, int], form: Form) -> None:
        self._owner = owner
        self._pool = pool
        self._ids = ids
        self._form = form

    def devices(self, tenant: str) -> Devices:
        return TenantDevices(self._database(tenant))

    def names(self, tenant: str) -> Names:
        return TenantNames(self._database(tenant), Caller(1, self._ids[tenant], tenant))

    def events(self, tenant: str) -> Events:
        return TenantEvents(self._database(tenant))

    def numbers(self, tenant: str) -> Numbers:
        return TenantNumbers(self._database(tenant))

    def letters(self, tenant: str) -> Letters:
        database = self._database(tenant)
        return DeadLetters(
            lambda readonly: database.transaction(readonly=readonly), Actor("key 1 (unnamed)", self._ids[tenant])
        )

    def measurements(self, tenant: str) -> Measurements:
        return TenantMeasurements(self._database(tenant))

    @property
    def deletions(self) -> Deletions:
        return StoredDeletions(self._pool)

    @property
    def limits(self) -> StoredLimits:
        return IngestionLimits(self._pool)

    async def store(self, tenant: str, rows: Sequence[Row]) -> None:
        async with self._owner.acquire() as connection, connection.transaction():
            await insert_measurements(connection, tenant, rows, self._form)
            await connection.execute(
                """
                INSERT INTO sens.registrations (tenant_id, devices, metrics)
                VALUES ($1, (SELECT count(*) FROM sens.devices WHERE tenant_id = $1), (SELECT count(*) FROM sens.metrics WHERE tenant_id = $1))
                ON CONFLICT (tenant_id) DO UPDATE SET devices = excluded.devices, metrics = excluded.metrics
                """,
                self._ids[tenant],
            )

    async def count(self, tenant: str, word: str, messages: int) -> None:
        words = ("received", "stored", "duplicate", "dead_lettered", "discarded", "without_measurements")
        counts = dict.fromkeys(words, 0) | {word: messages}
        await self._owner.execute(
            "INSERT INTO sens.message_counts (tenant_id, day, backend, received, stored, duplicate, dead_lettered, discarded, without_measurements)"
            " SELECT $1, (now() AT TIME ZONE 'UTC')::date, count(*), $2, $3, $4, $5, $6, $7 FROM sens.message_counts",
            self._ids[tenant],
            *counts.values(),
        )

    async def keep(self, letters: Sequence[LetterRow]) -> list[int]:
        return await insert_dead_letters(self._owner, letters)

    async def record(self, tenant: str | None, action: str) -> None:
        async with self._owner.acquire() as connection:
            await audit.record(
                connection,
                tenant_id=None if tenant is None else self._ids[tenant],
                actor=audit.ADMINISTRATOR,
                action=action,
                subject="it",
            )

    async def limit_rate(self, tenant: str, messages_per_second: int | None) -> None:
        await self._owner.execute(
            "UPDATE sens.tenants SET messages_per_second = $2 WHERE name = $1", tenant, messages_per_second
        )

    async def add_source(self, tenant: str, name: str, topic_filter: str | None) -> None:
        await self._owner.execute(
            "INSERT INTO sens.sources (tenant_id, name, transport, topic_filter, format)"
            " VALUES ($1, $2, $3, $4, 'json')",
            self._ids[tenant],
            name,
            "http" if topic_filter is None else "mqtt",
            topic_filter,
        )

    async def remove(self, tenant: str) -> None:
        await self._owner.execute("DELETE FROM sens.tenants WHERE name = $1", tenant)

    async def measurement_count(self) -> int:
        count: int = await self._owner.fetchval(
            """
            SELECT (SELECT count(*) FROM sens.measurements) + (SELECT count(*) FROM sens.text_measurements) + coalesce(sum(
                coalesce(cardinality(array_remove(numbers, NULL)), 0) + coalesce(cardinality(array_remove(texts, NULL)), 0)
            ), 0) FROM sens.readings
            """
        )
        return count

    def _database(self, tenant: str) -> TenantDatabase:
        return TenantDatabase(self._pool, self._ids[tenant])


@asynccontextmanager
async def data_in_database(settings: DatabaseSettings, form: Form = Form.FORMER) -> AsyncIterator[TenantDataInDatabase]:
    """Give the data of `TENANTS` in a database that has none."""
    async with owner_pool(settings) as owner, open_pools(settings, "test", LimitSettings()) as (pool, _):
        rows = await owner.fetch(
            "INSERT INTO sens.tenants (name) SELECT unnest($1::text[]) RETURNING name, id", TENANTS
        )
        yield TenantDataInDatabase(owner, pool, {row["name"]: row["id"] for row in rows}, form)
