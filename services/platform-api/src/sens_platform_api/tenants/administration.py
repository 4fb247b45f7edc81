"""Tenants as an administrator makes and limits them; every change is in the audit."""

from collections.abc import Mapping
from typing import NamedTuple

from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.errors import AlreadyExistsError, LimitsContradictError
from sens_platform_api.postgresql import Connection
from sens_platform_api.tenants import repository
from sens_platform_api.tenants.limits import Limit
from sens_platform_api.tenants.repository import Tenant


class LimitsOfTenant(NamedTuple):
    """What a tenant may have and send.

    Attributes:
        tenant: Its name.
        limits: By name; None where there is no limit.
        used: How much of them is used, where that is counted.
        changed: The names of those that were changed just now.
    """

    tenant: str
    limits: dict[str, int | None]
    used: dict[str, int]
    changed: list[str]


async def create(connection: Connection, name: str, *, if_missing: bool) -> tuple[Tenant, bool]:
    """Make a tenant; return it, and whether it was made now.

    Raises:
        AlreadyExistsError: There is one with this name, and `if_missing` does not say that this is fine.
    """
    try:
        tenant = await repository.create(connection, name)
    except AlreadyExistsError:
        if not if_missing:
            raise
        return await repository.find(connection, name), False
    await audit.record(
        connection,
        tenant_id=tenant.id,
        actor=ADMINISTRATOR,
        action="tenant.created",
        subject=f"tenant {tenant.name}",
    )
    return tenant, True


async def delete(connection: Connection, name: str) -> int:
    """Delete a tenant; return how many devices it had, whose readings go in steps.

    Raises:
        NotFoundError: There is no such tenant.
        UnavailableError: Messages are being stored all the time.
    """
    await repository.find(connection, name)
    return await repository.delete(connection, name, ADMINISTRATOR)


async def rename(connection: Connection, name: str, new_name: str) -> None:
    """Give a tenant another name.

    Raises:
        NotFoundError: There is no such tenant.
        AlreadyExistsError: There is one with the new name.
        UnavailableError: Messages are being stored all the time.
    """
    await repository.find(connection, name)
    await repository.rename(connection, name, new_name, ADMINISTRATOR)


async def change_limits(connection: Connection, name: str, changes: Mapping[Limit, int | None]) -> LimitsOfTenant:
    """Change some of a tenant's limits, or none; return all of them.

    Raises:
        NotFoundError: There is no such tenant.
        LimitsContradictError: Readings would be kept for a shorter time than they may lie back.
    """
    tenant = await repository.find(connection, name)
    before = await repository.limits(connection, tenant.id, lock=bool(changes))
    changed = {limit.name: value for limit, value in changes.items() if before[limit.name] != value}
    if changed:
        kept = await repository.shortest_raw_retention(connection, tenant.id)
        late = max(changed.get(each) or 0 for each in ("late_days", "import_late_days"))
        if kept is not None and late > kept:
            raise LimitsContradictError.of_retention(late, kept)
        await repository.set_limits(connection, tenant.id, changes)
        await audit.record(
            connection,
            tenant_id=tenant.id,
            actor=ADMINISTRATOR,
            action="tenant.limits_changed",
            subject=f"tenant {tenant.name}",
            details={limit: {"before": before[limit], "after": value} for limit, value in changed.items()},
        )
    limits = await repository.limits(connection, tenant.id)
    return LimitsOfTenant(tenant.name, limits, await repository.usage(connection, tenant.id), sorted(changed))
