"""Stops the worker when too large a share of the messages is dead-lettered for what they contain.

A release that can't read what sensors send must not empty the log into the dead letters. Such a release fails with most sensors;
one broken sensor, however much it sends, is no reason to stop the others.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from sens_common.dead_letters import Reason

_NOT_COUNTED: Final = frozenset({Reason.INVALID_TOPIC, Reason.UNKNOWN_TENANT, Reason.LIMIT_REACHED})
"""Reasons that lie with who sends where, not with what the worker makes of it."""

_MAX_DEVICE_SHARE: Final = 0.5


def counts(reason: str) -> bool:
    """Tell whether a dead letter with this reason speaks against the worker."""
    return reason not in _NOT_COUNTED


class DeadLetterGuard:
    """Knows the share among the most recent messages, and among the devices that sent them.

    Attributes:
        problem: Set once both shares are too large, and stays; for the readiness check.
    """

    def __init__(self, max_share: float, window_messages: int) -> None:
        self._max_share = max_share
        self._window_messages = window_messages
        self._batches: deque[tuple[Counter[str], Counter[str]]] = deque()
        self._messages = _Window()
        self._rejected = _Window()
        self.problem: str | None = None

    def allows(self, topics: Iterable[str], rejected_topics: Iterable[str]) -> bool:
        """Take a batch into account; tell whether it may be settled.

        Args:
            topics: Of each message in the batch, those that are not counted left out.
            rejected_topics: Of each message among them that is to be dead-lettered.
        """
        if self.problem is not None:
            return False
        batch = (Counter(topics), Counter(rejected_topics))
        self._batches.append(batch)
        self._messages.add(batch[0])
        self._rejected.add(batch[1])
        while len(self._batches) > 1 and self._messages.total - self._batches[0][0].total() >= self._window_messages:
            old_messages, old_rejected = self._batches.popleft()
            self._messages.remove(old_messages)
            self._rejected.remove(old_rejected)
        messages, rejected = self._messages.total, self._rejected.total
        if (
            messages >= self._window_messages
            and rejected > self._max_share * messages
            and self._rejected.topics > _MAX_DEVICE_SHARE * self._messages.topics
        ):
            self.problem = (
                f"{rejected} of the last {messages} messages, from {self._rejected.topics} of {self._messages.topics} devices, would be"
                f" dead-lettered, more than the share of {self._max_share:g} allows (SENS_DEAD_LETTERS__MAX_SHARE); nothing is taken"
                " from the log until a restart"
            )
            return False
        return True


class _Window:
    """How many of the recent messages each topic has, which stands for a device; costs no more than what comes and goes."""

    def __init__(self) -> None:
        self._by_topic: Counter[str] = Counter()
        self.total = 0

    @property
    def topics(self) -> int:
        """Return how many topics there are."""
        return len(self._by_topic)

    def add(self, batch: Counter[str]) -> None:
        """Take the messages of a batch in."""
        self._by_topic.update(batch)
        self.total += batch.total()

    def remove(self, batch: Counter[str]) -> None:
        """Take them out again."""
        self.total -= batch.total()
        for topic, number in batch.items():
            self._by_topic[topic] -= number
            if not self._by_topic[topic]:
                del self._by_topic[topic]
