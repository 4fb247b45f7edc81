"""Recognises the messages that a broker delivers again after a connection ended.

A broker sends again what it holds as unacknowledged, under the same packet identifiers, before anything new (MQTT 5.0, sections
4.4 and 4.6). What this session has published to the log but not, or not provably, acknowledged is among its newest messages: at
most ``receive_max`` of them. A message that comes first on a resumed connection and equals one of those in packet identifier,
topic and payload is a copy. The first message that equals none ends the search: from there on everything is new.

The DUP flag alone decides nothing, because some brokers do not set it; but once a copy came with it, a message without it is new.
"""

from collections import deque
from collections.abc import Iterable

from sens_common.envelope import Message


class RecentMessages:
    """The newest published messages of one MQTT session."""

    def __init__(self, receive_max: int) -> None:
        self._recent: deque[Message] = deque(maxlen=receive_max)
        self._candidates: dict[int, Message] = {}
        self._broker_flags_copies = False

    def remember(self, messages: Iterable[Message]) -> None:
        """Take note of messages that the log has stored; those of QoS 0 can't come again."""
        self._recent.extend(message for message in messages if message.packet_id)

    def connection_opened(self, *, session_present: bool) -> None:
        """Start over with a connection: copies come only when the broker has resumed the session."""
        self._broker_flags_copies = False
        # Identifiers are unique among unacknowledged messages, so only the newest message of each can come again.
        self._candidates = {message.packet_id: message for message in self._recent} if session_present else {}

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
            is_copy = (
                original is not None
                and original.topic == message.topic
                and original.payload == message.payload
                and (message.packet_id in flagged or not self._broker_flags_copies)
            )
            if not is_copy:
                self._candidates = {}
                return new + messages[position:]
        return new
