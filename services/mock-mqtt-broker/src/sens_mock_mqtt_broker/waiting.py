"""Messages that wait for a subscriber, bounded in bytes: when there is no room, the owner with the most bytes loses its oldest.

The owner of a message is what its topic begins with: up to its tenant for the platform's topics, its first three levels for others.
"""

from collections import Counter, deque
from typing import Final

from sens_common.topics import NATIVE
from sens_mock_mqtt_broker.messages import Outgoing

_LEVELS: Final = 3
_LENGTH_BYTES: Final = 2
"""A topic stands as on the wire, its length before it."""


def owner(topic: bytes) -> bytes:
    """Return whose a message is."""
    name = topic[_LENGTH_BYTES:]
    beginning = NATIVE.beginning(name.decode(errors="replace"))
    return beginning[:-1].encode() if beginning else b"/".join(name.split(b"/", _LEVELS)[:_LEVELS])


class WaitingMessages:
    """Messages in their order.

    Attributes:
        bytes: What they take.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._messages: deque[Outgoing] = deque()
        self._by_owner: Counter[bytes] = Counter()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._messages)

    @property
    def first(self) -> Outgoing:
        """The next one."""
        return self._messages[0]

    def append(self, delivery: Outgoing) -> None:
        """Let one wait behind the others."""
        self._messages.append(delivery)
        self._add(delivery, 1)

    def prepend(self, delivery: Outgoing) -> None:
        """Let one wait before the others."""
        self._messages.appendleft(delivery)
        self._add(delivery, 1)

    def pop(self) -> Outgoing:
        """Take the next one."""
        delivery = self._messages.popleft()
        self._add(delivery, -1)
        return delivery

    def shrink(self, target_bytes: int) -> int:
        """Forget the oldest messages of the owner whose messages take the most, and so on, down to a size; return how many."""
        before = len(self._messages)
        while self.bytes > target_bytes:
            [(greediest, _bytes)] = self._by_owner.most_common(1)
            kept: deque[Outgoing] = deque()
            for delivery in self._messages:
                if self.bytes > target_bytes and owner(delivery[0].topic) == greediest:
                    self._add(delivery, -1)
                else:
                    kept.append(delivery)
            self._messages = kept
        return before - len(self._messages)

    def _add(self, delivery: Outgoing, sign: int) -> None:
        message = delivery[0]
        self.bytes += sign * message.size
        whose = owner(message.topic)
        self._by_owner[whose] += sign * message.size
        if not self._by_owner[whose]:
            del self._by_owner[whose]
