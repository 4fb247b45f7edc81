"""What clients send, read and checked. Pure: bytes in, values out; section numbers are those of MQTT 5.0."""

from typing import Final, NamedTuple

from sens_mock_mqtt_broker.topics import topic_name
from sens_mock_mqtt_broker.wire import (
    V5,
    V311,
    PacketError,
    PacketReader,
    Property,
    ReasonCode,
    malformed,
    protocol_error,
)

MOST_FILTERS: Final = 1000
"""Filters in one SUBSCRIBE or UNSUBSCRIBE, at most."""


class Will(NamedTuple):
    """A message to publish when a client goes without saying so (section 3.1.2.5)."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    properties: bytes
    expiry_seconds: int | None
    delay_seconds: int


class Connect(NamedTuple):
    """A CONNECT packet. The topic of its will stands as on the wire, its length before it."""

    version: int
    client_id: str
    clean_start: bool
    keep_alive_seconds: int
    session_expiry_seconds: int
    receive_maximum: int
    largest_packet: int
    will: Will | None


class FilterRequest(NamedTuple):
    """One filter of a SUBSCRIBE packet (section 3.8.3.1)."""

    topic_filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int


class PublishProperties(NamedTuple):
    """What goes on to subscribers, and how long the message is valid."""

    passed_on: bytes
    expiry_seconds: int | None


NEVER_EXPIRES: Final = 0xFFFFFFFF
_NO_PROPERTIES: Final = PublishProperties(b"", None)

_OF_CONNECT: Final = frozenset({0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27})
_OF_WILL: Final = frozenset({0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26})
_OF_PUBLISH: Final = frozenset({0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26})
_OF_SUBSCRIBE: Final = frozenset({0x0B, 0x26})
_OF_UNSUBSCRIBE: Final = frozenset({0x26})
_OF_ANSWERS: Final = frozenset({0x1F, 0x26})
_OF_DISCONNECT: Final = frozenset({0x11, 0x1F, 0x26})


def read_connect(body: bytes) -> Connect:
    """Read a CONNECT packet (section 3.1).

    Raises:
        PacketError: It is malformed, or of a version that is not spoken here.
    """
    reader = PacketReader(body)
    name, version = reader.binary(), reader.number(1)
    if name != b"MQTT" or version not in {V311, V5}:
        raise PacketError(ReasonCode.UNSUPPORTED_VERSION, "the client speaks neither MQTT 3.1.1 nor MQTT 5")
    flags, keep_alive = reader.number(1), reader.number(2)
    will_qos = flags >> 3 & 3
    if flags & 1 or will_qos == 3 or (not flags & 4 and flags & 0x38) or (version == V311 and flags & 0xC0 == 0x40):  # noqa: PLR2004 - section 3.1.2.3
        raise malformed("the flags of CONNECT contradict each other")
    found = reader.properties(_OF_CONNECT) if version == V5 else {}
    if Property.AUTHENTICATION_METHOD in found:
        raise PacketError(ReasonCode.BAD_AUTHENTICATION_METHOD, "no authentication method is supported")
    receive_maximum, largest = (
        int(found.get(Property.RECEIVE_MAXIMUM, 0xFFFF)),
        int(found.get(Property.LARGEST_PACKET, 1 << 28)),
    )
    if not receive_maximum or not largest:
        raise protocol_error("Receive Maximum and Maximum Packet Size are not 0")
    clean = bool(flags & 2)
    expiry = int(found.get(Property.SESSION_EXPIRY, 0)) if version == V5 else (0 if clean else NEVER_EXPIRES)
    client_id = reader.text()
    will = _read_will(reader, version, will_qos, retain=bool(flags & 0x20)) if flags & 4 else None
    if flags & 0x80:
        reader.text()
    if flags & 0x40:
        reader.binary()
    reader.finish()
    if not client_id and not clean and version == V311:
        raise PacketError(ReasonCode.CLIENT_ID_NOT_VALID, "a session that is kept needs a client id")
    return Connect(version, client_id, clean, keep_alive, expiry, receive_maximum, largest, will)


def _read_will(reader: PacketReader, version: int, qos: int, *, retain: bool) -> Will:
    properties, expiry, delay = b"", None, 0
    if version == V5:
        begin = reader.position
        found = reader.properties(_OF_WILL)
        passed_on = _NO_PROPERTIES
        if found:
            passed_on = _passed_on(reader, begin, found)
        properties, expiry, delay = *passed_on, int(found.get(Property.WILL_DELAY, 0))
    topic = reader.binary()
    field = len(topic).to_bytes(2) + topic
    topic_name(field)
    return Will(field, reader.binary(), qos, retain, properties, expiry, delay)


_HOP_BY_HOP: Final = frozenset({Property.MESSAGE_EXPIRY, Property.TOPIC_ALIAS, Property.WILL_DELAY})


def _passed_on(reader: PacketReader, begin: int, found: dict[int, int | bytes]) -> PublishProperties:
    """Return the properties that were just read, without those that are for this broker alone."""
    again = PacketReader(reader.data, begin, reader.position)
    again.variable()
    if not _HOP_BY_HOP & found.keys():
        return PublishProperties(again.rest(), None)
    kept = []
    while again.position < again.end:
        start = again.position
        name = again.variable()
        again.value(name)
        if name not in _HOP_BY_HOP:
            kept.append(reader.data[start : again.position])
    expiry = found.get(Property.MESSAGE_EXPIRY)
    return PublishProperties(b"".join(kept), None if expiry is None else int(expiry))


def read_publish_properties(data: bytes, position: int, end: int) -> tuple[PublishProperties, int]:
    """Read the properties of a PUBLISH packet (section 3.3.2.3); return them and where the payload begins.

    Raises:
        PacketError: They are malformed, or none that a client may send here.
    """
    reader = PacketReader(data, position, end)
    found = reader.properties(_OF_PUBLISH)
    if Property.SUBSCRIPTION_ID in found:
        raise protocol_error("a client's message has no subscription identifier")
    if Property.TOPIC_ALIAS in found:
        raise PacketError(ReasonCode.TOPIC_ALIAS_INVALID, "topic aliases were not offered")
    return _passed_on(reader, position, found), reader.position


def read_subscribe(body: bytes, version: int) -> tuple[bytes, list[FilterRequest]]:
    """Read a SUBSCRIBE packet (section 3.8); return its identifier and its filters, which may be invalid.

    Raises:
        PacketError: It is malformed.
    """
    reader = PacketReader(body)
    packet_id = _packet_id(reader)
    if version == V5 and Property.SUBSCRIPTION_ID in reader.properties(_OF_SUBSCRIBE):
        raise PacketError(ReasonCode.SUBSCRIPTION_IDS_NOT_SUPPORTED, "subscription identifiers were not offered")
    requests = []
    while reader.position < reader.end:
        topic_filter, options = reader.text(), reader.number(1)
        handling = options >> 4 & 3
        if options & 3 == 3 or handling == 3 or options & (0xC0 if version == V5 else 0xFC):  # noqa: PLR2004 - reserved values
            raise malformed("the options of a subscription are not valid")
        if options & 4 and topic_filter.startswith("$share/"):
            raise protocol_error("a shared subscription can't be without the client's own messages")
        requests.append(FilterRequest(topic_filter, options & 3, bool(options & 4), bool(options & 8), handling))
    _check_count(len(requests))
    return packet_id, requests


def read_unsubscribe(body: bytes, version: int) -> tuple[bytes, list[str]]:
    """Read an UNSUBSCRIBE packet (section 3.10).

    Raises:
        PacketError: It is malformed.
    """
    reader = PacketReader(body)
    packet_id = _packet_id(reader)
    if version == V5:
        reader.properties(_OF_UNSUBSCRIBE)
    filters = []
    while reader.position < reader.end:
        filters.append(reader.text())
    _check_count(len(filters))
    return packet_id, filters


def _packet_id(reader: PacketReader) -> bytes:
    packet_id = reader.take(2)
    if packet_id == b"\0\0":
        raise protocol_error("a packet identifier is not 0")
    return packet_id


def _check_count(filters: int) -> None:
    if not filters:
        raise protocol_error("a packet names no topic filter")
    if filters > MOST_FILTERS:
        raise PacketError(ReasonCode.QUOTA_EXCEEDED, f"a packet names more than {MOST_FILTERS} topic filters")


def read_answer(body: bytes, version: int) -> tuple[bytes, int]:
    """Read a PUBACK, PUBREC, PUBREL or PUBCOMP packet (sections 3.4 to 3.7): its identifier and reason code.

    Raises:
        PacketError: It is malformed.
    """
    reader = PacketReader(body)
    packet_id, reason = _packet_id(reader), 0
    if version == V5 and reader.position < reader.end:
        reason = reader.number(1)
        if reader.position < reader.end:
            reader.properties(_OF_ANSWERS)
    reader.finish()
    return packet_id, reason


def read_disconnect(body: bytes, version: int) -> tuple[int, int | None]:
    """Read a DISCONNECT packet (section 3.14): its reason code, and how long the session is to be kept if it says so.

    Raises:
        PacketError: It is malformed.
    """
    reader = PacketReader(body)
    reason, expiry = 0, None
    if version == V5 and body:
        reason = reader.number(1)
        if reader.position < reader.end:
            found = reader.properties(_OF_DISCONNECT).get(Property.SESSION_EXPIRY)
            expiry = None if found is None else int(found)
    reader.finish()
    return reason, expiry
