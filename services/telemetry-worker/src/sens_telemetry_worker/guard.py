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
        self._messages: Counter[str] = Counter()  # by topic, which stands for the device
        self._rejected: Counter[str] = Counter()
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
        self._messages += batch[0]
        self._rejected += batch[1]
        messages = self._messages.total()
        while len(self._batches) > 1 and messages - self._batches[0][0].total() >= self._window_messages:
            old_messages, old_rejected = self._batches.popleft()
            self._messages -= old_messages
            self._rejected -= old_rejected
            messages = self._messages.total()
        rejected = self._rejected.total()
        if (
            messages >= self._window_messages
            and rejected > self._max_share * messages
            and len(self._rejected) > _MAX_DEVICE_SHARE * len(self._messages)
        ):
            self.problem = (
                f"{rejected} of the last {messages} messages, from {len(self._rejected)} of {len(self._messages)} devices, would be"
                f" dead-lettered, more than the share of {self._max_share:g} allows (SENS_DEAD_LETTERS__MAX_SHARE); nothing is taken"
                " from the log until a restart"
            )
            return False
        return True
