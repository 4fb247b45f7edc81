"""Ingest keys in the database, changed by the functions of migration 0022: only their hashes are stored."""

from datetime import datetime
from typing import Final, Literal, NamedTuple

from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import Connection, TenantDatabase


class IngestKey(NamedTuple):
    """A key without the text that is its secret.

    Attributes:
        id: Its number; API keys have others.
        tenant: Whose it is.
        name: What it is for.
        prefix: Its first characters.
        source: The source that it is for, None for the native topics.
        device: The one device that it is for, None for any.
        created_at: When it was made.
        expires_at: None for never.
        revoked_at: None while it holds.
    """

    id: int
    tenant: str
    name: str
    prefix: str
    source: str | None
    device: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def scope(self) -> str:
        """What it may do, for people."""
        where = "the native topics" if self.source is None else f"source {self.source}"
        return f"ingest to {where}{f', device {self.device}' if self.device else ''}"

    def state(self, now: datetime) -> Literal["valid", "revoked", "expired"]:
        """Tell whether it works at a time."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


class NewKey(NamedTuple):
    """A key that is to be made.

    Attributes:
        name: What it is for.
        source: See `IngestKey`.
        device: See `IngestKey`.
        prefix: Its first characters.
        key_hash: Its hash.
        expires_at: None for never.
    """

    name: str
    source: str | None
    device: str | None
    prefix: str
    key_hash: bytes
    expires_at: datetime | None


class Created(NamedTuple):
    """What became of a new key.

    Attributes:
        outcome: ``created``, ``unknown_source``, ``wrong_source``: it does not take HTTP, or ``too_many``.
        key_id: Its number, None where there is none.
    """

    outcome: str
    key_id: int | None


_SELECT: Final = """
    SELECT k.id, t.name AS tenant, k.name, k.prefix, s.name AS source, k.device, k.created_at, k.expires_at, k.revoked_at
    FROM sens.ingest_keys k JOIN sens.tenants t ON t.id = k.tenant_id LEFT JOIN sens.sources s ON s.id = k.source_id
"""


class TenantIngestKeys:
    """The ingest keys of one tenant, changed in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def by_id(self, *, after: int, limit: int) -> list[IngestKey]:
        """Return keys by number: those after one."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SELECT + "WHERE k.id > $1 ORDER BY k.id LIMIT $2", after, limit)
        return [IngestKey(*row) for row in rows]

    async def get(self, key_id: int) -> IngestKey | None:
        """Return a key, None when the tenant has none with this number."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SELECT + "WHERE k.id = $1", key_id)
        return None if row is None else IngestKey(*row)

    async def create(self, key: NewKey) -> Created:
        """Store a new key."""
        caller = self._caller
        async with self._database.transaction(readonly=False) as connection:
            return await create(connection, key, caller.actor, address=caller.address, request_id=caller.request_id)

    async def revoke(self, key_id: int) -> str:
        """Revoke a key; return ``revoked``, ``unchanged``, or ``unknown``."""
        caller = self._caller
        async with self._database.transaction(readonly=False) as connection:
            return await revoke(connection, key_id, caller.actor, address=caller.address, request_id=caller.request_id)


async def create(
    connection: Connection, key: NewKey, actor: str, *, address: str | None = None, request_id: str | None = None
) -> Created:
    """Store a new key of the transaction's tenant."""
    row = await connection.fetchrow(
        "SELECT outcome, id FROM sens.create_ingest_key($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key.source,
        key.device,
        key.name,
        key.prefix,
        key.key_hash,
        key.expires_at,
        actor,
        address,
        request_id,
    )
    assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
    return Created(*row)


async def revoke(
    connection: Connection, key_id: int, actor: str, *, address: str | None = None, request_id: str | None = None
) -> str:
    """Revoke a key of the transaction's tenant; return ``revoked``, ``unchanged``, or ``unknown``."""
    outcome: str = await connection.fetchval(
        "SELECT sens.revoke_ingest_key($1, $2, $3, $4)", key_id, actor, address, request_id
    )
    return outcome


async def in_tenant(connection: Connection, tenant_id: int) -> None:
    """Let the rest of the transaction be about one tenant (as the owning role)."""
    await connection.execute("SELECT set_config('sens.tenant_id', $1, true)", str(tenant_id))


async def list_all(connection: Connection, tenant_id: int | None) -> list[IngestKey]:
    """Return all keys, or those of one tenant (as the owning role)."""
    rows = await connection.fetch(
        _SELECT + "WHERE ($1::int IS NULL OR k.tenant_id = $1) AND t.deleted_at IS NULL ORDER BY t.name, k.id",
        tenant_id,
    )
    return [IngestKey(*row) for row in rows]


async def find(connection: Connection, *, key_id: int | None, prefix: str | None) -> list[IngestKey]:
    """Return the keys with this number or this prefix (as the owning role)."""
    rows = await connection.fetch(_SELECT + "WHERE k.id = $1 OR k.prefix = $2 ORDER BY k.id", key_id, prefix)
    return [IngestKey(*row) for row in rows]
