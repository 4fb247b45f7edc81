"""The packets that the worker sends, and what a refusal says (MQTT 5.0, OASIS standard 2019). The bytes are the `mqtt5` codec's work."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import mqtt5

from sens_common.brokers import Version
from sens_common.envelope import Message
from sens_mqtt_ingestion_worker.mqtt import v311
from sens_mqtt_ingestion_worker.mqtt.session import SessionSettings

FIRST_FAILURE: Final = 128
"""Reason codes from here on are refusals (MQTT 5.0, section 2.4)."""

REFUSALS_OF_USERS: Final = (
    mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    mqtt5.ConnAckReasonCode.NOT_AUTHORIZED,
    mqtt5.ConnAckReasonCode.BAD_AUTHENTICATION_METHOD,
)

SUBSCRIBE_PACKET_ID: Final = 1
_UNSUBSCRIBE_PACKET_ID: Final = 2
_MAX_WORDS: Final = 200


def reader(version: Version) -> Callable[[memoryview], tuple[mqtt5.Packet, int]]:
    """Return what reads the first packet of some bytes; it raises IndexError while that is not complete, ValueError when it is malformed."""
    return mqtt5.read if version == "5" else v311.read


def connect(settings: SessionSettings, max_packet_bytes: int) -> bytes:
    """Return CONNECT, which resumes the session or begins it."""
    password = settings.password.get_secret_value().encode() if settings.password is not None else None
    if settings.version != "5":
        return v311.connect(
            settings.client_id,
            settings.username,
            password,
            settings.keep_alive_seconds,
            clean=settings.clean_session,
        )
    return mqtt5.ConnectPacket(
        client_id=settings.client_id,
        username=settings.username,
        password=password,
        clean_start=settings.clean_session,
        keep_alive=settings.keep_alive_seconds,
        session_expiry_interval=0 if settings.clean_session else settings.session_expiry_seconds,
        receive_max=settings.receive_max,
        topic_alias_max=0,
        max_packet_size=max_packet_bytes,
    ).write()


def subscribe(topic_filters: Sequence[str], version: Version = "5") -> bytes:
    """Return SUBSCRIBE with QoS 1, and without retained messages: one is a copy of an earlier message, and would be stored twice."""
    if version != "5":
        return v311.subscribe(SUBSCRIBE_PACKET_ID, topic_filters)
    wanted = [
        mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_LEAST_ONCE, retain_handling=mqtt5.RetainHandling.SEND_NEVER)
        for each in topic_filters
    ]
    return mqtt5.SubscribePacket(SUBSCRIBE_PACKET_ID, wanted).write()


def unsubscribe(topic_filters: Sequence[str], version: Version = "5") -> bytes:
    """Return UNSUBSCRIBE."""
    if version != "5":
        return v311.unsubscribe(_UNSUBSCRIBE_PACKET_ID, topic_filters)
    return mqtt5.UnsubscribePacket(_UNSUBSCRIBE_PACKET_ID, list(topic_filters)).write()


def disconnect(code: mqtt5.DisconnectReasonCode, version: Version = "5") -> bytes:
    """Return DISCONNECT; the broker keeps the session."""
    return mqtt5.DisconnectPacket(reason_code=code).write() if version == "5" else v311.disconnect()


def farewell(topic_filters: Sequence[str], version: Version = "5") -> bytes:
    """Return what ends a session for good: version 3.1.1 has no word for that, so nothing is left that the session is subscribed to."""
    if version == "5":
        return mqtt5.DisconnectPacket(session_expiry_interval=0).write()
    return (unsubscribe(topic_filters, version) if topic_filters else b"") + v311.disconnect()


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
    said = words(text)
    return f"the broker refuses {what}: {reason}" + (f" ({said})" if said else "")


def words(text: str | None) -> str:
    """Return what a broker says, for people: some hundred characters of it, and none that a terminal obeys."""
    return "".join(each if each.isprintable() else " " for each in (text or "")[:_MAX_WORDS])
