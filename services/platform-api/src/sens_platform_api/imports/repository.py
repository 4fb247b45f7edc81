"""What an import asks the database."""

from sens_payloads.sources import Source
from sens_platform_api.caller import Caller
from sens_platform_api.errors import NotFoundError
from sens_platform_api.imports.lines import Bounds
from sens_platform_api.postgresql import TenantDatabase
from sens_platform_api.sources.repository import TenantSources


class ImportingTenant:
    """The tenant that imports, and its sources."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._sources = TenantSources(database, caller)

    async def bounds(self) -> Bounds:
        """Return what holds for its imports."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT greatest(late_days, import_late_days), messages_per_second FROM sens.tenants WHERE id = sens.current_tenant_id()"
            )
        if row is None:
            raise NotFoundError("the tenant was deleted")
        return Bounds(*row)

    async def source(self, name: str) -> Source | None:
        """Return a source, None when the tenant has none with this name; raise `SettingsError` where it can't be used."""
        return await self._sources.compiled(name)
