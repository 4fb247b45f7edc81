"""API keys in the database: only their hashes are stored."""

from datetime import datetime
from typing import NamedTuple

from sens_platform_api.database import Connection, Pool, transaction


class Key(NamedTuple):
    """What is known of a key once it was shown."""

    id: int
    tenant: str
    name: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


class KeyOwner(NamedTuple):
    """Whose request this is."""

    key_id: int
    tenant_id: int
    tenant: str


_SELECT = """
    SELECT k.id, t.name AS tenant, k.name, k.prefix, k.created_at, k.revoked_at
    FROM sens.api_keys k JOIN sens.tenants t ON t.id = k.tenant_id
"""


async def authenticate(connection: Connection, key_hash: bytes) -> KeyOwner | None:
    """Return the owner of the key with this hash, None when there is no such key or it was revoked."""
    row = await connection.fetchrow("SELECT key_id, tenant_id, tenant FROM sens.authenticate($1)", key_hash)
    return None if row is None else KeyOwner(*row)


class OwnersOfKeys:
    """Asks the database whose key it is, as the API's role."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, key_hash: bytes) -> KeyOwner | None:
        """Return None when there is no such key or it was revoked."""
        async with transaction(self._pool) as connection:
            return await authenticate(connection, key_hash)


async def insert(connection: Connection, *, tenant_id: int, name: str, prefix: str, key_hash: bytes) -> Key:
    """Store a new key (as the owning role)."""
    key_id = await connection.fetchval(
        "INSERT INTO sens.api_keys (tenant_id, name, prefix, hash) VALUES ($1, $2, $3, $4) RETURNING id",
        tenant_id,
        name,
        prefix,
        key_hash,
    )
    row = await connection.fetchrow(_SELECT + "WHERE k.id = $1", key_id)
    assert row is not None  # noqa: S101 - for the type checker: it was inserted just now
    return Key(*row)


async def list_all(connection: Connection, tenant_id: int | None) -> list[Key]:
    """Return all keys, or those of one tenant (as the owning role)."""
    rows = await connection.fetch(
        _SELECT + "WHERE $1::int IS NULL OR k.tenant_id = $1 ORDER BY t.name, k.id",
        tenant_id,
    )
    return [Key(*row) for row in rows]


async def find(connection: Connection, *, key_id: int | None, prefix: str | None) -> list[Key]:
    """Return the keys with this id or this prefix (as the owning role)."""
    rows = await connection.fetch(_SELECT + "WHERE k.id = $1 OR k.prefix = $2 ORDER BY k.id", key_id, prefix)
    return [Key(*row) for row in rows]


async def revoke(connection: Connection, key_id: int) -> Key:
    """Revoke a key; a revoked one stays as it is (as the owning role)."""
    await connection.execute(
        "UPDATE sens.api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL",
        key_id,
    )
    row = await connection.fetchrow(_SELECT + "WHERE k.id = $1", key_id)
    assert row is not None  # noqa: S101 - for the type checker: the caller has found it
    return Key(*row)
