"""How fast imports go: a share for each tenant that imports, no faster than its own rate, and nothing while live messages wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sens_platform_api.errors import TooManyRequestsError

MOST_WAITING_SECONDS: Final = 2.0
"""While the oldest envelope in the stream waits for longer to be stored, nothing is imported."""
_MOST_WAIT_SECONDS: Final = 5.0
_ACTIVE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 1.0


class TooManyImportsError(TooManyRequestsError):
    """Lines of imports come faster than they may."""

    code = "too_many_imports"
    title = "Imports have to wait"
    bound = "import_lines"


class Stream(Protocol):
    """The stream of envelopes."""

    async def waiting_seconds(self) -> float:
        """Return for how long the oldest envelope has waited that is not stored, 0 where all are; raise `UnavailableError`."""


@dataclass(slots=True)
class _Turn:
    """When a tenant's next lines may go."""

    free_at: float
    active_until: float


class Pace:
    """Lets lines of imports into the stream, so many a second of all tenants together, in equal shares.

    It is of one process of the API.

    Attributes:
        lines_per_second: How many.
    """

    def __init__(
        self,
        lines_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.lines_per_second = lines_per_second
        self._clock = clock
        self._sleep = sleep
        self._turns: dict[str, _Turn] = {}
        self._looked_at = float("-inf")
        self._waiting_seconds = 0.0

    async def wait(self, tenant: str, count: int, stream: Stream, messages_per_second: int | None = None) -> None:
        """Wait for the turn of a tenant's lines.

        Args:
            tenant: Whose they are.
            count: How many.
            stream: Where they go.
            messages_per_second: The tenant's rate, None for none: its lines are no faster.

        Raises:
            TooManyImportsError: It comes later than after a few seconds.
            UnavailableError: It is not known whether live messages wait.
        """
        await self._let_live_ones_first(stream)
        now = self._clock()
        self._turns = {name: turn for name, turn in self._turns.items() if turn.active_until > now}
        turn = self._turns.setdefault(tenant, _Turn(now, now))
        seconds = max(0.0, turn.free_at - now)
        share = self.lines_per_second / len(self._turns)
        rate = share if messages_per_second is None else min(share, messages_per_second)
        if seconds > _MOST_WAIT_SECONDS:
            raise TooManyImportsError(
                f"other lines of tenant {tenant} fill the next seconds ({rate:,.0f} lines a second are imported now); try again",
                round(seconds),
            )
        turn.free_at = now + seconds + count / rate
        turn.active_until = turn.free_at + _ACTIVE_SECONDS
        await self._sleep(seconds)

    async def _let_live_ones_first(self, stream: Stream) -> None:
        """Look once a second whether what was received before is stored.

        Raises:
            TooManyImportsError: It is not.
        """
        now = self._clock()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._waiting_seconds = await stream.waiting_seconds()
        if self._waiting_seconds > MOST_WAITING_SECONDS:
            raise TooManyImportsError(
                f"messages wait for {self._waiting_seconds:.0f} s to be stored, and come before imports; try again",
                round(_MOST_WAIT_SECONDS),
            )
