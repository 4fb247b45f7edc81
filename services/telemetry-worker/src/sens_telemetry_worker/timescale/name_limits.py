"""How many names a tenant may still register: its limit, and how fast new ones may come.

All of it happens in the transaction that registers names, behind the tenant's row in ``sens.registrations``, so that the limits hold for all
workers together.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from sens_common.database import Connection
from sens_common.dead_letters import Reason
from sens_common.names import shown
from sens_telemetry_worker.tenants import Refusal

type NameTable = Literal["devices", "metrics"]
"""The tables of names; columns of ``sens.registrations`` have the same names."""

_THIS_HOUR: Final = "date_trunc('hour', now(), 'UTC')"


class NameLimits(NamedTuple):
    """How many names a tenant may have, and how many more of them may come within an hour of the clock."""

    total: int
    per_hour: int


@dataclass(slots=True)
class Allowance:
    """How many names of a table a tenant has, how many came in this hour, and its limits."""

    tenant: str
    table: NameTable
    limits: NameLimits
    total: int
    this_hour: int
    hour: datetime

    @property
    def left(self) -> int:
        """How many names may be registered now."""
        return max(0, min(self.limits.total - self.total, self.limits.per_hour - self.this_hour))

    @property
    def is_full(self) -> bool:
        """Whether the tenant has all that its limit allows, however slowly they came."""
        return self.total >= self.limits.total

    def take(self, count: int) -> None:
        """Use some of what is left."""
        self.total += count
        self.this_hour += count

    def refusal(self, name: str, count: int) -> Refusal:
        """Say why a message is refused that has so many new names, of which this is one."""
        what = f"{shown(name)} is new" if count == 1 else f"{shown(name)} and {count - 1:,} more are new"
        option = f"sens tenants limits {self.tenant}"
        if self.limits.total - self.total < count:
            return Refusal(
                Reason.LIMIT_REACHED,
                f"tenant {self.tenant} has {self.total:,} {self.table}, and its limit is {self.limits.total:,}; {what}."
                f" Delete some, or raise the limit ({option} --{self.table}), then replay",
            )
        next_hour = (self.hour + timedelta(hours=1)).astimezone(UTC)
        return Refusal(
            Reason.TOO_MANY_NEW_NAMES,
            f"tenant {self.tenant} has registered {self.this_hour:,} {self.table} within this hour, and its limit is"
            f" {self.limits.per_hour:,} an hour; {what}. Replay after {next_hour:%H:%M} UTC, or raise the limit first ({option}"
            f" --new-{self.table}-per-hour)",
        )


async def lock_allowances(
    connection: Connection, tenants: dict[int, tuple[str, NameLimits]], table: NameTable, recounted: Collection[int]
) -> dict[int, Allowance]:
    """Lock the tenants' rows until the end of the transaction, in the order of their ids; return their allowances.

    Args:
        connection: In a transaction.
        tenants: Their names and limits by their ids.
        table: Of the names that are to be registered.
        recounted: Tenants whose names are counted again, if they have reached their limit.
    """
    ids = sorted(tenants)
    select = (
        f"SELECT tenant_id, {table}, CASE WHEN hour = {_THIS_HOUR} THEN new_{table} ELSE 0 END, {_THIS_HOUR}"  # noqa: S608 - constants
        " FROM sens.registrations WHERE tenant_id = ANY ($1) ORDER BY tenant_id FOR UPDATE"
    )
    rows = await connection.fetch(select, ids)
    if len(rows) < len(ids):  # a tenant's first names
        await connection.execute(
            "INSERT INTO sens.registrations (tenant_id, devices, metrics)"
            " SELECT t.id, (SELECT count(*) FROM sens.devices d WHERE d.tenant_id = t.id),"
            " (SELECT count(*) FROM sens.metrics m WHERE m.tenant_id = t.id)"
            " FROM sens.tenants t WHERE t.id = ANY ($1) ORDER BY t.id ON CONFLICT DO NOTHING",
            ids,
        )
        rows = await connection.fetch(select, ids)
    found = {}
    for tenant_id, total, this_hour, hour in rows:
        name, limits = tenants[tenant_id]
        allowance = found[tenant_id] = Allowance(name, table, limits, total, this_hour, hour)
        if allowance.is_full and tenant_id in recounted:
            allowance.total = await connection.fetchval(
                f"UPDATE sens.registrations SET {table} = (SELECT count(*) FROM sens.{table} WHERE tenant_id = $1)"  # noqa: S608 - same
                f" WHERE tenant_id = $1 RETURNING {table}",
                tenant_id,
            )
    return found


async def note_registered(connection: Connection, created: Counter[int], table: NameTable) -> None:
    """Count what was registered, by tenant."""
    if not created:
        return
    other: NameTable = "metrics" if table == "devices" else "devices"
    await connection.execute(
        f"UPDATE sens.registrations r SET {table} = r.{table} + c.names, hour = {_THIS_HOUR},"  # noqa: S608 - same
        f" new_{table} = CASE WHEN hour = {_THIS_HOUR} THEN r.new_{table} ELSE 0 END + c.names,"
        f" new_{other} = CASE WHEN hour = {_THIS_HOUR} THEN r.new_{other} ELSE 0 END"
        " FROM unnest($1::int[], $2::int[]) AS c (tenant_id, names) WHERE r.tenant_id = c.tenant_id",
        list(created),
        list(created.values()),
    )
