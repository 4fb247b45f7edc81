"""The readiness checks of the database."""

from sens_common.migrations import REQUIRED_VERSION
from sens_common.privileges import shortcomings
from sens_platform_api.postgresql import Pool, transaction


async def database_problem(pool: Pool) -> str | None:
    """Return the problem with the database, None when it answers."""
    async with transaction(pool) as connection:
        await connection.fetchval("SELECT 1")
    return None


async def schema_problem(pool: Pool) -> str | None:
    """Return the problem with the schema's version, None when this code can work with it."""
    async with transaction(pool) as connection:
        version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM sens.schema_migrations")
    if version < REQUIRED_VERSION:
        return f"the schema has version {version}, {REQUIRED_VERSION} is needed; run the migrations (sens migrate)"
    return None


async def roles_note(pool: Pool) -> str | None:
    """Return the rights of the API's session that it does not need, None when it has a login of its own."""
    async with transaction(pool) as connection:
        found = await shortcomings(connection, "SENS_API_LOGIN__PASSWORD", "postgres-api-password")
    return "; ".join(found) or None
