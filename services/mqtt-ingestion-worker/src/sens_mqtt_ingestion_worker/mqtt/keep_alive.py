"""Whether the broker is still there: PINGREQ and its answers, which also tell when the broker has sent all that it had."""

import time
from collections import deque
from typing import Final

_GIVEN_UP_AFTER: Final = 1.5
"""Keep-alive intervals without a word after which a broker is given up (MQTT 5.0, section 3.1.2.10, where the server does the same)."""


class KeepAlive:
    """The watch over one connection.

    Attributes:
        seconds: Keep-alive interval.
        is_caught_up: Whether the broker has sent all that it had for the session.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.is_caught_up = False
        self._unanswered: deque[int | None] = deque()  # pings; of a probe the number of deliveries before it
        self._last_sent = self._last_heard = time.monotonic()

    def agree(self, seconds: int | None) -> None:
        """Take what the broker says of the interval: a shorter one holds; 0 and longer ones do not, for one may always ping more often."""
        if seconds:
            self.seconds = min(self.seconds, seconds)

    def sent(self) -> None:
        """Take note that something was sent."""
        self._last_sent = time.monotonic()

    def heard(self) -> None:
        """Take note that something came."""
        self._last_heard = time.monotonic()

    def ping_sent(self, deliveries_before: int | None = None) -> None:
        """Take note of a ping; of one that probes whether the broker has sent all, with the number of deliveries before it."""
        self._unanswered.append(deliveries_before)

    def answered(self, deliveries: int, *, nothing_waits: bool) -> None:
        """Take the answer to the oldest ping: a broker that has sent nothing since a probe had nothing more."""
        if self._unanswered and self._unanswered.popleft() == deliveries and nothing_waits:
            self.is_caught_up = True

    @property
    def is_silent(self) -> bool:
        """Whether the broker has said nothing for too long."""
        return time.monotonic() - self._last_heard > self.silence_seconds

    @property
    def silence_seconds(self) -> float:
        """How long a broker may say nothing."""
        return self.seconds * _GIVEN_UP_AFTER

    @property
    def is_due(self) -> bool:
        """Whether it is time for a ping."""
        return time.monotonic() - min(self._last_sent, self._last_heard) >= self.seconds / 2
