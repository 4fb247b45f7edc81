"""One message to an MQTT 5 broker at QoS 1 (MQTT 5.0, section 4.3.2)."""

import contextlib
import secrets
import socket
from typing import Final

import mqtt5

from sens_cli.target import Address
from sens_common.errors import SensError, UnavailableError
from sens_common.topics import NATIVE_PATTERN

_KEEP_ALIVE_SECONDS: Final = 30
_TIMEOUT_SECONDS: Final = 10.0
_LONGEST_TOPIC: Final = 65_535
_READ_BYTES: Final = 65_536


def publish_once(address: Address, topic: str, payload: bytes) -> None:
    """Publish a message; return when the broker has acknowledged it.

    Raises:
        UnavailableError: The broker can't be reached, or does not answer.
        SensError: It refuses the message, or the topic is none that can be published to.
    """
    if not topic or any(character in topic for character in "+#\0") or len(topic.encode()) > _LONGEST_TOPIC:
        raise SensError("a topic to publish to is not empty, has neither + nor # nor NUL, and at most 65,535 bytes")
    try:
        with socket.create_connection(address, timeout=_TIMEOUT_SECONDS) as connection:
            _exchange(connection, topic, payload)
    except OSError as error:
        raise UnavailableError(
            f"the MQTT broker at {address.host} port {address.port} can't be used: {error.strerror or error}"
        ) from error


def _exchange(connection: socket.socket, topic: str, payload: bytes) -> None:
    buffer = bytearray()
    client_id = f"sens-publish-{secrets.token_hex(6)}"
    connect = mqtt5.ConnectPacket(client_id, clean_start=True, keep_alive=_KEEP_ALIVE_SECONDS)
    connection.sendall(connect.write())
    answer = _read(connection, buffer)
    if not isinstance(answer, mqtt5.ConnAckPacket) or answer.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
        raise SensError(f"the MQTT broker refuses the connection: {_reason(answer)}")
    publish = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1)
    connection.sendall(publish.write())
    answer = _read(connection, buffer)
    taken = (mqtt5.PubAckReasonCode.SUCCESS, mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS)
    if not isinstance(answer, mqtt5.PubAckPacket) or answer.reason_code not in taken:
        raise SensError(f"the MQTT broker refuses the message: {_reason(answer)}")
    if answer.reason_code is mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS:
        raise SensError(
            f"nobody reads the topic {topic}, so the message is lost; the platform reads {NATIVE_PATTERN.template}"
            " and the topics of sources (sens sources list), of a new one within ten seconds"
        )
    with contextlib.suppress(OSError):
        connection.sendall(mqtt5.DisconnectPacket().write())


def _read(connection: socket.socket, buffer: bytearray) -> mqtt5.Packet:
    """Return the next packet."""
    while True:
        with contextlib.suppress(IndexError):  # the codec's sign for an incomplete packet
            try:
                packet, size = mqtt5.read(memoryview(bytes(buffer)))
            except ValueError as error:
                raise SensError(f"what answers is not an MQTT 5 broker: {error}") from error
            del buffer[:size]
            return packet
        data = connection.recv(_READ_BYTES)
        if not data:
            raise SensError("the MQTT broker closed the connection: it refuses the message, or does not speak MQTT 5")
        buffer += data


def _reason(packet: mqtt5.Packet) -> str:
    code = getattr(packet, "reason_code", None)
    return str(code.name).lower().replace("_", " ") if code is not None else type(packet).__name__
