"""What the broker sends, put together. Pure: values in, bytes out; section numbers are those of MQTT 5.0."""

from typing import Final

from sens_mock_mqtt_broker.wire import V5, PacketType, Property, ReasonCode

_RETURN_CODES: Final = {
    ReasonCode.SUCCESS: 0,
    ReasonCode.UNSUPPORTED_VERSION: 1,
    ReasonCode.CLIENT_ID_NOT_VALID: 2,
    ReasonCode.SERVER_BUSY: 3,
}
"""What CONNACK says in version 3.1.1 (its section 3.2.2.3)."""


def length_bytes(length: int) -> bytes:
    """Return a number as a variable byte integer (section 1.5.5)."""
    encoded = bytearray()
    while length > 127:  # noqa: PLR2004 - seven bits a byte
        encoded.append(length & 127 | 128)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


_SHORT: Final = 4096
_LENGTHS: Final = [length_bytes(length) for length in range(_SHORT)]


def packet(first: int, body: bytes) -> bytes:
    """Return a packet: its first byte, its length, its body."""
    return bytes((first,)) + length_bytes(len(body)) + body


def publish(  # noqa: PLR0917 - called for every message, and keywords take time
    version: int,
    field: bytes,
    payload: bytes,
    flags: int,
    packet_id: bytes,
    properties: bytes,
    expiry_seconds: int | None,
) -> bytes:
    """Return a PUBLISH packet (section 3.3).

    Args:
        version: Of the protocol.
        field: Topic, its length before it.
        payload: As it is.
        flags: DUP, QoS and RETAIN, as in the first byte.
        packet_id: Two bytes, none at QoS 0.
        properties: Those to pass on.
        expiry_seconds: How long the message is still valid; None for ever.
    """
    if version == V5:
        if expiry_seconds is not None:
            properties = bytes((Property.MESSAGE_EXPIRY,)) + expiry_seconds.to_bytes(4) + properties
        packet_id += length_bytes(len(properties)) + properties if properties else b"\0"
    length = len(field) + len(packet_id) + len(payload)
    encoded = _LENGTHS[length] if length < _SHORT else length_bytes(length)
    return b"%c%b%b%b%b" % (0x30 | flags, encoded, field, packet_id, payload)


def connack(version: int, reason: ReasonCode, *, session_present: bool, assigned: str, largest_packet: int) -> bytes:
    """Return a CONNACK packet (section 3.2)."""
    flags = int(session_present)
    if version != V5:
        return bytes((0x20, 2, flags, _RETURN_CODES.get(reason, 3)))
    properties = b""
    if reason is ReasonCode.SUCCESS:
        properties = bytes((Property.SUBSCRIPTION_IDS_AVAILABLE, 0, Property.LARGEST_PACKET)) + largest_packet.to_bytes(
            4
        )
        if assigned:
            name = assigned.encode()
            properties += bytes((Property.ASSIGNED_CLIENT_ID,)) + len(name).to_bytes(2) + name
    return packet(0x20, bytes((flags, reason)) + length_bytes(len(properties)) + properties)


def answer(kind: PacketType, packet_id: bytes, version: int, reason: ReasonCode = ReasonCode.SUCCESS) -> bytes:
    """Return a PUBACK, PUBREC, PUBREL or PUBCOMP packet (sections 3.4 to 3.7)."""
    first = kind << 4 | (2 if kind is PacketType.PUBREL else 0)
    if version == V5 and reason:
        return bytes((first, 3)) + packet_id + bytes((reason,))
    return bytes((first, 2)) + packet_id


def suback(version: int, packet_id: bytes, codes: list[int]) -> bytes:
    """Return a SUBACK packet (section 3.9)."""
    if version != V5:
        codes = [min(code, 0x80) for code in codes]
    return packet(0x90, packet_id + (b"\0" if version == V5 else b"") + bytes(codes))


def unsuback(version: int, packet_id: bytes, codes: list[int]) -> bytes:
    """Return an UNSUBACK packet (section 3.11)."""
    return packet(0xB0, packet_id + (b"\0" + bytes(codes) if version == V5 else b""))


PINGRESP: Final = b"\xd0\x00"


def disconnect(reason: ReasonCode) -> bytes:
    """Return a DISCONNECT packet of version 5 (section 3.14); version 3.1.1 has none from a server."""
    return bytes((0xE0, 1, reason))
