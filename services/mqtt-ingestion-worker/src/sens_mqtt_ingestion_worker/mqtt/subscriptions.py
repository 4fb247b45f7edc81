"""What a session is subscribed to: first to what the settings and the sources name, then to nothing else."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

import mqtt5
import structlog

from sens_common.brokers import Version
from sens_mqtt_ingestion_worker import metrics
from sens_mqtt_ingestion_worker.mqtt import packets
from sens_mqtt_ingestion_worker.source_routes import Answer

log = structlog.get_logger()

_ENDED: Final = mqtt5.UnsubAckReasonCode.SUCCESS


class Subscriptions:
    """The subscriptions of one connection's session.

    Earlier ones are ended only after the new ones are made, so that no message is missed in between.

    Attributes:
        are_made: Whether the broker has answered.
        answers: What it said of each filter.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        left_over: frozenset[str],
        optional: Collection[str] = frozenset(),
        version: Version = "5",
    ) -> None:
        """Take the filters; nothing is sent yet.

        Args:
            wanted: All that is to be subscribed to.
            left_over: What the session may be subscribed to beside that.
            optional: Those that the broker may refuse.
            version: Of MQTT.
        """
        self.are_made = not wanted
        self.answers: dict[str, Answer] = {}
        self._wanted = wanted
        self._optional = optional
        self._version = version
        self._left_over = sorted(left_over)
        self._refused: list[str] = []
        self._are_settled = asyncio.Event()
        self._came_before: int | None = None  # messages before SUBACK, while UNSUBACK is awaited

    async def settled(self) -> list[str]:
        """Wait until the session is subscribed to what is wanted, and to nothing else; return the filters that the broker refused to end."""
        await self._are_settled.wait()
        return self._refused

    def are_answered_by(self, packet: mqtt5.SubAckPacket) -> bool:
        """Tell whether a packet is the answer to SUBSCRIBE: it says something of each filter (MQTT 5.0, section 3.9.3)."""
        return packet.packet_id == packets.SUBSCRIBE_PACKET_ID and len(packet.reason_codes) == len(self._wanted)

    def take_suback(self, packet: mqtt5.SubAckPacket) -> str | None:
        """Take the answer to SUBSCRIBE; return why the broker refuses what it may not, None when it does not."""
        for topic_filter, code in zip(self._wanted, packet.reason_codes, strict=True):
            refusal = None
            if int(code) >= packets.FIRST_FAILURE:
                refusal = packets.refusal(f"the subscription to {topic_filter}", code.name, packet.reason_str)
                if topic_filter not in self._optional:
                    return refusal
            self.answers[topic_filter] = Answer(refusal, code is mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE)
        self.are_made = True
        return None

    def unsubscribe(self, received: int, *, session_present: bool) -> bytes | None:
        """Return what ends the earlier subscriptions, None where there are none.

        Args:
            received: How many messages the connection has brought so far.
            session_present: Whether the session may have had subscriptions before.
        """
        if not self._left_over or not session_present:
            self._are_settled.set()
            return None
        self._came_before = received
        return packets.unsubscribe(self._left_over, self._version)

    def take_unsuback(self, packet: mqtt5.UnsubAckPacket, received: int) -> None:
        """Take the answer to UNSUBSCRIBE."""
        said = packet.reason_codes or [_ENDED] * len(self._left_over)  # MQTT 3.1.1 says nothing
        codes = dict(zip(self._left_over, said, strict=False))
        self._refused = [each for each, code in codes.items() if int(code) >= packets.FIRST_FAILURE]
        ended = [each for each, code in codes.items() if code is _ENDED]
        if ended:
            metrics.SUBSCRIPTIONS_ENDED.inc(len(ended))
            between = self.count_between(received)
            log.info("ended earlier subscriptions of the session", topic_filters=ended, messages=between)
        self._came_before = None
        self._are_settled.set()

    def count_between(self, received: int) -> int:
        """Count the messages that came while the session had its earlier and its new subscriptions; return their number."""
        if self._came_before is None:
            return 0
        count = received - self._came_before
        metrics.BETWEEN_SUBSCRIPTIONS.inc(count)
        return count
