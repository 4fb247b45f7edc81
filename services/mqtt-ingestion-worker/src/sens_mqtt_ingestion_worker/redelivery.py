"""Recognises the messages that a broker delivers again after a connection ended.

A broker sends again what it holds as unacknowledged, under the same packet identifiers, before anything new (MQTT 5.0, sections
4.4 and 4.6). What this session has published but not, or not provably, acknowledged is among its newest messages: at
most ``receive_max`` of them, and more with a broker that counts wrongly; see `kept_message_count`. A message that comes first on a resumed
connection and equals one of those in packet identifier, topic and payload is a copy. The first message that equals none ends the
search: from there on everything is new.

A broker that was killed may take up the session as it was some time before, and send what has long been acknowledged: first what was
unacknowledged then, then what was queued, which it has not sent before as far as it knows. Both are copies of messages that followed each
other, but not of the newest ones.

The DUP flag says that a message is old, but its absence says nothing: some brokers do not set it, and what was queued has none. So a
message without it is a copy only where it follows, in the stream, the copies that came before it (after copies of the newest messages, which
is what a broker sends that was not killed, there are none of these); and only until the broker has sent all that it had for the session,
for a broker that went back in time gives new messages the identifiers that others had before.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from sens_common.envelope import Message, digest

_KEPT_FACTOR: Final = 4
_PACKET_IDS: Final = 65_535


def kept_message_count(receive_max: int) -> int:
    """Return how many of the newest messages have to be remembered.

    More than ``receive_max``: Mosquitto 2.0.11 leaves what it sends again after a reconnect out of its count, and was seen with 5,875
    unacknowledged messages where 4,096 were allowed.
    """
    return min(_KEPT_FACTOR * receive_max, _PACKET_IDS)


class RecentMessages:
    """The newest published messages of one MQTT session: their identifiers, and a hash of topic and payload instead of these.

    A message that was discarded because of its tenant's rate is remembered likewise, after a restart by its mark in the stream. It would
    end the search otherwise, and be counted once more.
    """

    def __init__(self, count: int) -> None:
        self._recent: deque[tuple[int, int | bytes]] = deque(maxlen=count)
        self._candidates: dict[int, tuple[int, int | bytes]] = {}  # by identifier: position among the newest, and hash
        self._next_position = 0

    def remember(self, messages: Iterable[Message]) -> None:
        """Take note of messages that the stream has stored, and of marks in it; those of QoS 0 can't come again."""
        self._recent.extend(
            (message.packet_id, _content(message)) if message.packet_id > 0 else (-message.packet_id, message.payload)
            for message in messages
            if message.packet_id
        )

    def connection_opened(self, *, session_present: bool) -> None:
        """Start over with a connection: copies come only when the broker has resumed the session."""
        self._next_position = 0
        # Identifiers are unique among unacknowledged messages, so only the newest message of each can come again.
        self._candidates = (
            {packet_id: (position, content) for position, (packet_id, content) in enumerate(self._recent)}
            if session_present
            else {}
        )

    @property
    def searching(self) -> bool:
        """Whether the next message may be a copy."""
        return bool(self._candidates)

    def without_copies(
        self, messages: list[Message], flagged: frozenset[int], *, caught_up: bool = False
    ) -> list[Message]:
        """Return the messages that are not copies, in order.

        Args:
            messages: In the order of their arrival on the current connection.
            flagged: Packet identifiers of those that came with the DUP flag.
            caught_up: Whether the broker had sent all that it had for the session before these.
        """
        if not self._candidates:
            return messages
        new = []
        for index, message in enumerate(messages):
            if not message.packet_id:
                new.append(message)
                continue
            position, original = self._candidates.pop(message.packet_id, (-1, 0))
            is_old = message.packet_id in flagged or (position >= self._next_position and not caught_up)
            if (
                not is_old
                or position < 0
                or original != (_content(message) if isinstance(original, int) else digest(message))
            ):
                self._candidates = {}
                return new + messages[index:]
            self._next_position = max(self._next_position, position + 1)
        return new


def _content(message: Message) -> int:
    return hash((message.topic, message.payload))
