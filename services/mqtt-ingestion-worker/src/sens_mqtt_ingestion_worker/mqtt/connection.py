"""The MQTT 5 session: a persistent session, manual acknowledgement, `receive_max` as the valve (MQTT 5.0, OASIS standard 2019).

When to send which packet, and what to do with those that come, is here.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Final, cast

import mqtt5
import structlog

from sens_common.envelope import Message
from sens_common.ingestion.clock import STEP, ReceiptClock, numbered_by_device
from sens_common.source_states import Reason
from sens_mqtt_ingestion_worker import metrics
from sens_mqtt_ingestion_worker.mqtt import packets
from sens_mqtt_ingestion_worker.mqtt.gathering import Gathering
from sens_mqtt_ingestion_worker.mqtt.incomplete import IncompletePacket
from sens_mqtt_ingestion_worker.mqtt.keep_alive import KeepAlive
from sens_mqtt_ingestion_worker.mqtt.session import SessionSettings
from sens_mqtt_ingestion_worker.mqtt.subscriptions import Subscriptions
from sens_mqtt_ingestion_worker.pipeline import Delivery, SessionTakenError, SourceUnavailableError
from sens_mqtt_ingestion_worker.source_routes import Answer, SourceRoutes
from sens_mqtt_ingestion_worker.status import Waiting

log = structlog.get_logger()

_PAUSE_READING_ABOVE: Final = 2
"""Reading pauses when more messages than ``receive_max`` times this are waiting; only QoS 0 can lead to it."""

_NO_FLAGS: Final[frozenset[int]] = frozenset()


class MqttConnection(asyncio.Protocol):
    """One connection, as `pipeline.BrokerConnection`."""

    def __init__(
        self,
        settings: SessionSettings,
        max_packet_bytes: int,
        clock: ReceiptClock,
        left_over: frozenset[str] = frozenset(),
        routes: SourceRoutes | None = None,
    ) -> None:
        """Prepare.

        Args:
            settings: Of the broker and the session.
            max_packet_bytes: Largest packet that is taken.
            clock: For the receipt times.
            left_over: What a resumed session may be subscribed to beside what is wanted.
            routes: The sources on this broker, whose filters are wanted beside those of the settings.
        """
        self._settings = settings
        self._read = packets.reader(settings.version)
        self._drops_retained = settings.version != "5"  # which can't be told to send none
        self._max_packet_bytes = max_packet_bytes
        self._incomplete = IncompletePacket(max_packet_bytes)
        self._clock = clock
        self.session_present = False
        self._transport: asyncio.Transport | None = None
        self._keep_alive = KeepAlive(settings.keep_alive_seconds)
        self._messages: list[Message] = []
        self._waiting_bytes = 0
        self._gathering = Gathering(settings.receive_max)
        self._flagged: set[int] = set()
        self._delivery_count = 0
        self._ended: str | None = None
        self._reason: Reason = "unreachable"
        self._was_taken = False
        self._reading_paused = False
        self._writing_paused_at: float | None = None
        self._wake: asyncio.Future[None] | None = None
        self._connack: mqtt5.ConnAckPacket | None = None
        self._topic_of = routes.topic if routes is not None else str
        sources = sorted(routes.filters) if routes is not None else []
        self._wanted = [*settings.topic_filters, *sources]
        self._subscriptions = Subscriptions(self._wanted, left_over, sources, settings.version)
        self._had_subscriptions = False
        self._delivered_message_count = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and wake those that wait."""
        if isinstance(exc, ssl.SSLError):
            self._end(f"the broker ends TLS: {exc.reason or exc}", "tls_error")
            return
        hint = "" if self._connack is not None else f"; does it speak MQTT {self._settings.version}, and on this port?"
        self._end(f"the connection was lost ({exc})" if exc else f"the broker closed the connection{hint}")

    def pause_writing(self) -> None:
        """Read nothing more while the broker does not read, so that acknowledgements that it does not take do not pile up."""
        self._writing_paused_at = time.monotonic()
        self._pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._writing_paused_at = None
        if not self._messages:
            self._resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take the packets that are complete."""
        self._keep_alive.heard()
        whole = self._incomplete.joined(data)
        if whole is not None:
            self._take_packets(memoryview(whole))

    def _take_packets(self, view: memoryview) -> None:
        """Take the packets that are complete; keep the rest for the next call."""
        size = len(view)
        offset = 0
        first, is_ahead = self._clock.next()
        received_at = first
        messages = self._messages
        topic_of, read, drops_retained = self._topic_of, self._read, self._drops_retained
        before = len(messages)
        try:
            while offset < size:
                packet, length = read(view[offset:])
                offset += length
                if type(packet) is mqtt5.PublishPacket:
                    packet_id = packet.packet_id or 0
                    if drops_retained and packet.retain:
                        self.acknowledge([Message(packet.topic, b"", 0, packet_id)])
                        continue
                    messages.append(Message(topic_of(packet.topic), packet.payload, received_at, packet_id))
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
            code = mqtt5.DisconnectReasonCode.MALFORMED_PACKET
            self._disconnect(code, "the broker sent a malformed packet", "protocol_error")
        if received_at > first:
            is_ahead = is_ahead and self._ended is None
            self._clock.note_given(self._renumber(before, first) if is_ahead else received_at - STEP)
        too_large = self._incomplete.keep(view[offset:])
        if too_large is not None:
            self._disconnect(mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE, too_large, "protocol_error")
        if messages:
            self._pause_when_full()
            self._wake_up()

    def _renumber(self, before: int, first: int) -> int:
        """Let messages of different devices have the same receipt times, from a message on; return the last one given."""
        numbered = numbered_by_device(self._messages[before:], first)
        self._messages[before:] = numbered
        return max(message.received_at for message in numbered)

    def _pause_when_full(self) -> None:
        """Read nothing more while too much waits for the pipeline."""
        too_many = len(self._messages) > self._settings.receive_max * _PAUSE_READING_ABOVE
        too_much = self._waiting_bytes > self._settings.max_waiting_bytes
        if too_many or too_much:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and self._ended is None:
            self._transport.pause_reading()
            self._reading_paused = True

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and self._ended is None:
            self._transport.resume_reading()
            self._reading_paused = False

    def _take(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.ConnAckPacket():
                self._connack = packet
                self._wake_up()
            case mqtt5.SubAckPacket():
                self._take_suback(packet)
            case mqtt5.UnsubAckPacket():
                self._subscriptions.take_unsuback(packet, self._received_message_count)
            case mqtt5.DisconnectPacket():
                reason = packet.reason_code.name.lower().replace("_", " ")
                self._was_taken = packet.reason_code is mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
                self._end(f"the broker ended the connection: {packets.words(packet.reason_str) or reason}", "refused")
            case mqtt5.PingRespPacket():
                self._keep_alive.answered(self._delivery_count, nothing_waits=not self._messages)
            case _:
                self._disconnect(
                    mqtt5.DisconnectReasonCode.PROTOCOL_ERROR,
                    f"the broker sent an unexpected {type(packet).__name__}",
                    "protocol_error",
                )

    def _take_suback(self, packet: mqtt5.SubAckPacket) -> None:
        if not self._subscriptions.are_answered_by(packet):
            why = "the broker sent a SUBACK that answers no subscription of this session"
            self._disconnect(mqtt5.DisconnectReasonCode.PROTOCOL_ERROR, why, "protocol_error")
            return
        refusal = self._subscriptions.take_suback(packet)
        if refusal is not None:
            self._disconnect(mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION, refusal, "subscription_refused")
            return
        self._wake_up()
        self._end_subscriptions()

    def _end_subscriptions(self) -> None:
        had_some = self.session_present or self._had_subscriptions
        ending = self._subscriptions.unsubscribe(self._received_message_count, session_present=had_some)
        if ending is not None:
            self._write(ending)

    @property
    def _received_message_count(self) -> int:
        """How many messages have come."""
        return self._delivered_message_count + len(self._messages)

    # What the source and the pipeline call.

    @property
    def waiting(self) -> Waiting:
        """See `pipeline.BrokerConnection.waiting`."""
        return Waiting(len(self._messages), self._waiting_bytes, self._reading_paused)

    async def open(self) -> None:
        """Send CONNECT and SUBSCRIBE and wait for their answers.

        Raises:
            SourceUnavailableError: The broker refuses, or closes the connection.
        """
        settings = self._settings
        self._write(packets.connect(settings, self._max_packet_bytes))
        while self._connack is None:
            await self._wait_for_change()
        connack = self._connack
        if int(connack.reason_code) >= packets.FIRST_FAILURE:
            refused_user = connack.reason_code in packets.REFUSALS_OF_USERS
            raise SourceUnavailableError(
                packets.refusal("the connection", connack.reason_code.name, connack.reason_str),
                "bad_credentials" if refused_user else "refused",
            )
        self.session_present = connack.session_present
        self._keep_alive.agree(connack.server_keep_alive)
        if (
            connack.session_expiry_interval is not None
            and connack.session_expiry_interval < settings.session_expiry_seconds
        ):
            log.warning("the broker keeps the session for a shorter time", seconds=connack.session_expiry_interval)
        # A resumed session still has its subscriptions, and a broker may answer this one only after it got acknowledgements.
        if self._wanted:
            self._write(packets.subscribe(self._wanted, settings.version))
        else:
            self._end_subscriptions()
        while not self._subscriptions.are_made and not self._messages:
            await self._wait_for_change()

    async def settled(self) -> list[str]:
        """See `Subscriptions.settled`."""
        return await self._subscriptions.settled()

    @property
    def answers(self) -> Mapping[str, Answer]:
        """See `Subscriptions.answers`."""
        return self._subscriptions.answers

    def change_subscriptions(self, more: Sequence[str], ended: frozenset[str]) -> None:
        """Subscribe to more, and to some no longer; `settled` tells when that is done. The broker may refuse what is new.

        Nothing else may be under way: `settled` has returned.
        """
        self._had_subscriptions = True
        self._subscriptions = Subscriptions(more, ended, more, self._settings.version)
        if more:
            self._write(packets.subscribe(more, self._settings.version))
        else:
            self._end_subscriptions()

    async def receive(self) -> Delivery:
        """See `pipeline.BrokerConnection.receive`."""
        while not self._messages:
            await self._wait_for_change()
        if self._gathering.is_busy:
            await self._gathering.gather(lambda: self.waiting, lambda: self._ended is not None)
            if not self._messages:  # the connection has ended meanwhile
                await self._wait_for_change()
        messages, self._messages = self._messages, []
        self._gathering.delivered(len(messages))
        self._delivered_message_count += len(messages)
        self._delivery_count += 1
        self._waiting_bytes = 0
        flagged = _NO_FLAGS
        if self._flagged:
            flagged = frozenset(self._flagged)
            self._flagged.clear()
        if self._writing_paused_at is None:
            self._resume_reading()
        return Delivery(messages, flagged, self._keep_alive.is_caught_up)

    def acknowledge(self, messages: list[Message]) -> None:
        """See `pipeline.BrokerConnection.acknowledge`."""
        if self._ended is not None or self._transport is None:
            return
        pubacks = packets.pubacks(messages)
        if pubacks:
            self._write(b"".join(pubacks))
            metrics.ACKNOWLEDGED.inc(len(pubacks))

    def probe_caught_up(self) -> None:
        """See `pipeline.BrokerConnection.probe_caught_up`: a broker that has taken all acknowledgements sends what it has, then answers."""
        if not self._keep_alive.is_caught_up and not self._messages:
            self._ping(self._delivery_count)

    def _ping(self, deliveries_before: int | None = None) -> None:
        self._keep_alive.ping_sent(deliveries_before)
        self._write(mqtt5.PingReqPacket().write())

    async def keep_alive(self) -> None:
        """Send PINGREQ when nothing was sent for a while; end the connection when nothing comes (MQTT 5.0, section 3.1.2.10)."""
        watch = self._keep_alive
        while self._ended is None:
            await asyncio.sleep(watch.seconds / 4)
            if watch.is_silent and not self._reading_paused:
                self._end(f"nothing came from the broker for {watch.silence_seconds:g} s")
                self.abort()
            elif self._writing_paused_at is not None and time.monotonic() - self._writing_paused_at > watch.seconds:
                self._end(f"the broker has read nothing for {watch.seconds:g} s")
                self.abort()
            elif watch.is_due:
                self._ping()

    def close(self, why: str = "the connection was closed") -> None:
        """Say good-bye and close; the broker keeps the session."""
        self._disconnect(mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION, why)

    def close_for_good(self, topic_filters: Sequence[str]) -> None:
        """Say good-bye and close; the broker is to forget the session, which is subscribed to these."""
        if self._ended is None:
            self._write(packets.farewell(topic_filters, self._settings.version))
        self._end("the connection was closed for good")
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close without a word."""
        self._end("the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    # The small parts.

    async def _wait_for_change(self) -> None:
        """Wait until messages or an answer have come.

        Raises:
            SourceUnavailableError: The connection has ended.
        """
        if self._ended is not None:
            if self._was_taken:
                raise SessionTakenError(self._ended)
            raise SourceUnavailableError(self._ended, self._reason)
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._keep_alive.sent()
            self._transport.write(data)

    def _disconnect(self, code: mqtt5.DisconnectReasonCode, why: str, reason: Reason = "unreachable") -> None:
        if self._ended is None:
            self._write(packets.disconnect(code, self._settings.version))
            self._end(why, reason)
        if self._transport is not None:
            self._transport.close()

    def _end(self, why: str, reason: Reason = "unreachable") -> None:
        if self._ended is not None:
            return
        self._subscriptions.count_between(self._received_message_count)
        self._ended, self._reason = why, reason
        # The broker sends unacknowledged messages again; only those of QoS 0 would be lost.
        self._messages = [message for message in self._messages if not message.packet_id]
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
