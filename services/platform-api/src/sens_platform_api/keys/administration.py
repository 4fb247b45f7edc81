"""Keys as an administrator makes and revokes them (as the owning role); every change is in the audit."""

from datetime import datetime

from sens_common.keys import PREFIX_LENGTH, key_hash, new_key
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.caller import Access
from sens_platform_api.errors import NotFoundError, RefusedError
from sens_platform_api.ingest_keys import repository as ingest_keys
from sens_platform_api.ingest_keys import service as ingest_service
from sens_platform_api.ingest_keys.repository import IngestKey
from sens_platform_api.keys import repository
from sens_platform_api.keys.repository import Key
from sens_platform_api.parameters import time_text
from sens_platform_api.postgresql import Connection
from sens_platform_api.tenants import repository as tenants

_MAX_ID = 2**31 - 1


async def create(
    connection: Connection,
    *,
    tenant: str,
    name: str,
    access: Access = "read_write",
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Make a key of a tenant; return its row, and the key itself, which can't be shown again.

    Raises:
        NotFoundError: There is no such tenant.
    """
    owner = await tenants.find(connection, tenant)
    key = new_key()
    stored = await repository.insert(
        connection,
        tenant_id=owner.id,
        name=name,
        prefix=key[:PREFIX_LENGTH],
        key_hash=key_hash(key),
        access=access,
        expires_at=expires_at,
    )
    await audit.record(
        connection,
        tenant_id=owner.id,
        actor=ADMINISTRATOR,
        action="key.created",
        subject=f"key {stored.id} ({stored.name})",
        details={"access": access, "expires_at": None if expires_at is None else time_text(expires_at)},
    )
    return stored, key


async def create_for_ingestion(
    connection: Connection, *, tenant: str, wanted: ingest_service.Wanted
) -> tuple[IngestKey, str]:
    """Make an ingest key of a tenant; return its row, and the key itself, which can't be shown again.

    Raises:
        NotFoundError: There is no such tenant.
        InvalidRequestError: The source or the device is wrong.
        TooManyError: The tenant has too many.
    """
    owner = await tenants.find(connection, tenant)
    await ingest_keys.in_tenant(connection, owner.id)
    new, key = ingest_service.made(wanted)
    key_id = ingest_service.number_of(await ingest_keys.create(connection, new, ADMINISTRATOR), wanted.source)
    [stored] = await ingest_keys.find(connection, key_id=key_id, prefix=None)
    return stored, key


async def revoke(connection: Connection, which: str) -> Key | IngestKey:
    """Revoke a key of either kind, named by its number or by its first characters (or the whole key).

    Raises:
        NotFoundError: There is no such key.
        RefusedError: Several keys begin like this.
    """
    key_id = int(which) if which.isascii() and which.isdigit() and int(which) <= _MAX_ID else None
    prefix = which[:PREFIX_LENGTH]
    found: list[Key | IngestKey] = [
        *await repository.find(connection, key_id=key_id, prefix=prefix),
        *await ingest_keys.find(connection, key_id=key_id, prefix=prefix),
    ]
    if not found:
        raise NotFoundError(
            "there is no such key; keys list shows the numbers and first characters of those that exist"
        )
    if len(found) > 1:
        numbers = ", ".join(str(key.id) for key in found)
        raise RefusedError(f"several keys begin like this, numbers {numbers}; revoke by number")
    key = found[0]
    if isinstance(key, IngestKey):
        await ingest_keys.in_tenant(connection, (await tenants.find(connection, key.tenant)).id)
        await ingest_keys.revoke(connection, key.id, ADMINISTRATOR)
        [after] = await ingest_keys.find(connection, key_id=key.id, prefix=None)
        return after
    revoked = await repository.revoke(connection, key.id)
    if key.revoked_at is None:
        owner = await tenants.find(connection, key.tenant)
        await audit.record(
            connection,
            tenant_id=owner.id,
            actor=ADMINISTRATOR,
            action="key.revoked",
            subject=f"key {key.id} ({key.name})",
        )
    return revoked
