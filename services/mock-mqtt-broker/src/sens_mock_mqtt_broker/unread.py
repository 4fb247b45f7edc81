"""Topics that nobody reads: how many messages went there, and the names, so that a sender's mistake can be found."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from sens_mock_mqtt_broker import metrics

log = structlog.get_logger()

MOST_TOPICS: Final = 100
"""Topics whose names are kept; of more, those that came last."""

_NAMED: Final = 5
_LONGEST_NAME: Final = 100
_LINES: Final = 10
_LINES_SECONDS: Final = 60.0
"""New topics are logged, at most so many in so much time."""


class UnreadTopics:
    """Counts messages without a subscriber."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: dict[str, int] = {}
        self._total = 0
        self._lines = 0
        self._lines_since = 0.0

    def count(self, field: bytes) -> None:
        """Count a message.

        Args:
            field: Its topic as on the wire, its length before it.
        """
        metrics.WITHOUT_SUBSCRIBER.inc()
        self._total += 1
        topic = readable(field[2:].decode())
        # Put back at the end: the first one is the one that was quiet the longest.
        before = self._messages.pop(topic, 0)
        self._messages[topic] = before + 1
        if len(self._messages) > MOST_TOPICS:
            del self._messages[next(iter(self._messages))]
        if not before:
            self._tell(topic)

    def sentence(self) -> str:
        """Say how many messages went to topics that nobody reads, and which these are, the latest first; empty for none."""
        if not self._total:
            return ""
        names = [f"{topic} ({count:,})" for topic, count in list(self._messages.items())[: -_NAMED - 1 : -1]]
        more = ", …" if len(self._messages) > _NAMED else ""
        messages = "1 message was" if self._total == 1 else f"{self._total:,} messages were"
        return f"{messages} published to topics that nobody reads, most recently {', '.join(names)}{more}"

    def _tell(self, topic: str) -> None:
        now = self._clock()
        if now - self._lines_since > _LINES_SECONDS:
            self._lines, self._lines_since = 0, now
        self._lines += 1
        if self._lines <= _LINES:
            log.warning("nobody reads this topic", topic=topic)


def readable(topic: str) -> str:
    """Return a topic for people: shortened, and with a question mark for each character that can't be printed."""
    shown = "".join(character if character.isprintable() else "?" for character in topic)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}…"
