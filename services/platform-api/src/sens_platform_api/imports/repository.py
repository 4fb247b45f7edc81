"""What an import asks the database."""

from sens_payloads.sources import Source
from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import TenantDatabase
from sens_platform_api.sources.repository import TenantSources


class ImportingTenant:
    """The tenant that imports, and its sources."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._sources = TenantSources(database, caller)

    async def late_days(self) -> int:
        """Return how many days before their receipt readings may lie."""
        async with self._database.transaction() as connection:
            days: int = await connection.fetchval(
                "SELECT late_days FROM sens.tenants WHERE id = sens.current_tenant_id()"
            )
        return days

    async def source(self, name: str) -> Source | None:
        """Return a source, None when the tenant has none with this name; raise `SettingsError` where it can't be used."""
        return await self._sources.compiled(name)
