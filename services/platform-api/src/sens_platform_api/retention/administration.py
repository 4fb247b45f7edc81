"""Retention as an administrator shows and changes it (as the owning role); every change is in the audit."""

from sens_platform_api.parameters import canonical_device
from sens_platform_api.postgresql import Connection
from sens_platform_api.retention import repository
from sens_platform_api.retention.rules import Retention, Rule
from sens_platform_api.retention.service import check
from sens_platform_api.tenants import repository as tenants


async def show(connection: Connection, tenant: str) -> Retention:
    """Return a tenant's rules and their progress.

    Raises:
        NotFoundError: There is no such tenant.
    """
    found = await tenants.find(connection, tenant)
    await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(found.id))
    return await repository.of_tenant(connection, found.id)


async def change(connection: Connection, tenant: str, rule: Rule, *, forget: bool = False) -> Retention:
    """Set a rule of a tenant, or remove it; return all of them.

    Raises:
        NotFoundError: There is no such tenant or device.
        LimitsContradictError: Readings would be kept for a shorter time than they may lie back.
    """
    found = await tenants.find(connection, tenant)
    if rule.device is not None:
        rule = rule._replace(device=canonical_device(rule.device))
    await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(found.id))
    before = await repository.of_tenant(connection, found.id)
    check(await repository.change(connection, rule, forget=forget), rule, before.late_days)
    return await repository.of_tenant(connection, found.id)
