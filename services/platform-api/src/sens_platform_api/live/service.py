"""Watching live data: the stream of one reader."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from sens_common.errors import SchemaError, UnavailableError
from sens_platform_api.caller import Caller
from sens_platform_api.errors import TooSlowError, UnauthenticatedError
from sens_platform_api.live.reader import Reader, TakenEvents

CHECK_INTERVAL_SECONDS: Final = 2.0
"""How often a reader's key is looked up; a revoked key's streams end within about two of these."""
KEEP_ALIVE_SECONDS: Final = 12.0
"""Silence after which a comment is sent, so that proxies do not take the connection for dead."""


class Live(Protocol):
    """Live data of all tenants."""

    def reader(
        self, caller: Caller, devices: frozenset[str], *, as_stored: bool = False
    ) -> AbstractAsyncContextManager[Reader]:
        """Keep a reader connected while the context is open; it gets the readings of these devices, or of all without one."""


class ValidKeys(Protocol):
    """The valid keys."""

    async def caller(self, key: str) -> Caller:
        """Return the caller whose key it is; raise `UnauthenticatedError` when the key is not valid."""


async def is_still_valid(keys: ValidKeys, key: str) -> bool:
    """Tell whether a key is valid, as far as that can be known just now."""
    try:
        await keys.caller(key)
    except UnauthenticatedError:
        return False
    except (UnavailableError, SchemaError, TooSlowError):
        pass  # the database can't say whether the key was revoked
    return True


async def events(reader: Reader, check: Callable[[], Awaitable[bool]]) -> AsyncIterator[TakenEvents | None]:
    """Yield what a reader takes, and None when it is time for a sign of life, until the reader is closed.

    Args:
        reader: The reader, which is connected.
        check: Asked every `CHECK_INTERVAL_SECONDS` whether the reader may go on.
    """
    quiet_since = checked = time.monotonic()
    while not reader.closed:
        taken = await reader.take(CHECK_INTERVAL_SECONDS)
        now = time.monotonic()
        if now - checked >= CHECK_INTERVAL_SECONDS:
            if not await check():
                return
            checked = now
        if taken.events or taken.dropped:
            quiet_since = now
            yield taken
        elif now - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = now
            yield None
