"""MQTT clients of the mock broker without sockets: bytes go straight into its connections, and come out decoded."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import mqtt5

from sens_mock_mqtt_broker.broker import Broker
from sens_mock_mqtt_broker.connection import ClientConnection
from sens_mock_mqtt_broker.settings import BrokerSettings

AT_LEAST_ONCE = mqtt5.QoS.AT_LEAST_ONCE


class Wire:
    """A transport that keeps what is written; `is_full` makes it one whose reader has stopped reading."""

    def __init__(self, address: str) -> None:
        self.written = bytearray()
        self.closed = False
        self.is_full = False
        self.connection: ClientConnection | None = None
        self._address = address

    def set_write_buffer_limits(self, *, high: int) -> None:
        """Take no notice."""

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        """Return the peer's address."""
        return self._address, 1

    def get_write_buffer_size(self) -> int:
        """Return what is not read."""
        return len(self.written) if self.is_full else 0

    def write(self, data: bytes) -> None:
        """Keep the data."""
        self.written += data
        if self.is_full and self.connection is not None:
            self.connection.pause_writing()

    def is_closing(self) -> bool:
        """Tell whether the broker has closed."""
        return self.closed

    def close(self) -> None:
        """End the connection, as a real transport does: later."""
        if not self.closed and self.connection is not None:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        """End the connection."""
        self.close()

    def pause_reading(self) -> None:
        """Take no notice."""

    def resume_reading(self) -> None:
        """Take no notice."""


class Client:
    """A client of version 5, which is decoded by a codec that is not the broker's."""

    def __init__(self, broker: Broker, *, address: str = "192.0.2.1") -> None:
        self.wire = Wire(address)
        self.connection = ClientConnection(broker)
        self.wire.connection = self.connection
        self.connection.connection_made(cast("asyncio.Transport", self.wire))
        self._packet_id = 0

    async def say(self, data: bytes) -> bytes:
        """Send bytes; return what comes back."""
        self.connection.data_received(data)
        return await self.heard()

    async def heard(self) -> bytes:
        """Return what has come since the last time."""
        for _ in range(4):  # answers leave in the event loop's next turn, and may lead to more
            await asyncio.sleep(0)
        data = bytes(self.wire.written)
        self.wire.written.clear()
        return data

    async def packets(self) -> list[mqtt5.Packet]:
        """Return the packets that have come since the last time."""
        return decoded(await self.heard())

    async def messages(self) -> list[mqtt5.PublishPacket]:
        """Return the messages that have come since the last time."""
        return [packet for packet in await self.packets() if isinstance(packet, mqtt5.PublishPacket)]

    async def connect(self, client_id: str, **options: Any) -> mqtt5.ConnAckPacket:
        """Say CONNECT."""
        options.setdefault("clean_start", True)
        (answer,) = decoded(await self.say(mqtt5.ConnectPacket(client_id, **options).write()))[:1]
        assert isinstance(answer, mqtt5.ConnAckPacket)
        return answer

    async def subscribe(self, *filters: str, **options: Any) -> list[int]:
        """Subscribe at QoS 1 unless options say otherwise; return the codes. Messages that come at once are lost here."""
        options.setdefault("max_qos", AT_LEAST_ONCE)
        topic_filters = [mqtt5.TopicFilter(one, **options) for one in filters]
        answer = decoded(await self.say(mqtt5.SubscribePacket(self._next(), topic_filters).write()))[0]
        assert isinstance(answer, mqtt5.SubAckPacket)
        return [int(code) for code in answer.reason_codes]

    async def publish(self, topic: str, payload: bytes = b"1", **options: Any) -> int:
        """Publish at QoS 1; return the reason code."""
        packet = mqtt5.PublishPacket(topic, payload, qos=AT_LEAST_ONCE, packet_id=self._next(), **options)
        answers = decoded(await self.say(packet.write()))
        (code,) = [int(answer.reason_code) for answer in answers if isinstance(answer, mqtt5.PubAckPacket)]
        return code

    async def acknowledge(self, *messages: mqtt5.PublishPacket) -> None:
        """Say PUBACK."""
        await self.say(b"".join(mqtt5.PubAckPacket(message.packet_id or 0).write() for message in messages))

    async def vanish(self) -> None:
        """Lose the connection without DISCONNECT."""
        self.wire.close()
        await self.heard()

    def _next(self) -> int:
        self._packet_id += 1
        return self._packet_id


def decoded(data: bytes) -> list[mqtt5.Packet]:
    """Return the packets in the data, which must be whole."""
    packets = []
    view = memoryview(data)
    while view:
        packet, size = mqtt5.read(view)
        packets.append(packet)
        view = view[size:]
    return packets


def with_broker(scenario: Callable[[Broker], Coroutine[None, None, None]], **settings: Any) -> None:
    """Run a scenario with a broker of its own."""

    async def run() -> None:
        await scenario(Broker(BrokerSettings(**settings)))

    asyncio.run(run())
