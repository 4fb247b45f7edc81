"""Deleting and renaming between two batches: whoever changes names waits for the batches that are being stored, and new ones wait behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from sens_common.errors import UnavailableError

LOCK_MILLISECONDS: Final = 200
"""How long one attempt waits for batches that are being stored; new batches wait behind it meanwhile."""
_ATTEMPTS: Final = 25
_RETRY_SECONDS: Final = 0.2


class StillStoringError(Exception):
    """Batches were being stored for as long as an attempt waits; it can be tried again."""


async def between_batches[T](change: Callable[[], Awaitable[T]]) -> T:
    """Try to change names between two batches, for a short time each, so that no batch waits for long.

    A request tries for a bounded time, and its failure is its own: `sens_common.attempts` is for work that goes on until it succeeds.

    Raises:
        UnavailableError: Messages are being stored all the time.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await change()
        except StillStoringError:
            await asyncio.sleep(_RETRY_SECONDS)
    raise UnavailableError("messages are being stored all the time, and nothing can be deleted meanwhile; try again")
