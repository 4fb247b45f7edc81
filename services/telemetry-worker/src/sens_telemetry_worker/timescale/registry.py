"""What the worker knows of tenants, devices and metrics, as `routing.Registry`."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from sens_telemetry_worker import metrics
from sens_telemetry_worker.columns import Kind, Tenant
from sens_telemetry_worker.timescale.database import Connection, Database


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
