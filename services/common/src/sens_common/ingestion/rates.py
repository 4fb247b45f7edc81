"""Messages a second of each tenant: which messages are over the rate of theirs.

A tenant has a token bucket (see RFC 2697, section 3): a token for each message, so many a second, as many at most as it gets in a second. What comes
over it is discarded, because keeping it back would keep back everybody's. The rate is that of one ingestion worker.

What waited in the broker while this worker could not take it came at a rate that nobody knows any more. So for each second in which the
worker did not take anything each tenant has another second's tokens, until the worker has nothing to do for a moment. So over any time,
that of an outage included, a tenant has at most its rate, and a second's tokens more.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from sens_common.envelope import Message
from sens_common.topics import TOPICS

IDLE_SECONDS: Final = 1.0
"""A worker that waited for so long has taken everything that the broker had; one that took nothing for so long was away."""


class _Bucket:
    """One tenant's tokens."""

    __slots__ = ("_filled_at", "_rate", "_tokens", "_used")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate)
        self._filled_at = now
        self._used = 0.0  # of the tokens for the seconds away

    def set_rate(self, rate: int) -> None:
        self._rate = rate
        self._tokens = min(self._tokens, rate)

    def forget_away(self) -> None:
        self._used = 0.0

    def take(self, wanted: int, now: float, away_seconds: float) -> int:
        """Take tokens, as many as there are; return their number."""
        self._tokens = min(self._tokens + self._rate * (now - self._filled_at), self._rate)
        self._filled_at = now
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        more = max(0, min(wanted - taken, int(self._rate * away_seconds - self._used)))
        self._used += more
        return taken + more


class Rates:
    """The tenants' rates, and what is left of each.

    Attributes:
        tenants: Names of the tenants that exist, as far as this worker knows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._away_seconds = 0.0
        self.tenants: Collection[str] = frozenset()

    def set(self, limits: Mapping[str, int | None]) -> None:
        """Let each tenant have so many messages a second, None for no limit; tenants that are missing have none either."""
        now = self._clock()
        self.tenants = frozenset(limits)
        limited = {tenant: rate for tenant, rate in limits.items() if rate is not None}
        self._buckets = {tenant: self._buckets.get(tenant) or _Bucket(rate, now) for tenant, rate in limited.items()}
        for tenant, rate in limited.items():
            self._buckets[tenant].set_rate(rate)

    def was_away(self, seconds: float) -> None:
        """Take note that the worker could not take anything for so long."""
        self._away_seconds += seconds

    def was_idle(self) -> None:
        """Take note that nothing waits in the broker any more."""
        self._away_seconds = 0.0
        for bucket in self._buckets.values():
            bucket.forget_away()

    def allows(self, tenant: str) -> bool:
        """Take a token for one message of a tenant; tell whether there was one."""
        bucket = self._buckets.get(tenant)
        return bucket is None or bucket.take(1, self._clock(), self._away_seconds) == 1

    def over(self, messages: list[Message]) -> dict[int, str]:
        """Return which of the messages are over their tenant's rate: their indices, and the tenant of each."""
        if not self._buckets:
            return {}
        now = self._clock()
        left: dict[str, int] = {}
        for tenant, count in TOPICS.count_by_tenant([message.topic for message in messages]).items():
            bucket = self._buckets.get(tenant)
            if bucket is not None and (taken := bucket.take(count, now, self._away_seconds)) < count:
                left[tenant] = taken
        if not left:
            return {}
        over: dict[int, str] = {}
        for index, message in enumerate(messages):
            tenant = TOPICS.tenant_of(message.topic)
            if tenant in left:
                left[tenant] -= 1
                if left[tenant] < 0:
                    over[index] = tenant
        return over
