"""A client's connection: bytes become packets, packets become calls of the broker, and its answers bytes again."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

import structlog

from sens_mock_mqtt_broker import metrics, received, sent
from sens_mock_mqtt_broker.messages import ApplicationMessage
from sens_mock_mqtt_broker.session import Session
from sens_mock_mqtt_broker.wire import V5, V311, PacketError, PacketType, ReasonCode, malformed, protocol_error

log = structlog.get_logger()

LARGEST_CONNECT: Final = 1 << 18
"""Bytes of a client's first packet, at most: nothing is known of it yet."""

_SMALL: Final = 1 << 16
"""Bytes of an unfinished packet that every connection may hold."""

_WRITE_BYTES: Final = 1 << 18
"""Bytes that are written ahead of a client's reading; more waits in its session."""

_UNREAD_ANSWERS_BYTES: Final = 1 << 20
"""Answers that a client may leave unread before it is not read either."""

_CLOSE_SECONDS: Final = 5.0
_FIRST_BYTES: Final = frozenset({0x10, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0} | set(range(0x30, 0x40)))
"""First bytes of the packets that clients send (sections 2.1.2 and 2.1.3); AUTH is none of them without a method."""

_LEVEL_INDEX: Final = 6


class Sessions(Protocol):
    """The broker, as a connection sees it.

    Attributes:
        largest_packet: Bytes of a packet, at most.
        unfinished_bytes: Of the unfinished packets of all connections.
        largest_unfinished_bytes: Their bound.
    """

    largest_packet: int
    unfinished_bytes: int
    largest_unfinished_bytes: int

    def opened(self, connection: "ClientConnection") -> None:
        """Take note of a connection."""

    def closed(self, connection: "ClientConnection") -> None:
        """Take note of its end."""

    def connect(self, connection: "ClientConnection", packet: received.Connect) -> tuple[Session, bool]:
        """Return the client's session, and whether it was there before."""

    def subscribe(
        self, session: Session, requests: Sequence[received.FilterRequest]
    ) -> tuple[list[int], list[tuple[ApplicationMessage, int]]]:
        """Subscribe a session; return the codes of SUBACK, and retained messages with their flags."""

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> list[int]:
        """Take subscriptions back; return the codes of UNSUBACK."""

    def publish(self, message: ApplicationMessage, publisher: Session | None = None) -> ReasonCode:
        """Pass a message on; return what its publisher is told."""


class ClientConnection(asyncio.Protocol):
    """One client. Its `end` is safe to call at any time; `connection_lost` comes once, whichever side was first."""

    def __init__(self, broker: Sessions) -> None:
        self.version = V311
        self.largest_packet = 1 << 28
        self.keep_alive_seconds = 0
        self.address = ""
        self.session: Session | None = None
        self.will: received.Will | None = None
        self.ended: str | None = None
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._later = loop.call_later
        self._soon = loop.call_soon
        self.heard_at = self.waiting_since = loop.time()
        self._broker = broker
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._needed = 0
        self._reserved = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.writable = True
        self._paused = False
        self._reading = True

    @property
    def is_unfinished(self) -> bool:
        """Whether the client has begun a packet and not ended it; `waiting_since` says when."""
        return self.session is None or bool(self._partial)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = stream = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        stream.set_write_buffer_limits(high=_WRITE_BYTES)
        self.address = (stream.get_extra_info("peername") or ("",))[0]
        self._broker.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell the broker."""
        self.ended = self.ended or "closed"
        self._out.clear()
        self._broker.unfinished_bytes -= self._reserved
        self._reserved = 0
        metrics.ENDED.labels(self.ended).inc()
        self._broker.closed(self)

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._paused = True
        self.writable = False

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self.writable = True
        self._read_again()
        if self.session is not None:
            self.session.pump()

    def send(self, packet: bytes) -> None:
        """Send a packet with all others of this turn of the event loop."""
        out = self._out
        if not out:
            self._soon(self._flush)
        out.append(packet)
        self._out_bytes = total = self._out_bytes + len(packet)
        if total > _WRITE_BYTES:
            self.writable = False

    def _flush(self) -> None:
        transport = self._transport
        if not self._out or transport is None or transport.is_closing():
            return
        data = b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        self.writable = not self._paused
        transport.write(data)
        if self._paused and self._reading and transport.get_write_buffer_size() > _UNREAD_ANSWERS_BYTES:
            self._reading = False
            transport.pause_reading()
        elif self.session is not None:
            self.session.pump()

    def _read_again(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def end(self, reason: ReasonCode) -> None:
        """End the connection; a client of version 5 is told why."""
        if self.ended is not None or self._transport is None:
            return
        self.ended = reason.name.lower()
        if self.version == V5 and self.session is not None:
            self.send(sent.disconnect(reason))
        self._flush()
        self._transport.close()
        self._later(_CLOSE_SECONDS, self._transport.abort)  # closing waits for a client to read

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self.ended is not None:
            return
        self.heard_at = self._time()
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        try:
            messages = self._take(data)
            if messages:
                metrics.RECEIVED.inc(messages)
        except PacketError as error:
            log.debug("a client broke the protocol", address=self.address, problem=str(error))
            self.end(error.reason)
        except Exception:
            log.exception("a client's packet could not be handled", address=self.address)
            self.end(ReasonCode.UNSPECIFIED)

    def _take(self, data: bytes) -> int:
        """Take the packets in `data`, keep what is left of it; return how many messages were published."""
        position, end, messages = 0, len(data), 0
        session = self.session
        largest = self._broker.largest_packet if session is not None else LARGEST_CONNECT
        while end - position >= 2:  # noqa: PLR2004 - type and length
            first, length, body = data[position], data[position + 1], position + 2
            if length > 127:  # noqa: PLR2004 - more digits follow
                length, body = _length(data, position + 1, end)
                if body == 0:
                    break
            if length > largest:
                raise PacketError(ReasonCode.PACKET_TOO_LARGE, f"a packet is larger than {largest} bytes")
            stop = body + length
            if stop > end:
                self._keep(data, position, stop - position)
                return messages
            if session is None:
                self._handle(first, data[body:stop])
                session, largest = self.session, self._broker.largest_packet
            elif first & 0xF0 == 0x30:  # noqa: PLR2004 - PUBLISH
                messages += 1
                self._publish(session, data, first & 15, body, stop)
            elif first == 0x40 and length == 2:  # noqa: PLR2004 - PUBACK without a reason, which is nearly all of them
                session.acknowledge(data[body:stop])
            else:
                self._handle(first, data[body:stop])
            if self.ended is not None:
                return messages
            position = stop
        self._keep(data, position, end - position + 1)
        return messages

    def _keep(self, data: bytes, position: int, needed: int) -> None:
        """Keep the beginning of a packet until the rest is there; all connections together keep a bounded amount of large ones."""
        reserved = needed if needed > _SMALL else 0
        self._broker.unfinished_bytes += reserved - self._reserved
        self._reserved = reserved
        if self._broker.unfinished_bytes > self._broker.largest_unfinished_bytes and reserved:
            raise PacketError(ReasonCode.QUOTA_EXCEEDED, "too many clients have begun large packets")
        if position < len(data):
            self._partial += data[position:]
            self._needed = needed
            self.waiting_since = self.heard_at

    def _publish(self, session: Session, data: bytes, flags: int, body: int, stop: int) -> None:
        """Take a PUBLISH packet (section 3.3): the one that has to be fast."""
        qos = flags >> 1 & 3
        if qos == 3 or stop - body < 2 or (flags & 8 and not qos):  # noqa: PLR2004 - reserved, and the topic's length
            raise malformed("the flags or the length of PUBLISH are not valid")
        position = body + 2 + (data[body] << 8 | data[body + 1])
        topic = data[body:position]
        packet_id = b""
        if qos:
            packet_id = data[position : position + 2]
            position += 2
            if packet_id == b"\0\0":
                raise protocol_error("a packet identifier is not 0")
        if position + (self.version == V5) > stop:
            raise malformed("a PUBLISH packet is shorter than it says")
        properties, expires_at = b"", None
        if self.version == V5:
            if data[position]:
                properties, expires_at, position = self._properties(data, position, stop)
            else:
                position += 1
        message = ApplicationMessage(topic, data[position:stop], qos, flags & 1, properties, expires_at)
        if qos < 2:  # noqa: PLR2004 - exactly once is the one that takes two steps
            reason = self._broker.publish(message, session)
            if qos:
                self.send(b"\x40\x02" + packet_id if not reason else self._puback(packet_id, reason))
            return
        reason = ReasonCode.SUCCESS
        if packet_id not in session.received:
            reason = self._broker.publish(message, session)
            session.received.add(packet_id)
        self.send(sent.answer(PacketType.PUBREC, packet_id, self.version, reason))

    def _properties(self, data: bytes, position: int, stop: int) -> tuple[bytes, float | None, int]:
        (passed_on, expiry), position = received.read_publish_properties(data, position, stop)
        return passed_on, None if expiry is None else self._time() + expiry, position

    def _puback(self, packet_id: bytes, reason: ReasonCode) -> bytes:
        return sent.answer(PacketType.PUBACK, packet_id, self.version, reason)

    def _handle(self, first: int, body: bytes) -> None:
        """Take a packet other than PUBLISH."""
        if first not in _FIRST_BYTES:
            raise malformed("a packet's first byte is none that a client sends")
        kind, session = PacketType(first >> 4), self.session
        if session is None:
            if kind is not PacketType.CONNECT:
                raise protocol_error("the first packet is not CONNECT")
            self._connect(body)
            return
        match kind:
            case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
                self._answer(session, kind, body)
            case PacketType.PINGREQ if not body:
                self.send(sent.PINGRESP)
            case PacketType.SUBSCRIBE:
                packet_id, requests = received.read_subscribe(body, self.version)
                codes, retained = self._broker.subscribe(session, requests)
                self.send(sent.suback(self.version, packet_id, codes))
                for message, flags in retained:
                    session.deliver(message, flags)
            case PacketType.UNSUBSCRIBE:
                packet_id, filters = received.read_unsubscribe(body, self.version)
                self.send(sent.unsuback(self.version, packet_id, self._broker.unsubscribe(session, filters)))
            case PacketType.DISCONNECT:
                self._disconnect(session, body)
            case _:
                raise protocol_error(f"a client does not send {kind.name} here")

    def _answer(self, session: Session, kind: PacketType, body: bytes) -> None:
        packet_id, reason = (body, 0) if len(body) == 2 else received.read_answer(body, self.version)  # noqa: PLR2004 - the identifier
        if (
            kind is PacketType.PUBACK
            or kind is PacketType.PUBCOMP
            or (kind is PacketType.PUBREC and reason >= ReasonCode.UNSPECIFIED)
        ):
            session.acknowledge(packet_id)
        elif kind is PacketType.PUBREC:
            known = session.release(packet_id)
            reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_ID_NOT_FOUND
            self.send(sent.answer(PacketType.PUBREL, packet_id, self.version, reason))
        else:
            reason = ReasonCode.SUCCESS if packet_id in session.received else ReasonCode.PACKET_ID_NOT_FOUND
            session.received.discard(packet_id)
            self.send(sent.answer(PacketType.PUBCOMP, packet_id, self.version, reason))

    def _connect(self, body: bytes) -> None:
        try:
            packet = received.read_connect(body)
            self.version, self.largest_packet = packet.version, packet.largest_packet
            session, present = self._broker.connect(self, packet)
        except PacketError as error:
            # A client of a version above 5 understands an answer of version 5; one of an older version does not.
            level = body[_LEVEL_INDEX] if len(body) > _LEVEL_INDEX and body[:_LEVEL_INDEX] == b"\x00\x04MQTT" else 0
            version = V5 if level >= V5 else V311
            self.send(sent.connack(version, error.reason, session_present=False, assigned="", largest_packet=0))
            raise
        self.keep_alive_seconds, self.will, self.session = packet.keep_alive_seconds, packet.will, session
        assigned = "" if packet.client_id else session.client_id
        self.send(
            sent.connack(
                self.version,
                ReasonCode.SUCCESS,
                session_present=present,
                assigned=assigned,
                largest_packet=self._broker.largest_packet,
            )
        )
        session.attach(self, packet.receive_maximum)

    def _disconnect(self, session: Session, body: bytes) -> None:
        reason, expiry = received.read_disconnect(body, self.version)
        if expiry is not None:
            if expiry and not session.expiry_seconds:
                raise protocol_error("a session that ends with its connection can't be kept at its end")
            session.expiry_seconds = expiry
        if reason != ReasonCode.DISCONNECT_WITH_WILL:
            self.will = None
        self.ended = "closed"
        if self._transport is not None:
            self._flush()
            self._transport.close()
            self._later(_CLOSE_SECONDS, self._transport.abort)


def _length(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a packet's length and where its body begins, 0 for both while not all digits are there (section 2.1.4)."""
    length = 0
    for index in range(4):
        if position + index >= end:
            return 0, 0
        digit = data[position + index]
        length |= (digit & 127) << (7 * index)
        if digit < 128:  # noqa: PLR2004 - the last digit
            return length, position + index + 1
    raise malformed("a packet's length has more than four digits")
