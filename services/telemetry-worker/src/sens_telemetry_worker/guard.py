"""Stops the worker when too large a share of the messages is dead-lettered for what they contain.

A release that can't read what sensors send must not empty the log into the dead letters.
"""

from collections import deque
from typing import Final

from sens_common.dead_letters import Reason

_NOT_COUNTED: Final = frozenset({Reason.INVALID_TOPIC, Reason.UNKNOWN_TENANT, Reason.LIMIT_REACHED})
"""Reasons that lie with who sends where, not with what the worker makes of it."""


def counts(reason: str) -> bool:
    """Tell whether a dead letter with this reason speaks against the worker."""
    return reason not in _NOT_COUNTED


class DeadLetterGuard:
    """Knows the share among the most recent messages.

    Attributes:
        problem: Set once the share is too large, and stays; for the readiness check.
    """

    def __init__(self, max_share: float, window_messages: int) -> None:
        self._max_share = max_share
        self._window_messages = window_messages
        self._batches: deque[tuple[int, int]] = deque()
        self._messages = 0
        self._rejected = 0
        self.problem: str | None = None

    def allows(self, messages: int, rejected: int) -> bool:
        """Take a batch into account; tell whether it may be settled.

        Args:
            messages: Number of messages in the batch, those that are not counted left out.
            rejected: Number of those to be dead-lettered.
        """
        if self.problem is not None:
            return False
        self._batches.append((messages, rejected))
        self._messages += messages
        self._rejected += rejected
        while len(self._batches) > 1 and self._messages - self._batches[0][0] >= self._window_messages:
            old_messages, old_rejected = self._batches.popleft()
            self._messages -= old_messages
            self._rejected -= old_rejected
        if self._messages >= self._window_messages and self._rejected > self._max_share * self._messages:
            self.problem = (
                f"{self._rejected} of the last {self._messages} messages would be dead-lettered, more than the share of"
                f" {self._max_share:g} allows (SENS_DEAD_LETTERS__MAX_SHARE); nothing is taken from the log until a restart"
            )
            return False
        return True
