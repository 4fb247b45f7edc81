"""What the worker knows of tenants, devices and metrics, as `interpreting.Registry`."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from sens_common.database import Connection
from sens_common.dead_letters import Reason
from sens_common.formats import MetricKind
from sens_telemetry_worker import metrics
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.tenants import (
    DeviceKey,
    MetricKey,
    NewMetrics,
    Refusal,
    RegisteredDevices,
    RegisteredMetrics,
    SourceOfTenant,
    Tenant,
)
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.name_limits import (
    Allowance,
    NameLimits,
    NameTable,
    lock_allowances,
    note_registered,
)
from sens_telemetry_worker.timescale.sources import read_sources
from sens_telemetry_worker.topic_resolving import KnownNames

REFRESH_SECONDS: Final = 5.0
"""A change of a tenant's limits is known within this time of the next message."""
_RECOUNT_SECONDS: Final = 60.0
"""A tenant that has reached a limit has its names counted again no more often than this: somebody may have deleted some by hand."""
_DAY_MICROSECONDS: Final = 86_400_000_000


class TimescaleRegistry:
    """Tenants, devices and metrics, as `interpreting.Registry`."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: KnownNames | None = None
        self._tenant_generation = 0
        self._source_generation = 0
        self._refresh_at = 0.0
        self._limits: dict[NameTable, dict[int, NameLimits]] = {"devices": {}, "metrics": {}}
        self._recount_at: dict[tuple[int, NameTable], float] = {}

    async def known_names(self, tenants: Collection[str] = (), sources: Collection[tuple[str, str]] = ()) -> KnownNames:
        """See `topic_resolving.DeviceRegistry.known_names`."""
        known = self._known
        if (
            known is None
            or self._outdated(known)
            or any(name not in known.tenants for name in tenants)
            or any(not isinstance(known.sources.get(source), SourceOfTenant) for source in sources)
        ):
            async with self._lock:
                known = await self._refreshed()
        return known

    def _outdated(self, known: KnownNames) -> bool:
        return self._clock() >= self._refresh_at or self._database.name_generation > known.generation

    async def _refreshed(self) -> KnownNames:
        """Ask what has changed; all tenants are known then, so that a name that is not among them is no tenant's."""
        refresh_at = self._clock() + REFRESH_SECONDS
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT (SELECT generation FROM sens.name_generation), (SELECT generation FROM sens.tenant_generation),"
                " (SELECT generation FROM sens.source_generation)"
            )
            assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
            name_generation, tenant_generation, source_generation = row
            known = self._known
            if known is None or known.generation != name_generation:
                # Ids may be gone. Batches that are being interpreted go on with the old ids, and are refused when they are stored.
                known = KnownNames(name_generation, erasures=await _erasures(connection))
                self._tenant_generation = self._source_generation = 0
            if self._tenant_generation != tenant_generation:
                rows = await connection.fetch(
                    "SELECT id, name, device_limit, new_devices_per_hour, metric_limit, new_metrics_per_hour, late_days,"
                    " CASE WHEN stored_bytes > stored_byte_limit THEN stored_bytes END, stored_byte_limit"
                    " FROM sens.tenants WHERE deleted_at IS NULL"
                )
                ids = {row["name"]: row["id"] for row in rows}
                if any(ids.get(name) != tenant.id for name, tenant in known.tenants.items()):  # a tenant was deleted
                    known = KnownNames(name_generation, erasures=known.erasures)
                    self._source_generation = 0
                for id_, name, devices, new_devices, measured, new_metrics, late_days, stored, most in rows:
                    tenant = known.tenants.setdefault(name, Tenant(id_, name))
                    tenant.late_microseconds = late_days * _DAY_MICROSECONDS
                    tenant.refusal = None if stored is None else _no_room(name, stored, most)
                    self._limits["devices"][id_] = NameLimits(devices, new_devices)
                    self._limits["metrics"][id_] = NameLimits(measured, new_metrics)
                self._tenant_generation = tenant_generation
            if self._source_generation != source_generation:
                known.sources = await read_sources(connection, known.tenants)
                known.senders.clear()
                known.noted_sources.clear()
                self._source_generation = source_generation
        self._known, self._refresh_at = known, refresh_at
        return known

    async def register_devices(
        self, wanted: Iterable[tuple[Tenant, str]], known_only: Collection[DeviceKey] = ()
    ) -> RegisteredDevices:
        """See `topic_resolving.DeviceRegistry.register_devices`."""
        tenants: dict[int, Tenant] = {}
        keys: set[DeviceKey] = set()
        for tenant, name in wanted:
            tenants[tenant.id] = tenant
            keys.add((tenant.id, name))
        refusals: dict[DeviceKey, Refusal] = {}
        async with self._lock, self._database.connection() as connection:
            ids = await _find_devices(connection, keys)
            keys -= {key for key in known_only if key not in ids}
            if missing := keys - ids.keys():
                refusals = await self._insert_devices(connection, tenants, missing)
                # Another worker may have registered some meanwhile, also of those that are refused.
                ids |= await _find_devices(connection, missing)
        _check_found(keys - ids.keys() - refusals.keys())
        return RegisteredDevices(ids, {key: refusal for key, refusal in refusals.items() if key not in ids})

    async def note_sources(self, named: Mapping[int, str]) -> None:
        """See `topic_resolving.DeviceRegistry.note_sources`."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT sens.note_device_sources($1, $2)", list(named), list(named.values()))

    async def _insert_devices(
        self, connection: Connection, tenants: Mapping[int, Tenant], missing: Collection[DeviceKey]
    ) -> dict[DeviceKey, Refusal]:
        """Register devices as far as their tenants' limits allow; return why the others are not."""
        allowed: list[DeviceKey] = []
        refusals: dict[DeviceKey, Refusal] = {}
        async with connection.transaction():
            allowances = await self._allowances(connection, [tenants[key[0]] for key in missing], "devices")
            for key in sorted(missing):
                allowance = allowances[key[0]]
                if allowance.left:
                    allowance.take(1)
                    allowed.append(key)
                else:
                    refusals[key] = allowance.refusal(key[1], 1)
            created = await connection.fetch(
                "INSERT INTO sens.devices (tenant_id, name) SELECT * FROM unnest($1::int[], $2::text[])"
                " ON CONFLICT DO NOTHING RETURNING tenant_id",
                [tenant_id for tenant_id, _ in allowed],
                [name for _, name in allowed],
            )
            await note_registered(connection, Counter(row["tenant_id"] for row in created), "devices")
        metrics.DEVICES.inc(len(created))
        return refusals

    async def register_metrics(self, wanted: Sequence[NewMetrics]) -> RegisteredMetrics:
        """See `row_building.MetricRegistry.register_metrics`."""
        keys = {(new.tenant.id, name, kind) for new in wanted for name, kind in new.metrics}
        refusals: dict[MetricKey, Refusal] = {}
        async with self._lock, self._database.connection() as connection:
            ids = await _find_metrics(connection, keys)
            if missing := keys - ids.keys():
                refusals = await self._insert_metrics(connection, wanted, missing)
                ids |= await _find_metrics(connection, missing)
        _check_found(keys - ids.keys() - refusals.keys())
        return RegisteredMetrics(ids, {key: refusal for key, refusal in refusals.items() if key not in ids})

    async def _insert_metrics(
        self, connection: Connection, wanted: Sequence[NewMetrics], missing: set[MetricKey]
    ) -> dict[MetricKey, Refusal]:
        """Register metrics as far as their tenants' limits allow, those of a message all or none; return why the others are not."""
        allowed: set[MetricKey] = set()
        refusals: dict[MetricKey, Refusal] = {}
        async with connection.transaction():
            tenant_ids = {tenant_id for tenant_id, _, _ in missing}
            tenants = [new.tenant for new in wanted if new.tenant.id in tenant_ids]
            allowances = await self._allowances(connection, tenants, "metrics")
            for tenant, names in wanted:
                more = ({(tenant.id, name, kind) for name, kind in names} & missing) - allowed
                if not more:
                    continue
                allowance = allowances[tenant.id]
                if len(more) <= allowance.left:
                    allowance.take(len(more))
                    allowed |= more
                else:
                    refusals |= {key: allowance.refusal(min(more)[1], len(more)) for key in more}
            created = await connection.fetch(
                "INSERT INTO sens.metrics (tenant_id, name, kind)"
                " SELECT * FROM unnest($1::int[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING RETURNING tenant_id",
                *_columns(sorted(allowed)),
            )
            await note_registered(connection, Counter(row["tenant_id"] for row in created), "metrics")
        return refusals

    async def _allowances(
        self, connection: Connection, tenants: Iterable[Tenant], table: NameTable
    ) -> dict[int, Allowance]:
        now = self._clock()
        named = {tenant.id: (tenant.name, self._limits[table][tenant.id]) for tenant in tenants}
        recounted = {tenant_id for tenant_id in named if now >= self._recount_at.get((tenant_id, table), 0)}
        allowances = await lock_allowances(connection, named, table, recounted)
        self._recount_at |= {
            (tenant_id, table): now + _RECOUNT_SECONDS for tenant_id in recounted if allowances[tenant_id].is_full
        }
        return allowances


def _check_found(missing: Collection[object]) -> None:
    """Look that no name is missing.

    Raises:
        StoreUnavailableError: One is: it was deleted just after it was registered.
    """
    if missing:
        raise StoreUnavailableError("devices or metrics were deleted while they were registered")


def _no_room(tenant: str, stored: int, most: int) -> Refusal:
    return Refusal(
        Reason.LIMIT_REACHED,
        f"what tenant {tenant} has stored takes about {stored:,} bytes on disk, and its limit is {most:,}. Delete some, keep it for a shorter"
        f" time (sens retention), or raise the limit (sens tenants limits {tenant} --stored-bytes), then replay",
    )


async def _erasures(connection: Connection) -> dict[tuple[int, bytes], int]:
    rows = await connection.fetch(
        "SELECT tenant_id, device_hash, (extract(epoch FROM max(erased_at)) * 1000000)::bigint"
        " FROM sens.erasures GROUP BY tenant_id, device_hash"
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def _find_devices(connection: Connection, keys: Collection[DeviceKey]) -> dict[DeviceKey, int]:
    rows = await connection.fetch(
        "SELECT d.id, d.tenant_id, d.name FROM unnest($1::int[], $2::text[]) AS wanted (tenant_id, name)"
        " JOIN sens.devices d USING (tenant_id, name)",
        [tenant_id for tenant_id, _ in keys],
        [name for _, name in keys],
    )
    return {(row["tenant_id"], row["name"]): row["id"] for row in rows}


async def _find_metrics(connection: Connection, keys: Collection[MetricKey]) -> dict[MetricKey, int]:
    rows = await connection.fetch(
        "SELECT m.tenant_id, m.name, m.kind, m.id FROM unnest($1::int[], $2::text[], $3::text[]) AS wanted (tenant_id, name, kind)"
        " JOIN sens.metrics m USING (tenant_id, name, kind)",
        *_columns(keys),
    )
    return {(row["tenant_id"], row["name"], row["kind"]): row["id"] for row in rows}


def _columns(keys: Collection[MetricKey]) -> tuple[list[int], list[str], list[MetricKind]]:
    return [key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]
