"""API keys in the database: only their hashes are stored."""

from datetime import datetime
from typing import Literal, NamedTuple

from sens_platform_api.caller import Access, Caller
from sens_platform_api.postgresql import Connection, Pool, transaction


class Key(NamedTuple):
    """A key without the text that is its secret."""

    id: int
    tenant: str
    name: str
    prefix: str
    access: Access
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> Literal["valid", "revoked", "expired"]:
        """Tell whether it works at a time."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


_SELECT = """
    SELECT k.id, t.name AS tenant, k.name, k.prefix, k.access, k.created_at, k.expires_at, k.last_used_at, k.revoked_at
    FROM sens.api_keys k JOIN sens.tenants t ON t.id = k.tenant_id
"""


class StoredKeys:
    """The stored keys, as the API's role sees them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def caller(self, key_hash: bytes) -> Caller | None:
        """Return None when there is no such key, or it was revoked or has expired."""
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow(
                "SELECT key_id, tenant_id, tenant, key_name, access FROM sens.authenticate($1)", key_hash
            )
        return None if row is None else Caller(*row)

    async def note_use(self, key_id: int) -> None:
        """Store that the key was used just now; the database keeps the time of one use a minute."""
        async with transaction(self._pool, readonly=False) as connection:
            await connection.execute("SELECT sens.note_key_use($1)", key_id)


async def insert(
    connection: Connection,
    *,
    tenant_id: int,
    name: str,
    prefix: str,
    key_hash: bytes,
    access: Access,
    expires_at: datetime | None,
) -> Key:
    """Store a new key (as the owning role)."""
    key_id = await connection.fetchval(
        """
        INSERT INTO sens.api_keys (tenant_id, name, prefix, hash, access, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING id
        """,
        tenant_id,
        name,
        prefix,
        key_hash,
        access,
        expires_at,
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
