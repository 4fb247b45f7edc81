"""The MQTT 5 session: a persistent session, manual acknowledgement, `receive_max` as the valve (MQTT 5.0, OASIS standard 2019).

The packets' bytes are the `mqtt5` codec's work; when to send which, and what to do with those that come, is here.
"""

import asyncio
import time
from collections import deque
from typing import Final, cast

import mqtt5
import structlog

from sens_common.envelope import Message
from sens_mqtt_ingestion_worker import metrics
from sens_mqtt_ingestion_worker.clock import STEP, ReceiptClock, crowd
from sens_mqtt_ingestion_worker.pipeline import Delivery, SessionTakenError, SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import MqttSettings
from sens_mqtt_ingestion_worker.status import Waiting

log = structlog.get_logger()

_SUBSCRIBE_PACKET_ID: Final = 1
_UNSUBSCRIBE_PACKET_ID: Final = 2
_FIRST_FAILURE: Final = 128  # reason codes from here on are refusals (MQTT 5.0, section 2.4)
_PAUSE_READING_ABOVE: Final = 2
"""Reading pauses when more messages than ``receive_max`` times this are waiting; only QoS 0 can lead to it."""

_PAUSE_READING_ABOVE_BYTES: Final = 64 << 20
"""Likewise for their size, because `receive_max` bounds no bytes."""

_FIXED_HEADER_BYTES: Final = 5  # at most; MQTT 5.0, section 2.1.1

_BUSY_MESSAGES: Final = 50
_GATHERED_SHARE: Final = 4
_GATHERED_BYTES: Final = 1 << 20
_GATHERING_SECONDS: Final = 0.02
_GATHERING_STEP_SECONDS: Final = 0.004
"""An envelope costs this worker and the stream as much as a hundred messages. So when the last delivery had `_BUSY_MESSAGES`, the next one
is gathered until it has ``receive_max`` divided by `_GATHERED_SHARE`, or so many bytes, for `_GATHERING_SECONDS` at most. A broker that
stops at the same number twice waits for acknowledgements, because its own limit is lower; then that number is enough."""

_NO_FLAGS: Final[frozenset[int]] = frozenset()


class MqttConnection(asyncio.Protocol):
    """One connection, as `pipeline.Connection`."""

    def __init__(
        self,
        settings: MqttSettings,
        max_packet_bytes: int,
        clock: ReceiptClock,
        left_over: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare.

        Args:
            settings: Of the broker and the session.
            max_packet_bytes: Largest packet that is taken.
            clock: For the receipt times.
            left_over: What a resumed session may be subscribed to beside the settings' filters.
        """
        self._settings = settings
        self._max_packet_bytes = max_packet_bytes
        self._clock = clock
        self.session_present = False
        self._transport: asyncio.Transport | None = None
        self._keep_alive_seconds = settings.keep_alive_seconds
        self._partial = b""
        self._messages: list[Message] = []
        self._waiting_bytes = 0
        self._delivered = 0  # messages of the last delivery
        self._enough = settings.receive_max // _GATHERED_SHARE
        self._stopped_at = 0
        self._flagged: set[int] = set()
        self._receipts = 0
        self._pings: deque[int] = deque()  # that are not answered: receipts before each that asks for more, else -1
        self._caught_up = False
        self._ended: str | None = None
        self._was_taken = False
        self._reading_paused = False
        self._wake: asyncio.Future[None] | None = None
        self._connack: mqtt5.ConnAckPacket | None = None
        self._subscribed = False
        self._left_over = sorted(left_over)
        self._refused: list[str] = []
        self._settled = asyncio.Event()
        self._taken = 0  # messages
        self._came_before: int | None = None  # messages before SUBACK, while UNSUBACK is awaited
        self._last_sent = self._last_heard = time.monotonic()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; whoever waits learns of it."""
        hint = "" if self._connack is not None else "; does it speak MQTT 5, and on this port?"
        self._end(f"the connection was lost ({exc})" if exc else f"the broker closed the connection{hint}")

    def data_received(self, data: bytes) -> None:
        """Take the packets that are complete; keep the rest for the next call."""
        self._last_heard = time.monotonic()
        if self._partial:
            data = self._partial + data
        view = memoryview(data)
        size = len(data)
        offset = 0
        first, crowded = self._clock.next()
        received_at = first
        messages = self._messages
        before = len(messages)
        try:
            while offset < size:
                packet, length = mqtt5.read(view[offset:])
                offset += length
                if type(packet) is mqtt5.PublishPacket:
                    packet_id = packet.packet_id or 0
                    messages.append(Message(packet.topic, packet.payload, received_at, packet_id))
                    if packet.duplicate and packet_id:
                        self._flagged.add(packet_id)
                    received_at += STEP
                    self._waiting_bytes += length
                else:
                    self._take(packet)
        except IndexError:  # the last packet is not complete yet
            pass
        except ValueError as error:
            log.warning("malformed packet from the broker", error=str(error))
            self._disconnect(mqtt5.DisconnectReasonCode.MALFORMED_PACKET, "the broker sent a malformed packet")
        if received_at > first:
            crowded = crowded and self._ended is None
            self._clock.gave(self._crowd(before, first) if crowded else received_at - STEP)
        self._keep(bytes(view[offset:]))
        if messages:
            self._pause_when_full()
            self._wake_up()

    def _crowd(self, before: int, first: int) -> int:
        """Let messages of different devices have the same receipt times, from a message on; return the last one given."""
        crowded = crowd(self._messages[before:], first)
        self._messages[before:] = crowded
        return max(message.received_at for message in crowded)

    def _keep(self, partial: bytes) -> None:
        """Keep the beginning of a packet."""
        self._partial = partial
        if len(self._partial) > self._max_packet_bytes + _FIXED_HEADER_BYTES:
            self._partial = b""
            self._disconnect(
                mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE,
                f"the broker sent a packet of more than {self._max_packet_bytes:,} bytes, which it was told not to",
            )

    def _pause_when_full(self) -> None:
        """Read nothing more while too much waits for the pipeline."""
        too_many = len(self._messages) > self._settings.receive_max * _PAUSE_READING_ABOVE
        too_much = self._waiting_bytes > _PAUSE_READING_ABOVE_BYTES
        if (too_many or too_much) and not self._reading_paused and self._transport:
            self._transport.pause_reading()
            self._reading_paused = True

    def _take(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.ConnAckPacket():
                self._connack = packet
                self._wake_up()
            case mqtt5.SubAckPacket():
                self._take_suback(packet)
            case mqtt5.UnsubAckPacket():
                self._take_unsuback(packet)
            case mqtt5.DisconnectPacket():
                reason = packet.reason_code.name.lower().replace("_", " ")
                self._was_taken = packet.reason_code is mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
                self._end(f"the broker ended the connection: {packet.reason_str or reason}")
            case mqtt5.PingRespPacket():
                if self._pings and self._pings.popleft() == self._receipts and not self._messages:
                    self._caught_up = True
            case _:
                self._disconnect(
                    mqtt5.DisconnectReasonCode.PROTOCOL_ERROR, f"the broker sent an unexpected {type(packet).__name__}"
                )

    def _take_suback(self, packet: mqtt5.SubAckPacket) -> None:
        for topic_filter, code in zip(self._settings.topic_filters, packet.reason_codes, strict=False):
            if int(code) >= _FIRST_FAILURE:
                self._disconnect(
                    mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION,
                    _refusal(f"the subscription to {topic_filter}", code.name, packet.reason_str),
                )
                return
        self._subscribed = True
        self._wake_up()
        if self._left_over and self.session_present:
            # Only now, so that there is a subscription at every moment.
            self._came_before = self._taken + len(self._messages)
            self._write(mqtt5.UnsubscribePacket(_UNSUBSCRIBE_PACKET_ID, self._left_over).write())
        else:
            self._settled.set()

    def _take_unsuback(self, packet: mqtt5.UnsubAckPacket) -> None:
        codes = dict(zip(self._left_over, packet.reason_codes, strict=False))
        self._refused = [each for each, code in codes.items() if int(code) >= _FIRST_FAILURE]
        ended = [each for each, code in codes.items() if code is mqtt5.UnsubAckReasonCode.SUCCESS]
        if ended:
            metrics.SUBSCRIPTIONS_ENDED.inc(len(ended))
            log.info("ended earlier subscriptions of the session", topic_filters=ended, messages=self._count_between())
        self._came_before = None
        self._settled.set()

    def _count_between(self) -> int:
        """Count the messages that came while the session had its earlier and its new subscriptions; return their number."""
        if self._came_before is None:
            return 0
        count = self._taken + len(self._messages) - self._came_before
        metrics.BETWEEN_SUBSCRIPTIONS.inc(count)
        return count

    # What the source and the pipeline call.

    @property
    def waiting(self) -> Waiting:
        """See `pipeline.Connection.waiting`."""
        return Waiting(len(self._messages), self._waiting_bytes, self._reading_paused)

    async def open(self) -> None:
        """Send CONNECT and SUBSCRIBE and wait for their answers.

        Raises:
            SourceUnavailableError: The broker refuses, or closes the connection.
        """
        settings = self._settings
        self._write(
            mqtt5.ConnectPacket(
                client_id=settings.client_id,
                username=settings.username,
                password=settings.password.get_secret_value().encode() if settings.password is not None else None,
                clean_start=False,
                keep_alive=settings.keep_alive_seconds,
                session_expiry_interval=settings.session_expiry_seconds,
                receive_max=settings.receive_max,
                topic_alias_max=0,
                max_packet_size=self._max_packet_bytes,
            ).write()
        )
        while self._connack is None:
            await self._something()
        connack = self._connack
        if int(connack.reason_code) >= _FIRST_FAILURE:
            raise SourceUnavailableError(_refusal("the connection", connack.reason_code.name, connack.reason_str))
        self.session_present = connack.session_present
        if connack.server_keep_alive is not None:
            self._keep_alive_seconds = connack.server_keep_alive
        if (
            connack.session_expiry_interval is not None
            and connack.session_expiry_interval < settings.session_expiry_seconds
        ):
            log.warning("the broker keeps the session for a shorter time", seconds=connack.session_expiry_interval)
        # A resumed session still has its subscriptions, and a broker may answer this one only after it got acknowledgements.
        self._write(
            mqtt5.SubscribePacket(
                _SUBSCRIBE_PACKET_ID,
                [
                    # A retained message is a copy of an earlier one: as telemetry it would be stored twice.
                    mqtt5.TopicFilter(
                        topic_filter, max_qos=mqtt5.QoS.AT_LEAST_ONCE, retain_handling=mqtt5.RetainHandling.SEND_NEVER
                    )
                    for topic_filter in settings.topic_filters
                ],
            ).write()
        )
        while not self._subscribed and not self._messages:
            await self._something()

    async def settled(self) -> list[str]:
        """Wait until the session is subscribed to what the settings name, and to nothing else; return what it could not be rid of."""
        await self._settled.wait()
        return self._refused

    async def receive(self) -> Delivery:
        """See `pipeline.Connection.receive`."""
        while not self._messages:
            await self._something()
        if self._delivered >= _BUSY_MESSAGES:
            await self._gather()
            if not self._messages:  # the connection has ended meanwhile
                await self._something()
        messages, self._messages = self._messages, []
        self._delivered = len(messages)
        self._taken += len(messages)
        self._receipts += 1
        self._waiting_bytes = 0
        flagged = _NO_FLAGS
        if self._flagged:
            flagged = frozenset(self._flagged)
            self._flagged.clear()
        if self._reading_paused and self._transport is not None and self._ended is None:
            self._transport.resume_reading()
            self._reading_paused = False
        return Delivery(messages, flagged, self._caught_up)

    def acknowledge(self, messages: list[Message]) -> None:
        """Write PUBACKs: fixed header 0x40, length 2, identifier; the reason is success (MQTT 5.0, section 3.4.2.1)."""
        if self._ended is not None or self._transport is None:
            return
        packets = [b"\x40\x02" + message.packet_id.to_bytes(2) for message in messages if message.packet_id]
        if packets:
            self._write(b"".join(packets))
            metrics.ACKNOWLEDGED.inc(len(packets))

    def ask_for_more(self) -> None:
        """See `pipeline.Connection.ask_for_more`: a broker that has taken all acknowledgements sends what it has, then answers."""
        if not self._caught_up and not self._messages:
            self._ping(self._receipts)

    def _ping(self, receipts: int) -> None:
        self._pings.append(receipts)
        self._write(mqtt5.PingReqPacket().write())

    async def keep_alive(self) -> None:
        """Send PINGREQ when nothing was sent for a while; end the connection when nothing comes (MQTT 5.0, section 3.1.2.10)."""
        interval = self._keep_alive_seconds
        if not interval:
            return
        while self._ended is None:
            await asyncio.sleep(interval / 4)
            now = time.monotonic()
            if now - self._last_heard > interval * 1.5 and not self._reading_paused:
                self._end(f"nothing came from the broker for {interval * 1.5:g} s")
                self.abort()
            elif now - min(self._last_sent, self._last_heard) >= interval / 2:
                self._ping(-1)

    def close(self) -> None:
        """Say good-bye and close; the broker keeps the session."""
        self._disconnect(mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION, "the connection was closed")

    def abort(self) -> None:
        """Close without a word."""
        self._end("the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    # The small parts.

    async def _gather(self) -> None:
        """Wait for more messages."""
        if len(self._messages) > self._enough:
            self._enough = self._settings.receive_max // _GATHERED_SHARE
        deadline = time.monotonic() + _GATHERING_SECONDS
        while (
            (count := len(self._messages)) < self._enough
            and self._waiting_bytes < _GATHERED_BYTES
            and self._ended is None
        ):
            if time.monotonic() > deadline:
                if count == self._stopped_at:
                    self._enough = count
                self._stopped_at = count
                return
            await asyncio.sleep(_GATHERING_STEP_SECONDS)

    async def _something(self) -> None:
        """Wait until something comes.

        Raises:
            SourceUnavailableError: The connection has ended.
        """
        if self._ended is not None:
            raise (SessionTakenError if self._was_taken else SourceUnavailableError)(self._ended)
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._last_sent = time.monotonic()
            self._transport.write(data)

    def _disconnect(self, code: mqtt5.DisconnectReasonCode, reason: str) -> None:
        if self._ended is None:
            self._write(mqtt5.DisconnectPacket(reason_code=code).write())
            self._end(reason)
        if self._transport is not None:
            self._transport.close()

    def _end(self, reason: str) -> None:
        if self._ended is not None:
            return
        self._count_between()
        self._ended = reason
        # The broker sends again what was not acknowledged; only what came with QoS 0 would be lost.
        self._messages = [message for message in self._messages if not message.packet_id]
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _refusal(what: str, code: str, text: str | None) -> str:
    reason = code.lower().replace("_", " ")
    return f"the broker refuses {what}: {reason}" + (f" ({text})" if text else "")
