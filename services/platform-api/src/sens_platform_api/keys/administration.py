"""Keys as an administrator makes and revokes them (as the owning role); every change is in the audit."""

from datetime import datetime

from sens_common.keys import PREFIX_LENGTH, key_hash, new_key
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.caller import Access
from sens_platform_api.errors import NotFoundError, RefusedError
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


async def revoke(connection: Connection, which: str) -> Key:
    """Revoke a key, named by its number or by its first characters (or the whole key).

    Raises:
        NotFoundError: There is no such key.
        RefusedError: Several keys begin like this.
    """
    key_id = int(which) if which.isascii() and which.isdigit() and int(which) <= _MAX_ID else None
    found = await repository.find(connection, key_id=key_id, prefix=which[:PREFIX_LENGTH])
    if not found:
        raise NotFoundError(
            "there is no such key; keys list shows the numbers and first characters of those that exist"
        )
    if len(found) > 1:
        numbers = ", ".join(str(key.id) for key in found)
        raise RefusedError(f"several keys begin like this, numbers {numbers}; revoke by number")
    key = found[0]
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
