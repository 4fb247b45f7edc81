"""Reads MQTT 5 on its way through a proxy: which messages the client is sent, and which of them it acknowledges.

Sources: MQTT 5.0 (OASIS standard, 2019), sections 1.5.5 (variable byte integer), 2.1 (fixed header), 3.3 (PUBLISH), 3.4 (PUBACK),
3.9 (SUBACK).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

_PUBLISH: Final = 3
_PUBACK: Final = 4
_SUBACK: Final = 9
_FIRST_FAILURE: Final = 128
_INTEGER_BYTES: Final = 4


class MalformedPacketError(ValueError):
    """Bytes that are not MQTT 5; the text says why."""


class Publish(NamedTuple):
    """A PUBLISH packet.

    Attributes:
        topic: Where it was published.
        packet_id: Packet identifier, 0 with QoS 0.
        payload: Bytes.
    """

    topic: str
    packet_id: int
    payload: bytes


class Packets:
    """Cuts what comes into control packets, however it is divided."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Return the packets that are complete with these bytes: the first byte of each, and what follows its fixed header.

        Raises:
            MalformedPacketError: A remaining length has more than four bytes.
        """
        self._rest += data
        while self._rest:
            try:
                length, start = _integer(self._rest, 1)
            except IndexError:
                return
            if len(self._rest) < start + length:
                return
            first, body = self._rest[0], self._rest[start : start + length]
            self._rest = self._rest[start + length :]
            yield first, body


def publish(first: int, body: bytes) -> Publish:
    """Return a PUBLISH packet from its first byte and what follows its fixed header.

    Raises:
        MalformedPacketError: It is none.
    """
    quality = first >> 1 & 3
    try:
        start = 2 + int.from_bytes(body[:2])
        topic = body[2:start].decode()
        packet_id = 0
        if quality:
            packet_id = int.from_bytes(body[start : start + 2])
            start += 2
        properties, start = _integer(body, start)
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedPacketError(f"a malformed PUBLISH: {body[:40]!r}") from error
    if start + properties > len(body) or bool(quality) != bool(packet_id):
        raise MalformedPacketError(f"a malformed PUBLISH: {body[:40]!r}")
    return Publish(topic, packet_id, body[start + properties :])


def acknowledgement(body: bytes) -> tuple[int, bool]:
    """Return the packet identifier of a PUBACK, and whether it accepts the message.

    Raises:
        MalformedPacketError: It has none.
    """
    if len(body) < 2:  # noqa: PLR2004 - bytes of a packet identifier
        raise MalformedPacketError(f"a malformed PUBACK: {body!r}")
    # Without a reason code it is 0, success.
    return int.from_bytes(body[:2]), body[2:3] < bytes([_FIRST_FAILURE])


def accepted_filters(body: bytes) -> int:
    """Return to how many topic filters a SUBACK grants a subscription.

    Raises:
        MalformedPacketError: It is none.
    """
    try:
        properties, start = _integer(body, 2)
    except IndexError as error:
        raise MalformedPacketError(f"a malformed SUBACK: {body!r}") from error
    return sum(code < _FIRST_FAILURE for code in body[start + properties :])


def remaining_length(length: int) -> bytes:
    """Encode a packet's length (MQTT 3.1.1, section 2.2.3; MQTT 5.0, section 1.5.5)."""
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | 128 if length else digit)
        if not length:
            return bytes(encoded)


def _integer(data: bytes, start: int) -> tuple[int, int]:
    """Return a variable byte integer and where it ends.

    Raises:
        IndexError: It is not complete.
        MalformedPacketError: It has more than four bytes.
    """
    value = 0
    for index in range(_INTEGER_BYTES):
        byte = data[start + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:  # noqa: PLR2004 - the bit that says that more follows
            return value, start + index + 1
    raise MalformedPacketError("an integer of more than four bytes")


class Session:
    """One connection that passes."""

    def __init__(self, tap: "Tap") -> None:
        self._tap = tap
        self._sent, self._received = Packets(), Packets()
        self.unacknowledged: dict[int, Publish] = {}
        self.filters = 0

    def to_client(self, data: bytes) -> None:
        """Read what is passed on to the client."""
        self._read(self._sent, data, self._take_sent)

    def from_client(self, data: bytes) -> None:
        """Read what the client has sent, whether or not it is passed on."""
        self._read(self._received, data, self._take_received)

    def _read(self, packets: Packets, data: bytes, take: Callable[[int, bytes], None]) -> None:
        try:
            for first, body in packets.of(data):
                take(first, body)
        except MalformedPacketError as error:
            self._tap.problems.append(str(error))

    def _take_sent(self, first: int, body: bytes) -> None:
        if first >> 4 == _PUBLISH and (packet := publish(first, body)).packet_id:
            self.unacknowledged[packet.packet_id] = packet
        if first >> 4 == _SUBACK:
            self.filters += accepted_filters(body)

    def _take_received(self, first: int, body: bytes) -> None:
        if first >> 4 != _PUBACK:
            return
        packet_id, accepted = acknowledgement(body)
        if (packet := self.unacknowledged.pop(packet_id, None)) is None:
            self._tap.problems.append(f"packet identifier {packet_id} was acknowledged and had not been sent")
        elif accepted:
            self._tap.acknowledged(packet)


class Tap:
    """Reads all connections through a proxy.

    Attributes:
        acknowledged: Called with each message when the client's PUBACK for it comes, from the proxy's thread.
        problems: What must not be, one line each.
    """

    def __init__(self, acknowledged: Callable[[Publish], None]) -> None:
        self.acknowledged = acknowledged
        self.problems: list[str] = []
        self._open: set[Session] = set()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Read a connection, which is open until the context ends."""
        session = Session(self)
        self._open.add(session)
        try:
            yield session
        finally:
            self._open.remove(session)

    @property
    def subscribed(self) -> int:
        """Return how many topic filters were subscribed to over connections that are open."""
        return sum(session.filters for session in list(self._open))

    @property
    def unacknowledged(self) -> int:
        """Return how many messages were sent over connections that are open, and not acknowledged."""
        return sum(len(session.unacknowledged) for session in list(self._open))
