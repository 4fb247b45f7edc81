"""Keys: how they are made, and how a request's key is looked up.

A key is ``sens_`` and 43 characters, the base64url form (RFC 4648, section 5) of 32 random bytes. Its SHA-256 is what is stored.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import structlog

from sens_common.errors import SensError
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.database import Connection, NumberTooLargeError
from sens_platform_api.errors import MalformedKeyError, NotFoundError, RefusedError, UnauthenticatedError
from sens_platform_api.keys import repository
from sens_platform_api.keys.repository import Access, Key, KeyOwner
from sens_platform_api.parameters import time_text
from sens_platform_api.tenants import repository as tenants

log = structlog.get_logger()

PREFIX_LENGTH: Final = 12
CACHE_SECONDS: Final = 2.0
"""For how long an answer of the database is believed; a revoked key stops working within this time."""
CACHE_SIZE: Final = 10_000
NOTED_EVERY_SECONDS: Final = 60.0
"""How often the use of a key is stored at most."""

_KEY = re.compile(r"sens_[A-Za-z0-9_-]{43}")
_RANDOM_BYTES = 32
_MAX_ID = 2**31 - 1


def is_key(text: str) -> bool:
    """Tell whether the text has the form of a key."""
    return _KEY.fullmatch(text) is not None


def key_hash(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


class Keys(Protocol):
    """Where keys are stored."""

    async def owner(self, key_hash: bytes) -> KeyOwner | None:
        """Return None when there is no such key, or it was revoked or has expired."""

    async def note_use(self, key_id: int) -> None:
        """Store that the key was used just now."""


class Authenticator:
    """Finds the owner of a key, and remembers it for `CACHE_SECONDS`.

    Only keys that exist are remembered: unknown ones, of which anybody can send as many as they like, take no place. Requests with the
    same key at the same time ask once.
    """

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._cache: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[KeyOwner | None]] = {}

    def is_known(self, key: str) -> bool:
        """Tell whether the key was valid lately; it need not be any more."""
        return key_hash(key) in self._cache

    async def owner(self, key: str) -> KeyOwner:
        """Return the owner of a key.

        Raises:
            MalformedKeyError: It has not the form of a key.
            UnauthenticatedError: There is no such key, or it was revoked or has expired.
        """
        if not is_key(key):
            raise MalformedKeyError("the API key has not the form of one: sens_ and 43 characters")
        hash_ = key_hash(key)
        known = self._cache.get(hash_)
        if known is not None and self._clock() < known.until:
            return known.owner
        asking = self._asking.get(hash_)
        if asking is None:
            asking = asyncio.create_task(self._ask(hash_, known), name="whose key is it")
            self._asking[hash_] = asking
            asking.add_done_callback(lambda task: self._answered(hash_, task))
        owner = await asyncio.shield(asking)  # others may wait for the same answer
        if owner is None:
            raise UnauthenticatedError("the API key is unknown, was revoked or has expired")
        return owner

    async def _ask(self, hash_: bytes, known: "_Known | None") -> KeyOwner | None:
        # The time is taken before the question: the answer is at least as new as that.
        now = self._clock()
        owner = await self._keys.owner(hash_)
        if owner is None:
            self._cache.pop(hash_, None)
            return None
        noted = known.noted if known is not None else None
        if noted is None or now - noted >= NOTED_EVERY_SECONDS:
            noted = now
            await self._note(owner)
        self._cache[hash_] = _Known(owner, now + CACHE_SECONDS, noted)
        self._cache.move_to_end(hash_)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return owner

    def _answered(self, hash_: bytes, task: "asyncio.Task[KeyOwner | None]") -> None:
        del self._asking[hash_]
        if not task.cancelled():
            task.exception()  # whoever waits has it; that nobody does is no fault

    async def _note(self, owner: KeyOwner) -> None:
        try:
            await self._keys.note_use(owner.key_id)
        except (SensError, NumberTooLargeError) as error:  # a database that can only be read still answers
            log.warning("the use of a key can't be stored", key=owner.key_id, error=str(error))


class _Known(NamedTuple):
    """A key that is valid: until when that is believed, and when its use was stored."""

    owner: KeyOwner
    until: float
    noted: float


async def create(
    connection: Connection,
    *,
    tenant: str,
    name: str,
    access: Access = "read_write",
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Make a key of a tenant; return what is stored of it, and the key itself, which can't be shown again.

    Raises:
        NotFoundError: There is no such tenant.
    """
    owner = await tenants.find(connection, tenant)
    key = f"sens_{secrets.token_urlsafe(_RANDOM_BYTES)}"
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
