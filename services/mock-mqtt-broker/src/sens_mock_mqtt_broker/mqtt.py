"""A publishing MQTT 5 session: QoS 1, a bounded window of unacknowledged messages, many packets in one write (MQTT 5.0, section 4)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

import mqtt5

from sens_common.errors import UnavailableError
from sens_mock_mqtt_broker import metrics
from sens_mock_mqtt_broker.fleet import FleetMessage

WINDOW: Final = 1000
"""Largest number of unacknowledged messages; the broker's own limit lowers it."""

KEEP_ALIVE_SECONDS: Final = 30
"""How long the broker may be silent; a third of it, and the fleet asks."""

CONNECT_SECONDS: Final = 5.0
_READ_BYTES: Final = 1 << 16
_PACKET_IDS: Final = 65_535


class SessionEndedError(UnavailableError):
    """The broker refused or ended the session, or has fallen silent."""


class Answers(NamedTuple):
    """What the broker said of messages, since it was asked for last.

    Attributes:
        read: How many went to a subscriber, as far as the broker says.
        unread: Those that nobody reads, in their order.
    """

    read: int
    unread: list[FleetMessage]


class PublishingSession:
    """An open session.

    `receive` must run beside `publish`: it takes the acknowledgements that make room for more.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self._window = WINDOW
        self._packet_id = 0
        self._unacknowledged: dict[int, FleetMessage] = {}
        self._acknowledged = asyncio.Event()
        self._answers = Answers(0, [])

    @property
    def unacknowledged(self) -> Sequence[FleetMessage]:
        """Messages that were published and not acknowledged, oldest first."""
        return list(self._unacknowledged.values())

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        return self._window - len(self._unacknowledged)

    async def wait_for_room(self) -> None:
        """Wait until at least one message may be published."""
        while self.room <= 0:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def wait_for_answers(self) -> None:
        """Wait until all messages are acknowledged."""
        while self._unacknowledged:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def take_answers(self) -> Answers:
        """Return what became of the messages that were acknowledged since the last call."""
        answers, self._answers = self._answers, Answers(0, [])
        return answers

    async def publish(self, messages: Iterable[FleetMessage]) -> None:
        """Write messages, not more than there is room for."""
        packets = []
        for message in messages:
            packet_id = self._next_packet_id()
            self._unacknowledged[packet_id] = message
            packets.append(
                mqtt5.PublishPacket(
                    message.topic, message.payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id
                ).write()
            )
            metrics.MALFORMED.inc(message.malformed)
        metrics.PUBLISHED.inc(len(packets))
        metrics.UNACKNOWLEDGED.set(len(self._unacknowledged))
        await self._write(b"".join(packets))

    async def ping(self) -> None:
        """Tell the broker that the session is alive."""
        await self._write(mqtt5.PingReqPacket().write())

    async def connect(self, client_id: str) -> None:
        """Open the session.

        Raises:
            SessionEndedError: The broker refused.
        """
        await self._write(mqtt5.ConnectPacket(client_id, clean_start=True, keep_alive=KEEP_ALIVE_SECONDS).write())
        packet = (await self._read())[0]
        if not isinstance(packet, mqtt5.ConnAckPacket) or packet.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            raise SessionEndedError(f"the broker refused the fleet: {packet!r}")
        self._window = min(WINDOW, packet.receive_max)

    async def receive(self) -> None:
        """Take acknowledgements until the session ends.

        Raises:
            SessionEndedError: The broker ended it, sent something wrong, or has been silent for longer than the keep-alive.
        """
        while True:
            for packet in await self._read():
                match packet:
                    case mqtt5.PubAckPacket():
                        self._take_puback(packet)
                    case mqtt5.PingRespPacket():
                        pass
                    case _:
                        raise SessionEndedError(f"the broker ended the fleet's session: {packet!r}")
            metrics.UNACKNOWLEDGED.set(len(self._unacknowledged))
            self._acknowledged.set()

    def _take_puback(self, packet: mqtt5.PubAckPacket) -> None:
        message = self._unacknowledged.pop(packet.packet_id, None)
        if message is None:
            return
        metrics.ACKNOWLEDGED.inc()
        if packet.reason_code is mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS:
            metrics.UNREAD.inc()
            self._answers.unread.append(message)
        else:
            self._answers = self._answers._replace(read=self._answers.read + 1)

    async def _write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise SessionEndedError("the fleet lost its connection to the broker")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise SessionEndedError(f"the fleet lost its connection to the broker: {error}") from None

    async def _read(self) -> list[mqtt5.Packet]:
        """Return the next packets, at least one."""
        packets: list[mqtt5.Packet] = []
        while not packets:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    data = await self._reader.read(_READ_BYTES)
            except TimeoutError:
                raise SessionEndedError(f"the broker has been silent for {KEEP_ALIVE_SECONDS} s") from None
            except OSError as error:
                raise SessionEndedError(f"the fleet lost its connection to the broker: {error}") from None
            if not data:
                raise SessionEndedError("the broker closed the fleet's connection")
            packets, self._buffer = _split(self._buffer + data)
        return packets

    def _next_packet_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % _PACKET_IDS + 1
            if self._packet_id not in self._unacknowledged:
                return self._packet_id


def _split(data: bytes) -> tuple[list[mqtt5.Packet], bytes]:
    """Return the complete packets and the bytes after them."""
    packets: list[mqtt5.Packet] = []
    view = memoryview(data)
    position = 0
    while position < len(data):
        try:
            packet, size = mqtt5.read(view[position:])
        except IndexError:  # the codec's sign for an incomplete packet
            break
        except ValueError as error:
            raise SessionEndedError(f"the broker sent a malformed packet: {error}") from None
        packets.append(packet)
        position += size
    return packets, data[position:]


@contextlib.asynccontextmanager
async def open_session(host: str, port: int, client_id: str) -> AsyncIterator[PublishingSession]:
    """Hold a session while the context is open.

    Raises:
        SessionEndedError: The broker can't be reached or refuses.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        raise SessionEndedError(f"the fleet can't reach the broker on {host} port {port}: {error}") from None
    try:
        session = PublishingSession(reader, writer)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await session.connect(client_id)
        except TimeoutError:
            raise SessionEndedError(f"the broker did not accept the fleet within {CONNECT_SECONDS:g} s") from None
        yield session
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
