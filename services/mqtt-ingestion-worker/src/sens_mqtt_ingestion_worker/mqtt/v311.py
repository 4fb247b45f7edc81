"""The bytes of MQTT 3.1.1 (OASIS standard 2014), for brokers that know no other version; the packets are those of the `mqtt5` codec."""

from collections.abc import Sequence
from typing import Final

import mqtt5

_PROTOCOL: Final = b"\x00\x04MQTT\x04"  # sections 3.1.2.1 and 3.1.2.2
_MAX_LENGTH_BYTES: Final = 4

_PUBLISH: Final = 3  # section 2.2.1

_REFUSALS: Final = {  # section 3.2.2.3
    0: mqtt5.ConnAckReasonCode.SUCCESS,
    1: mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    2: mqtt5.ConnAckReasonCode.CLIENT_ID_NOT_VALID,
    3: mqtt5.ConnAckReasonCode.SERVER_UNAVAILABLE,
    4: mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    5: mqtt5.ConnAckReasonCode.NOT_AUTHORIZED,
}
_GRANTED: Final = {  # section 3.9.3
    0: mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    1: mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
    2: mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE,
    128: mqtt5.SubAckReasonCode.UNSPECIFIED_ERROR,
}


def connect(client_id: str, username: str | None, password: bytes | None, keep_alive: int, *, clean: bool) -> bytes:
    """Return CONNECT (section 3.1)."""
    flags = 0x02 * clean | 0x80 * (username is not None) | 0x40 * (password is not None)
    fields = [
        client_id.encode(),
        *([] if username is None else [username.encode()]),
        *([] if password is None else [password]),
    ]
    return _packet(0x10, _PROTOCOL + bytes([flags]) + keep_alive.to_bytes(2) + b"".join(map(_prefixed, fields)))


def subscribe(packet_id: int, topic_filters: Sequence[str]) -> bytes:
    """Return SUBSCRIBE with QoS 1 (section 3.8)."""
    return _packet(0x82, packet_id.to_bytes(2) + b"".join(_prefixed(each.encode()) + b"\x01" for each in topic_filters))


def unsubscribe(packet_id: int, topic_filters: Sequence[str]) -> bytes:
    """Return UNSUBSCRIBE (section 3.10)."""
    return _packet(0xA2, packet_id.to_bytes(2) + b"".join(_prefixed(each.encode()) for each in topic_filters))


def disconnect() -> bytes:
    """Return DISCONNECT (section 3.14)."""
    return b"\xe0\x00"


def read(buffer: memoryview) -> tuple[mqtt5.Packet, int]:
    """Return the first packet and its size. An UNSUBACK has no codes here: this version's says nothing.

    Raises:
        IndexError: It is not complete.
        ValueError: It is malformed, or none that a server sends.
    """
    length = shift = 0
    start = 1
    while True:
        byte = buffer[start]
        length |= (byte & 0x7F) << shift
        start += 1
        if not byte & 0x80:
            break
        shift += 7
        if start > _MAX_LENGTH_BYTES:
            raise ValueError("a length of more than four bytes")
    end = start + length
    if len(buffer) < end:
        raise IndexError
    return _decoded(buffer[0], bytes(buffer[start:end])), end


def _decoded(first: int, body: bytes) -> mqtt5.Packet:
    kind = first >> 4
    if kind == _PUBLISH:
        return _publish(first, body)
    match kind, len(body):  # types of section 2.2.1
        case (2, 2) if body[0] <= 1 and body[1] in _REFUSALS:
            return mqtt5.ConnAckPacket(session_present=bool(body[0]), reason_code=_REFUSALS[body[1]])
        case (4, 2):
            return mqtt5.PubAckPacket(int.from_bytes(body))
        case (9, size) if size > 2 and all(code in _GRANTED for code in body[2:]):  # noqa: PLR2004 - the identifier's bytes
            return mqtt5.SubAckPacket(int.from_bytes(body[:2]), [_GRANTED[code] for code in body[2:]])
        case (11, 2):
            return mqtt5.UnsubAckPacket(int.from_bytes(body), [])
        case (13, 0):
            return mqtt5.PingRespPacket()
    raise ValueError(f"no packet of a server: type {kind}, {len(body)} bytes")


def _publish(first: int, body: bytes) -> mqtt5.PublishPacket:
    """Decode PUBLISH (section 3.3)."""
    quality = first >> 1 & 3
    topic_end = 2 + int.from_bytes(body[:2])
    payload_start = topic_end + 2 if quality else topic_end
    if quality > 1 or len(body) < max(payload_start, 2):
        raise ValueError("a PUBLISH that is too short, or of a quality that was not asked for")
    packet_id = int.from_bytes(body[topic_end:payload_start]) if quality else None
    topic = body[2:topic_end].decode()
    if packet_id == 0 or not topic or "\0" in topic:
        raise ValueError("a PUBLISH without identifier or topic")
    return mqtt5.PublishPacket(
        topic, body[payload_start:], qos=mqtt5.QoS(quality), retain=bool(first & 1), packet_id=packet_id, duplicate=bool(first & 8)
    )  # fmt: skip


def _prefixed(text: bytes) -> bytes:
    return len(text).to_bytes(2) + text


def _packet(first: int, body: bytes) -> bytes:
    length = len(body)
    header = bytearray([first])
    while True:
        length, digit = divmod(length, 128)
        header.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(header) + body
