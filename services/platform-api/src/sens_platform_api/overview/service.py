"""What a tenant has, in numbers."""

from sens_platform_api.database import Pool, tenant_transaction
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.overview import repository
from sens_platform_api.overview.repository import Overview


async def overview(pool: Pool, owner: KeyOwner) -> Overview:
    """Return a tenant's numbers."""
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        return await repository.overview(connection)
