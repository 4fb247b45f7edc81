"""Recognises the messages that a broker delivers again after a connection ended.

A broker sends again what it holds as unacknowledged, under the same packet identifiers, before anything new (MQTT 5.0, sections
4.4 and 4.6). What this session has published to the log but not, or not provably, acknowledged is among its newest messages: at
most ``receive_max`` of them, and more with a broker that counts wrongly; see `kept_messages`. A message that comes first on a resumed
connection and equals one of those in packet identifier, topic and payload is a copy. The first message that equals none ends the
search: from there on everything is new.

The DUP flag alone decides nothing, because some brokers do not set it; but once a copy came with it, a message without it is new.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from sens_common.envelope import Message

_KEPT_FACTOR: Final = 4
_PACKET_IDS: Final = 65_535


def kept_messages(receive_max: int) -> int:
    """Return how many of the newest messages have to be remembered.

    More than ``receive_max``: Mosquitto 2.0.11 leaves what it sends again after a reconnect out of its count, and was seen with 5,875
    unacknowledged messages where 4,096 were allowed.
    """
    return min(_KEPT_FACTOR * receive_max, _PACKET_IDS)


class RecentMessages:
    """The newest published messages of one MQTT session: their identifiers, and a hash of topic and payload in place of these."""

    def __init__(self, count: int) -> None:
        self._recent: deque[tuple[int, int]] = deque(maxlen=count)
        self._candidates: dict[int, int] = {}
        self._broker_flags_copies = False

    def remember(self, messages: Iterable[Message]) -> None:
        """Take note of messages that the log has stored; those of QoS 0 can't come again."""
        self._recent.extend((message.packet_id, _content(message)) for message in messages if message.packet_id)

    def connection_opened(self, *, session_present: bool) -> None:
        """Start over with a connection: copies come only when the broker has resumed the session."""
        self._broker_flags_copies = False
        # Identifiers are unique among unacknowledged messages, so only the newest message of each can come again.
        self._candidates = dict(self._recent) if session_present else {}

    @property
    def searching(self) -> bool:
        """Whether the next message may be a copy."""
        return bool(self._candidates)

    def without_copies(self, messages: list[Message], flagged: frozenset[int]) -> list[Message]:
        """Return the messages that are not copies, in order.

        Args:
            messages: In the order of their arrival on the current connection.
            flagged: Packet identifiers of those that came with the DUP flag.
        """
        if not self._candidates:
            return messages
        new = []
        for position, message in enumerate(messages):
            if not message.packet_id:
                new.append(message)
                continue
            if message.packet_id in flagged:
                self._broker_flags_copies = True
            original = self._candidates.pop(message.packet_id, None)
            is_copy = original == _content(message) and (message.packet_id in flagged or not self._broker_flags_copies)
            if not is_copy:
                self._candidates = {}
                return new + messages[position:]
        return new


def _content(message: Message) -> int:
    return hash((message.topic, message.payload))
