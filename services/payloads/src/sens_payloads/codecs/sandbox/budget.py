"""What a tenant's codecs may waste: time in calls that end at a limit, and processes that they bring down.

It is a token bucket of seconds. While it is empty, the codecs that emptied it are not run; a good codec of the same tenant goes on. Other tenants'
messages of the same batch wait while a codec runs, so what may be wasted in the long run is half of what would show in the 99th percentile of how long
their messages take: a codec that never ends holds them up for a tenth of a second every twenty seconds.
"""

from collections import OrderedDict
from typing import Final

CAPACITY_SECONDS: Final = 1.0
REFILL_RATIO: Final = 0.005
"""Seconds that may be wasted, for each second that passes."""
RESUME_SECONDS: Final = 0.1
"""A codec is run again when so much may be wasted again, one call: twenty seconds after the bucket was empty."""
_MAX_OFFENDERS: Final = 64


class WasteBudget:
    """The bucket of one tenant. Times are of one monotonic clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._seconds = CAPACITY_SECONDS
        self._filled_at = now
        self._empty = False
        self._offenders: OrderedDict[bytes, None] = OrderedDict()

    def charge(self, sha256: bytes, seconds: float, now: float) -> None:
        """Take what a codec wasted."""
        self._fill(now)
        self._seconds = max(self._seconds - seconds, -CAPACITY_SECONDS)
        self._empty = self._empty or self._seconds <= 0
        self._offenders[sha256] = None
        self._offenders.move_to_end(sha256)
        if len(self._offenders) > _MAX_OFFENDERS:
            self._offenders.popitem(last=False)

    def pause(self, sha256: bytes, now: float) -> float:
        """Return for how many seconds more a codec is not run, 0 if it is run."""
        self._fill(now)
        if not self._empty or sha256 not in self._offenders:
            return 0.0
        return (RESUME_SECONDS - self._seconds) / REFILL_RATIO

    def has_offended(self, sha256: bytes) -> bool:
        """Tell whether a codec has wasted something since the bucket was full."""
        return sha256 in self._offenders

    def is_full(self, now: float) -> bool:
        """Tell whether there is nothing to remember."""
        self._fill(now)
        return self._seconds >= CAPACITY_SECONDS

    def _fill(self, now: float) -> None:
        self._seconds = min(self._seconds + (now - self._filled_at) * REFILL_RATIO, CAPACITY_SECONDS)
        self._filled_at = now
        if self._seconds >= RESUME_SECONDS:
            self._empty = False
        if self._seconds >= CAPACITY_SECONDS:
            self._offenders.clear()
