"""What the worker knows of tenants, devices and metrics, as `routing.Registry`."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from sens_telemetry_worker import metrics
from sens_telemetry_worker.columns import Kind, NewNames, Refusal, Tenant
from sens_telemetry_worker.routing import Known, Registered
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.timescale.database import Connection, Database
from sens_telemetry_worker.timescale.rooms import Limits, Noun, Room, note_registered, rooms

type DeviceKey = tuple[int, str]
"""Number of the tenant, name."""
type MetricKey = tuple[int, str, Kind]

REFRESH_SECONDS: Final = 5.0
"""A change of a tenant's limits is known within this time of the next message."""
_RECOUNT_SECONDS: Final = 60.0
"""A tenant that has reached a limit has its names counted again no more often than this: somebody may have deleted some by hand."""
_DAY_MICROSECONDS: Final = 86_400_000_000


class TimescaleRegistry:
    """Tenants, devices and metrics, as `routing.Registry`."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: Known | None = None
        self._tenant_generation = 0
        self._refresh_at = 0.0
        self._limits: dict[Noun, dict[int, Limits]] = {"devices": {}, "metrics": {}}
        self._recount_at: dict[tuple[int, Noun], float] = {}

    async def known(self, tenants: Collection[str] = ()) -> Known:
        """See `routing.Registry.known`."""
        known = self._known
        if known is None or self._outdated(known) or any(name not in known.tenants for name in tenants):
            async with self._lock:
                known = await self._refreshed()
        return known

    def _outdated(self, known: Known) -> bool:
        return self._clock() >= self._refresh_at or self._database.name_generation > known.generation

    async def _refreshed(self) -> Known:
        """Ask what has changed; all tenants are known then, so that a name that is not among them is no tenant's."""
        refresh_at = self._clock() + REFRESH_SECONDS
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT (SELECT generation FROM sens.name_generation), (SELECT generation FROM sens.tenant_generation)"
            )
            assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
            name_generation, tenant_generation = row
            known = self._known
            if known is None or known.generation != name_generation:
                # Ids may be gone. Batches that are being routed go on with what they have, and are refused when they are stored.
                known = Known(name_generation)
                self._tenant_generation = 0
            if self._tenant_generation != tenant_generation:
                rows = await connection.fetch(
                    "SELECT id, name, device_limit, new_devices_per_hour, metric_limit, new_metrics_per_hour, late_days"
                    " FROM sens.tenants"
                )
                ids = {row["name"]: row["id"] for row in rows}
                if any(ids.get(name) != tenant.id for name, tenant in known.tenants.items()):  # a tenant was deleted
                    known = Known(name_generation)
                for id_, name, devices, new_devices, measured, new_metrics, late_days in rows:
                    tenant = known.tenants.setdefault(name, Tenant(id_, name))
                    tenant.late_microseconds = late_days * _DAY_MICROSECONDS
                    self._limits["devices"][id_] = Limits(devices, new_devices)
                    self._limits["metrics"][id_] = Limits(measured, new_metrics)
                self._tenant_generation = tenant_generation
        self._known, self._refresh_at = known, refresh_at
        return known

    async def devices(self, wanted: Iterable[tuple[Tenant, str]]) -> Registered:
        """See `routing.Registry.devices`."""
        tenants: dict[int, Tenant] = {}
        names: set[DeviceKey] = set()
        for tenant, name in wanted:
            tenants[tenant.id] = tenant
            names.add((tenant.id, name))
        refused: dict[DeviceKey, Refusal] = {}
        async with self._lock, self._database.connection() as connection:
            ids = await _find_devices(connection, names)
            if missing := names - ids.keys():
                async with connection.transaction():
                    left = await self._rooms(connection, [tenants[each[0]] for each in missing], "devices")
                    allowed = []
                    for key in sorted(missing):
                        room = left[key[0]]
                        if room.left:
                            room.take(1)
                            allowed.append(key)
                        else:
                            refused[key] = room.refusal(key[1], 1)
                    created = await connection.fetch(
                        "INSERT INTO sens.devices (tenant_id, name) SELECT * FROM unnest($1::int[], $2::text[])"
                        " ON CONFLICT DO NOTHING RETURNING tenant_id",
                        [tenant_id for tenant_id, _ in allowed],
                        [name for _, name in allowed],
                    )
                    await note_registered(connection, Counter(row["tenant_id"] for row in created), "devices")
                metrics.DEVICES.inc(len(created))
                # Another worker may have registered some meanwhile, also of those that are refused.
                ids |= await _find_devices(connection, missing)
        _nothing_is_gone(names - ids.keys() - refused.keys())
        return Registered(ids, {key: refusal for key, refusal in refused.items() if key not in ids})

    async def metrics(self, wanted: Sequence[NewNames]) -> dict[MetricKey, Refusal]:
        """See `routing.Registry.metrics`."""
        tenants = {new.tenant.id: new.tenant for new in wanted}
        keys = {(new.tenant.id, name, kind) for new in wanted for name, kind in new.names}
        refused: dict[MetricKey, Refusal] = {}
        async with self._lock, self._database.connection() as connection:
            missing = keys - await _fill_metrics(connection, tenants, keys)
            if missing:
                async with connection.transaction():
                    left = await self._rooms(connection, [tenants[each[0]] for each in missing], "metrics")
                    allowed: set[MetricKey] = set()
                    for tenant, names in wanted:
                        more = ({(tenant.id, name, kind) for name, kind in names} & missing) - allowed
                        room = left[tenant.id] if more else None
                        if room is None:
                            continue
                        if len(more) <= room.left:
                            room.take(len(more))
                            allowed |= more
                        else:
                            refused |= {key: room.refusal(min(more)[1], len(more)) for key in more}
                    created = await connection.fetch(
                        "INSERT INTO sens.metrics (tenant_id, name, kind)"
                        " SELECT * FROM unnest($1::int[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING RETURNING tenant_id",
                        *_columns(sorted(allowed)),
                    )
                    await note_registered(connection, Counter(row["tenant_id"] for row in created), "metrics")
                missing -= await _fill_metrics(connection, tenants, missing)
        _nothing_is_gone(missing - refused.keys())
        return {key: refusal for key, refusal in refused.items() if key in missing}

    async def _rooms(self, connection: Connection, tenants: Iterable[Tenant], noun: Noun) -> dict[int, Room]:
        now = self._clock()
        named = {tenant.id: (tenant.name, self._limits[noun][tenant.id]) for tenant in tenants}
        recounted = {id_ for id_ in named if now >= self._recount_at.get((id_, noun), 0)}
        left = await rooms(connection, named, noun, recounted)
        self._recount_at |= {(id_, noun): now + _RECOUNT_SECONDS for id_ in recounted if left[id_].is_full}
        return left


def _nothing_is_gone(names: Collection[object]) -> None:
    if names:
        raise StoreUnavailableError("devices or metrics were deleted while they were registered")


async def _find_devices(connection: Connection, keys: Collection[DeviceKey]) -> dict[DeviceKey, int]:
    rows = await connection.fetch(
        "SELECT d.id, d.tenant_id, d.name FROM unnest($1::int[], $2::text[]) AS wanted (tenant_id, name)"
        " JOIN sens.devices d USING (tenant_id, name)",
        [tenant_id for tenant_id, _ in keys],
        [name for _, name in keys],
    )
    return {(row["tenant_id"], row["name"]): row["id"] for row in rows}


async def _fill_metrics(
    connection: Connection, tenants: Mapping[int, Tenant], keys: Collection[MetricKey]
) -> set[MetricKey]:
    """Fill in the numbers of those metrics that there are; return these."""
    rows = await connection.fetch(
        "SELECT m.tenant_id, m.name, m.kind, m.id FROM unnest($1::int[], $2::text[], $3::text[]) AS wanted (tenant_id, name, kind)"
        " JOIN sens.metrics m USING (tenant_id, name, kind)",
        *_columns(keys),
    )
    found = set()
    for tenant_id, name, kind, id_ in rows:
        tenants[tenant_id].metric_ids[kind][name] = id_
        found.add((tenant_id, name, kind))
    return found


def _columns(keys: Collection[MetricKey]) -> tuple[list[int], list[str], list[Kind]]:
    return [key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]
