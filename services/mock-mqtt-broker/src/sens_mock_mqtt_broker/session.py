"""What the broker keeps for a client: its subscriptions, and messages that it has not acknowledged or not got yet (section 4.1)."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from sens_mock_mqtt_broker import metrics, sent
from sens_mock_mqtt_broker.messages import ApplicationMessage, Outgoing
from sens_mock_mqtt_broker.topics import Subscription, TopicFilter
from sens_mock_mqtt_broker.waiting import WaitingMessages
from sens_mock_mqtt_broker.wire import PacketType

_PACKET_IDS: Final = 65_535
_DUP: Final = 8
_ROOM_SHARE: Final = 8
_QOS_1: Final = 2
_QOS_2: Final = 4


class Outlet(Protocol):
    """A client's connection, as its session sees it."""

    version: int
    largest_packet: int
    writable: bool
    """Whether the client reads fast enough to be sent more."""

    def send(self, packet: bytes) -> None:
        """Send a packet, soon."""


class Session:
    """A client's session. `buffer_bytes` bounds the messages in it; those without room are dropped and counted: see `waiting`."""

    def __init__(self, client_id: str, *, buffer_bytes: int, mark_repeated: bool, clock: Callable[[], float]) -> None:
        self.client_id = client_id
        self.subscriptions: dict[str, tuple[TopicFilter, Subscription]] = {}
        self.received: set[bytes] = set()
        self.expiry_seconds = 0
        self.away_since = 0.0
        self.end: asyncio.TimerHandle | None = None
        self._outlet: Outlet | None = None
        self._window = 0
        self._buffer_bytes = buffer_bytes
        self._mark_repeated = mark_repeated
        self._clock = clock
        self._under_way: dict[bytes, Outgoing] = {}
        self._released: set[bytes] = set()
        self._waiting = WaitingMessages()
        self._under_way_bytes = 0
        self._last_id = 0

    @property
    def is_connected(self) -> bool:
        """Whether its client is there."""
        return self._outlet is not None

    @property
    def has_room(self) -> bool:
        """Whether a message would leave at once."""
        return (
            self._outlet is not None
            and not self._waiting
            and self._outlet.writable
            and len(self._under_way) < self._window
        )

    def attach(self, outlet: Outlet, window: int) -> None:
        """Take the client's connection, and send again what was not acknowledged (section 4.4).

        Args:
            outlet: The connection.
            window: Messages above QoS 0 that may be unacknowledged.
        """
        self._outlet, self._window = outlet, window
        before, self._under_way, self._under_way_bytes = self._under_way, {}, 0
        beyond = []
        for packet_id, delivery in before.items():
            if packet_id in self._released:
                outlet.send(sent.answer(PacketType.PUBREL, packet_id, outlet.version))
                self._note(packet_id, delivery)
            elif len(self._under_way) >= window:
                beyond.append(delivery)
            elif self._write(outlet, delivery, packet_id, _DUP if self._mark_repeated else 0):
                self._note(packet_id, delivery)
        for delivery in reversed(beyond):
            self._waiting.prepend(delivery)
        self.pump()

    def detach(self) -> None:
        """The client has gone."""
        self._outlet = None

    def deliver(self, message: ApplicationMessage, flags: int) -> None:
        """Send a message, or keep it until that is possible.

        Args:
            message: To be sent.
            flags: QoS and RETAIN, as in the first byte of its packet.
        """
        outlet = self._outlet
        if outlet is None and flags < _QOS_1:
            return
        if outlet is not None and not self._waiting and outlet.writable and (flags < _QOS_1 or self._fits(message)):
            self._start(outlet, (message, flags))
            return
        self._waiting.append((message, flags))
        if self._waiting.bytes > self._buffer_bytes:
            # Some room at once: looking for what to drop costs as much for one message as for many.
            metrics.DROPPED.inc(self._waiting.shrink(self._buffer_bytes - self._buffer_bytes // _ROOM_SHARE))

    def acknowledge(self, packet_id: bytes) -> None:
        """The client has a message for good (PUBACK, PUBCOMP, or a PUBREC that refuses it)."""
        delivery = self._under_way.pop(packet_id, None)
        if delivery is not None:
            self._under_way_bytes -= delivery[0].size
            if self._released:
                self._released.discard(packet_id)
            if self._waiting:
                self.pump()

    def release(self, packet_id: bytes) -> bool:
        """The client has received a message of QoS 2 (PUBREC); tell whether there is one of this identifier."""
        delivery = self._under_way.get(packet_id)
        if delivery is None or delivery[1] < _QOS_2:
            return False
        self._released.add(packet_id)
        return True

    def pump(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting and (outlet := self._outlet) is not None and outlet.writable:
            message, flags = delivery = self._waiting.first
            if flags >= _QOS_1 and not self._fits(message):
                return
            self._waiting.pop()
            self._start(outlet, delivery)

    def _fits(self, message: ApplicationMessage) -> bool:
        under_way = len(self._under_way)
        return under_way < self._window and (
            self._under_way_bytes + message.size <= self._buffer_bytes or under_way == 0
        )

    def _start(self, outlet: Outlet, delivery: Outgoing) -> None:
        if delivery[1] < _QOS_1:
            self._write(outlet, delivery, b"", 0)
            return
        while True:
            self._last_id = number = self._last_id % _PACKET_IDS + 1
            packet_id = number.to_bytes(2)
            if packet_id not in self._under_way:
                break
        if self._write(outlet, delivery, packet_id, 0):
            self._under_way[packet_id] = delivery
            self._under_way_bytes += delivery[0].size

    def _note(self, packet_id: bytes, delivery: Outgoing) -> None:
        self._under_way[packet_id] = delivery
        self._under_way_bytes += delivery[0].size

    def _write(self, outlet: Outlet, delivery: Outgoing, packet_id: bytes, dup: int) -> bool:
        """Send a message; return False for one that has expired, or that the client does not take (section 3.1.2.11.4)."""
        message, flags = delivery
        left: int | None = None
        if message.expires_at is not None:
            left = round(message.expires_at - self._clock())
            if left <= 0:
                metrics.EXPIRED.inc()
                return False
        packet = sent.publish(
            outlet.version, message.topic, message.payload, flags | dup, packet_id, message.properties, left
        )
        if len(packet) > outlet.largest_packet:
            metrics.DROPPED.inc()
            return False
        outlet.send(packet)
        return True
