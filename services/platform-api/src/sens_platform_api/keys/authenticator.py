"""Finds the caller of a request by the key, in the database, and remembers it for a short time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import structlog

from sens_common.errors import SensError
from sens_common.keys import is_key, key_hash
from sens_platform_api.caller import Caller
from sens_platform_api.errors import MalformedKeyError, NumberTooLargeError, UnauthenticatedError

log = structlog.get_logger()

CACHE_SECONDS: Final = 2.0
"""For how long an answer of the database is believed; a revoked key stops working within this time."""
CACHE_SIZE: Final = 10_000
NOTED_EVERY_SECONDS: Final = 60.0
"""How often the use of a key is stored at most."""


class Keys(Protocol):
    """The stored keys."""

    async def caller(self, key_hash: bytes) -> Caller | None:
        """Return None when there is no such key, or it was revoked or has expired."""

    async def note_use(self, key_id: int) -> None:
        """Store that the key was used just now."""


class Authenticator:
    """Finds the caller by the key, and remembers it for `CACHE_SECONDS`.

    Only keys that exist are remembered: unknown ones, of which anybody can send as many as they like, need no memory. Requests with the
    same key at the same time ask once.
    """

    def __init__(
        self, keys: Keys, clock: Callable[[], float] = time.monotonic, *, cache_size: int = CACHE_SIZE
    ) -> None:
        self._keys = keys
        self._cache_size = cache_size
        self._clock = clock
        self._cache: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Caller | None]] = {}

    def is_known(self, key: str) -> bool:
        """Tell whether the key was valid when it was looked up last; it may have been revoked since."""
        return key_hash(key) in self._cache

    async def caller(self, key: str) -> Caller:
        """Return the caller whose key it is.

        Raises:
            MalformedKeyError: It has not the form of a key.
            UnauthenticatedError: There is no such key, or it was revoked or has expired.
        """
        if not is_key(key):
            raise MalformedKeyError("the API key has not the form of one: sens_ and 43 characters")
        hash_ = key_hash(key)
        known = self._cache.get(hash_)
        if known is not None and self._clock() < known.until:
            return known.caller
        asking = self._asking.get(hash_)
        if asking is None:
            asking = asyncio.create_task(self._ask(hash_, known), name="look up a key")
            self._asking[hash_] = asking
            asking.add_done_callback(lambda task: self._answered(hash_, task))
        caller = await asyncio.shield(asking)  # others may wait for the same answer
        if caller is None:
            raise UnauthenticatedError("the API key is unknown, was revoked or has expired")
        return caller

    async def _ask(self, hash_: bytes, known: "_Known | None") -> Caller | None:
        # The time is taken before the question: the answer is at least as new as that.
        now = self._clock()
        caller = await self._keys.caller(hash_)
        if caller is None:
            self._cache.pop(hash_, None)
            return None
        noted = known.noted if known is not None else None
        if noted is None or now - noted >= NOTED_EVERY_SECONDS:
            noted = now
            await self._note(caller)
        self._cache[hash_] = _Known(caller, now + CACHE_SECONDS, noted)
        self._cache.move_to_end(hash_)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return caller

    def _answered(self, hash_: bytes, task: "asyncio.Task[Caller | None]") -> None:
        del self._asking[hash_]
        if not task.cancelled():
            task.exception()  # the requests that wait for it have the error; there may be none of them

    async def _note(self, caller: Caller) -> None:
        try:
            await self._keys.note_use(caller.key_id)
        except (SensError, NumberTooLargeError) as error:  # a database that can only be read still answers
            log.warning("the use of a key can't be stored", key=caller.key_id, error=str(error))


class _Known(NamedTuple):
    """A key that is valid: until when that is believed, and when its use was stored."""

    caller: Caller
    until: float
    noted: float
