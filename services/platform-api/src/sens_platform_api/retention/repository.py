"""The rules of retention in the database, and what follows from them, by the functions of the migrations 0015 and 0021."""

from datetime import datetime
from typing import NamedTuple

import asyncpg

from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.between_batches import StillStoringError
from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import Connection, Pool, QueryKind, TenantDatabase, transaction
from sens_platform_api.retention.rules import Change, Progress, Retention, Rule, Sizes


class Expired(NamedTuple):
    """What a step has deleted of one tenant.

    Attributes:
        tenant_id: Its id.
        begins: Nothing is deleted yet; partitions may be dropped first.
        values: Values.
        rollups: Aggregates.
        letters: Dead letters.
        finished: Whether nothing is left.
    """

    tenant_id: int
    begins: bool
    values: int
    rollups: int
    letters: int
    finished: bool


class DroppingStep(NamedTuple):
    """What a step has dropped: the partition's or chunk's name, None where it has looked for some only; and whether nothing is left to do."""

    partition: str | None
    finished: bool


class RetentionStatus(NamedTuple):
    """What has come near a limit, or waits.

    Attributes:
        filled: By tenant, how much of its limit of stored bytes is used; of those that have one.
        waiting_since: Since when something that is older than it is kept waits for the rollups; None where nothing does.
    """

    filled: dict[str, float]
    waiting_since: datetime | None


async def of_tenant(connection: Connection, tenant_id: int) -> Retention:
    """Return the rules of the current tenant (``sens.tenant_id``), their progress, and sizes."""
    rules = await connection.fetch(
        """
        SELECT r.kind, d.name AS device, r.metric, r.days
        FROM sens.retention r LEFT JOIN sens.devices d ON d.id = r.device_id
        WHERE r.tenant_id = $1
        ORDER BY array_position(ARRAY['raw', 'rollup_1h', 'rollup_1d', 'dead_letters'], r.kind), d.name NULLS FIRST, r.metric NULLS FIRST
        """,
        tenant_id,
    )
    row = await connection.fetchrow(
        """
        SELECT greatest(t.late_days, t.import_late_days), p.started_at, p.finished_at, coalesce(p."values", 0), coalesce(p.rollups, 0), coalesce(p.letters, 0)
        FROM sens.tenants t LEFT JOIN sens.retention_progress p ON p.tenant_id = t.id
        WHERE t.id = $1
        """,
        tenant_id,
    )
    assert row is not None  # noqa: S101 - for the type checker: the caller has found the tenant
    sizes = await connection.fetchrow("SELECT readings, rollups, letters, measured_at FROM sens.own_sizes()")
    assert sizes is not None  # noqa: S101 - for the type checker: it returns one row in any case
    return Retention([Rule(*rule) for rule in rules], row[0], Progress(*tuple(row)[1:]), Sizes(*sizes))


async def change(
    connection: Connection,
    rule: Rule,
    *,
    forget: bool,
    actor: str = ADMINISTRATOR,
    address: str | None = None,
    request_id: str | None = None,
) -> Change:
    """Set a rule of the current tenant (``sens.tenant_id``), or remove it."""
    try:
        # Within a savepoint: what the answer needs is asked in the same transaction.
        async with connection.transaction():
            return Change(
                await connection.fetchval(
                    "SELECT sens.set_retention($1, $2, $3, $4, $5, $6, $7, $8)",
                    rule.kind,
                    rule.device,
                    rule.metric,
                    rule.days,
                    forget,
                    actor,
                    address,
                    request_id,
                )
            )
    except asyncpg.CheckViolationError as error:
        if error.constraint_name == "late_days_within_retention":
            return Change.SHORTER_THAN_LATE_DAYS
        raise


class TenantRetention:
    """The rules of one tenant, changed in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def show(self) -> Retention:
        """Return the rules and their progress."""
        async with self._database.transaction() as connection:
            return await of_tenant(connection, self._caller.tenant_id)

    async def change(self, rule: Rule, *, forget: bool) -> Change:
        """Set a rule, or remove it."""
        async with self._database.transaction(readonly=False) as connection:
            return await change(
                connection,
                rule,
                forget=forget,
                actor=self._caller.actor,
                address=self._caller.address,
                request_id=self._caller.request_id,
            )


class StoredExpiry:
    """What is older than it is kept, of all tenants."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def step(self, most: int) -> Expired | None:
        """Delete about so many values of one tenant; return None when nothing is to be done now."""
        async with transaction(self._pool, QueryKind.MEASUREMENTS, readonly=False) as connection:
            row = await connection.fetchrow(
                'SELECT tenant_id, begins, "values", rollups, letters, finished FROM sens.continue_retention($1)', most
            )
        return None if row is None else Expired(*row)

    async def expire_frames(self, most: int) -> int:
        """See `service.KeptMessages.expire_frames`."""
        async with transaction(self._pool, QueryKind.MEASUREMENTS, readonly=False) as connection:
            gone: int = await connection.fetchval("SELECT sens.expire_frames($1)", most)
        return gone

    async def measure(self) -> str | None:
        """Estimate what tenants take of a partition or chunk; return its name, None when all are known."""
        async with transaction(self._pool, QueryKind.AGGREGATES, readonly=False) as connection:
            name: str | None = await connection.fetchval("SELECT sens.measure_partition()")
        return name

    async def drop(self, devices: int) -> DroppingStep:
        """See `service.Expiry.drop`."""
        async with transaction(self._pool, QueryKind.MEASUREMENTS, readonly=False) as connection:
            try:
                row = await connection.fetchrow("SELECT partition, finished FROM sens.continue_dropping($1)", devices)
            except asyncpg.LockNotAvailableError as error:
                raise StillStoringError from error
        assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
        return DroppingStep(*row)

    async def status(self) -> RetentionStatus:
        """See `service.Observed.status`."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch("SELECT tenant, filled, waiting_since FROM sens.retention_status()")
        return RetentionStatus(
            {row["tenant"]: row["filled"] for row in rows if row["filled"] is not None},
            min((row["waiting_since"] for row in rows if row["waiting_since"] is not None), default=None),
        )
