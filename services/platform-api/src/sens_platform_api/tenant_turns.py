"""A tenant's part of the database connections: a quarter of them, whatever it asks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from sens_platform_api.errors import TenantBusyError

TENANTS_PART: Final = 4
"""One tenant may have the pool's size divided by this."""
MAX_WAITING: Final = 100
"""Requests of one tenant that wait for its turn; one more is refused at once."""


class _Turns:
    """One tenant's."""

    def __init__(self, connections: int) -> None:
        self.free = asyncio.Semaphore(connections)  # first come, first served
        self.users = 0


class TenantTurns:
    """Lets each tenant use a part of a pool's connections at the same time, at least one."""

    def __init__(self, connections: int, wait_seconds: float) -> None:
        self.per_tenant = max(1, connections // TENANTS_PART)
        self._wait_seconds = wait_seconds
        self._turns: dict[int, _Turns] = {}

    @contextlib.asynccontextmanager
    async def turn(self, tenant_id: int, *, patient: bool = False) -> AsyncIterator[None]:
        """Let a tenant use one connection while the context is open.

        Args:
            tenant_id: Whose turn.
            patient: Whether to wait for as long as it takes.

        Raises:
            TenantBusyError: The tenant's connections stayed in use, or too many of its requests wait for them.
        """
        turns = self._turns.setdefault(tenant_id, _Turns(self.per_tenant))
        if turns.users >= self.per_tenant + MAX_WAITING and not patient:
            raise self._busy()
        turns.users += 1
        try:
            try:
                async with asyncio.timeout(None if patient else self._wait_seconds):
                    await turns.free.acquire()
            except TimeoutError:
                raise self._busy() from None
            try:
                yield
            finally:
                turns.free.release()
        finally:
            turns.users -= 1
            if turns.users == 0:
                del self._turns[tenant_id]

    def _busy(self) -> TenantBusyError:
        return TenantBusyError(
            f"your other requests use all {self.per_tenant} database connections that one tenant may have;"
            " ask for less at once, or try again later"
        )
