"""The packets that the worker sends, and what a refusal says (MQTT 5.0, OASIS standard 2019). The bytes are the `mqtt5` codec's work."""

from collections.abc import Iterable, Sequence
from typing import Final

import mqtt5

from sens_common.envelope import Message
from sens_mqtt_ingestion_worker.settings import MqttSettings

FIRST_FAILURE: Final = 128
"""Reason codes from here on are refusals (MQTT 5.0, section 2.4)."""

_SUBSCRIBE_PACKET_ID: Final = 1
_UNSUBSCRIBE_PACKET_ID: Final = 2


def connect(settings: MqttSettings, max_packet_bytes: int) -> bytes:
    """Return CONNECT, which resumes the session or begins it."""
    return mqtt5.ConnectPacket(
        client_id=settings.client_id,
        username=settings.username,
        password=settings.password.get_secret_value().encode() if settings.password is not None else None,
        clean_start=False,
        keep_alive=settings.keep_alive_seconds,
        session_expiry_interval=settings.session_expiry_seconds,
        receive_max=settings.receive_max,
        topic_alias_max=0,
        max_packet_size=max_packet_bytes,
    ).write()


def subscribe(topic_filters: Iterable[str]) -> bytes:
    """Return SUBSCRIBE with QoS 1, and without retained messages: one is a copy of an earlier message, and would be stored twice."""
    wanted = [
        mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_LEAST_ONCE, retain_handling=mqtt5.RetainHandling.SEND_NEVER)
        for each in topic_filters
    ]
    return mqtt5.SubscribePacket(_SUBSCRIBE_PACKET_ID, wanted).write()


def unsubscribe(topic_filters: Sequence[str]) -> bytes:
    """Return UNSUBSCRIBE."""
    return mqtt5.UnsubscribePacket(_UNSUBSCRIBE_PACKET_ID, list(topic_filters)).write()


def pubacks(messages: Iterable[Message]) -> list[bytes]:
    """Return PUBACK for each message of QoS 1: fixed header 0x40, length 2, identifier; the reason is success (section 3.4.2.1)."""
    return [b"\x40\x02" + message.packet_id.to_bytes(2) for message in messages if message.packet_id]


def refusal(what: str, code: str, text: str | None) -> str:
    """Return a sentence for a refusal.

    Args:
        what: Is refused.
        code: Name of the reason code.
        text: The broker's own words, None where it has none.
    """
    reason = code.lower().replace("_", " ")
    return f"the broker refuses {what}: {reason}" + (f" ({text})" if text else "")
