"""The elements of MQTT's packets, versions 3.1.1 and 5. Section numbers are those of MQTT 5.0; 3.1.1 has the same ones for them."""

import enum
from typing import Final

V311: Final = 4
V5: Final = 5
_LONGEST_LENGTH: Final = 4
"""Bytes that a packet's length takes, at most (section 1.5.5)."""


class PacketType(enum.IntEnum):
    """Types of packets (section 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class ReasonCode(enum.IntEnum):
    """Reason codes (section 2.4)."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1


class Property(enum.IntEnum):
    """Properties of version 5 that mean something here (section 2.2.2.2)."""

    MESSAGE_EXPIRY = 0x02
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    AUTHENTICATION_METHOD = 0x15
    WILL_DELAY = 0x18
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS = 0x23
    USER = 0x26
    LARGEST_PACKET = 0x27
    SUBSCRIPTION_IDS_AVAILABLE = 0x29


class PacketError(Exception):
    """A client's packet is against the protocol: its connection ends with the reason."""

    def __init__(self, reason: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason


# Types of properties (section 2.2.2.2).
_BYTE, _TWO, _FOUR, _VARIABLE, _BINARY, _TEXT, _PAIR = range(7)
_TYPES: Final = {
    0x01: _BYTE,
    Property.MESSAGE_EXPIRY: _FOUR,
    0x03: _TEXT,
    0x08: _TEXT,
    0x09: _BINARY,
    Property.SUBSCRIPTION_ID: _VARIABLE,
    Property.SESSION_EXPIRY: _FOUR,
    Property.AUTHENTICATION_METHOD: _TEXT,
    0x16: _BINARY,
    0x17: _BYTE,
    Property.WILL_DELAY: _FOUR,
    0x19: _BYTE,
    0x1F: _TEXT,
    Property.RECEIVE_MAXIMUM: _TWO,
    0x22: _TWO,
    Property.TOPIC_ALIAS: _TWO,
    Property.USER: _PAIR,
    Property.LARGEST_PACKET: _FOUR,
}


def malformed(text: str) -> PacketError:
    return PacketError(ReasonCode.MALFORMED_PACKET, text)


def protocol_error(text: str) -> PacketError:
    return PacketError(ReasonCode.PROTOCOL_ERROR, text)


class PacketReader:
    """Reads a packet's body from front to end, never beyond it (section 1.5)."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """Return so many bytes."""
        begin = self.position
        self.position = begin + count
        if self.position > self.end:
            raise malformed("a packet is shorter than it says")
        return self.data[begin : self.position]

    def number(self, count: int) -> int:
        """Return an integer of so many bytes."""
        return int.from_bytes(self.take(count))

    def variable(self) -> int:
        """Return a variable byte integer (section 1.5.5)."""
        value = 0
        for index in range(_LONGEST_LENGTH):
            digit = self.number(1)
            value |= (digit & 127) << (7 * index)
            if digit < 128:  # noqa: PLR2004 - the continuation bit
                return value
        raise malformed("a number is longer than four bytes")

    def binary(self) -> bytes:
        """Return bytes with their length before them."""
        return self.take(self.number(2))

    def text(self) -> str:
        """Return a text (section 1.5.4)."""
        return decode(self.binary())

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.end - self.position)

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.position != self.end:
            raise malformed("a packet is longer than what it holds")

    def properties(self, allowed: frozenset[int]) -> dict[int, int | bytes]:
        """Return the properties that come next; user properties are only checked."""
        end = self.variable() + self.position
        if end > self.end:
            raise malformed("the properties are longer than their packet")
        inner = PacketReader(self.data, self.position, end)
        found: dict[int, int | bytes] = {}
        while inner.position < end:
            name = inner.variable()
            if name not in allowed:
                raise protocol_error(f"property {name} does not belong into this packet")
            if name in found and name != Property.USER:
                raise protocol_error(f"property {name} is there twice")
            found[name] = inner.value(name)
        self.position = end
        return found

    def value(self, name: int) -> int | bytes:
        """Return the value of a property; a user property is only checked."""
        kind = _TYPES[name]
        if kind == _VARIABLE:
            return self.variable()
        if kind == _BINARY:
            return self.binary()
        if kind == _TEXT:
            return self.text().encode()
        if kind == _PAIR:
            self.text()
            self.text()
            return b""
        return self.number({_BYTE: 1, _TWO: 2, _FOUR: 4}[kind])


def decode(data: bytes) -> str:
    """Return a text's characters.

    Raises:
        PacketError: They are not UTF-8, or hold U+0000 (section 1.5.4).
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise malformed("a text is not UTF-8") from None
    if "\0" in text:
        raise malformed("a text holds the character NUL")
    return text
