"""Keys: how they are made, and how a request's key is looked up.

A key is ``sens_`` and 43 characters, the base64url form (RFC 4648, section 5) of 32 random bytes. Its SHA-256 is what is stored.
"""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from sens_platform_api.database import Connection
from sens_platform_api.errors import NotFoundError, RefusedError, UnauthenticatedError
from sens_platform_api.keys import repository
from sens_platform_api.keys.repository import Key, KeyOwner
from sens_platform_api.tenants import repository as tenants

PREFIX_LENGTH: Final = 12
CACHE_SECONDS: Final = 2.0
"""For how long an answer of the database is believed; a revoked key stops working within this time."""
CACHE_SIZE: Final = 10_000

_KEY = re.compile(r"sens_[A-Za-z0-9_-]{43}")
_RANDOM_BYTES = 32
_MAX_ID = 2**31 - 1


def is_key(text: str) -> bool:
    """Tell whether the text has the form of a key."""
    return _KEY.fullmatch(text) is not None


def key_hash(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


class OwnerOf(Protocol):
    """Asks the database whose key has this hash."""

    async def __call__(self, hash_: bytes, /) -> KeyOwner | None:
        """Return None when there is no such key or it was revoked."""


class Authenticator:
    """Finds the owner of a key, and remembers it for `CACHE_SECONDS`.

    Only keys that exist are remembered: unknown ones, of which anybody can send as many as they like, take no place.
    """

    def __init__(self, owner_of: OwnerOf, clock: Callable[[], float] = time.monotonic) -> None:
        self._owner_of = owner_of
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, KeyOwner]] = OrderedDict()

    async def owner(self, key: str) -> KeyOwner:
        """Return the owner of a key.

        Raises:
            UnauthenticatedError: There is no such key, or it was revoked.
        """
        if not is_key(key):
            raise UnauthenticatedError("the API key has not the form of one: sens_ and 43 characters")
        hash_ = key_hash(key)
        known = self._cache.get(hash_)
        if known is not None and self._clock() < known[0]:
            return known[1]
        self._cache.pop(hash_, None)
        # The time is taken before the question: the answer is at least as new as that.
        until = self._clock() + CACHE_SECONDS
        owner = await self._owner_of(hash_)
        if owner is None:
            raise UnauthenticatedError("the API key is unknown or was revoked")
        self._cache[hash_] = (until, owner)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return owner


async def create(connection: Connection, *, tenant: str, name: str) -> tuple[Key, str]:
    """Make a key of a tenant; return what is stored of it, and the key itself, which can't be shown again.

    Raises:
        NotFoundError: There is no such tenant.
    """
    owner = await tenants.find(connection, tenant)
    key = f"sens_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    stored = await repository.insert(
        connection, tenant_id=owner.id, name=name, prefix=key[:PREFIX_LENGTH], key_hash=key_hash(key)
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
    return await repository.revoke(connection, found[0].id)
