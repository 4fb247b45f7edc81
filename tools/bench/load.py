"""An MQTT 3.1.1 load: many connections publish with QoS 1, each with a window of messages that are not acknowledged yet.

What a message costs here must be small beside what it costs the platform, so packets are made before the clock starts
(MQTT 3.1.1, sections 3.1, 3.3 and 3.4), written in chunks, and acknowledgements, of 4 bytes each, are counted and not read.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from tools.stack.tap import remaining_length

_CONNECT_TIMEOUT_SECONDS: Final = 20
CHUNK_MESSAGES: Final = 64
"""Messages that are written together."""
_PUBACK_BYTES: Final = 4
_SLEEP_SECONDS: Final = 0.001
"""Shorter pauses are not slept: messages of the same millisecond go out together."""


class Payload(NamedTuple):
    """What a reading of the load is.

    Attributes:
        numbers: How many it has.
        texts: How many it has.
        messages: Into how many messages of equal time, with a number each, it is split.
    """

    numbers: int
    texts: int = 0
    messages: int = 1


PAYLOADS: Final[Mapping[str, Payload]] = MappingProxyType(
    {
        "numbers": Payload(5),
        "numbers-and-text": Payload(5, texts=1),
        "twenty-numbers": Payload(20),
        "split": Payload(5, messages=5),
    }
)
"""Payloads by name."""


class Shape(NamedTuple):
    """What is published.

    Attributes:
        messages: How many, over all connections.
        devices: Devices they are from, in turn.
        connections: MQTT clients.
        window: Messages of a client that are not acknowledged yet, at most.
        tenant: Whose devices they are.
        payload: A name among `PAYLOADS`.
        root: The topics' first level; ingestion workers take ``sens``.
        rate: Messages a second over all connections, at most; 0 for no limit but the window.
    """

    messages: int
    devices: int = 1000
    connections: int = 20
    window: int = 200
    tenant: str = "bench"
    payload: str = "numbers"
    root: str = "sens"
    rate: float = 0.0

    @property
    def parts(self) -> int:
        """Return into how many messages a reading is split; they follow each other."""
        return PAYLOADS[self.payload].messages

    @property
    def readings(self) -> int:
        """Return how many readings the messages tell of."""
        return -(-self.messages // self.parts)

    @property
    def span_milliseconds(self) -> int:
        """Return how much device time the messages cover: readings of a device are a millisecond apart."""
        return -(-self.readings // self.devices)

    @property
    def values(self) -> int:
        """Return how many values a message has."""
        kind = PAYLOADS[self.payload]
        return (kind.numbers + kind.texts) // kind.messages

    def device(self, number: int) -> int:
        """Return which device a message is from."""
        return number // self.parts % self.devices

    def milliseconds(self, number: int) -> int:
        """Return how long after the first reading a message's reading is."""
        return number // self.parts // self.devices

    def numbers(self, connection: int) -> list[int]:
        """Return which messages a connection publishes: whole readings."""
        return [
            number
            for reading in range(connection, self.readings, self.connections)
            for number in range(reading * self.parts, min((reading + 1) * self.parts, self.messages))
        ]


class Chunk(NamedTuple):
    """Messages that are written together.

    Attributes:
        messages: How many.
        data: Their packets.
    """

    messages: int
    data: bytes


class Published(NamedTuple):
    """What a load did.

    Attributes:
        messages: Acknowledged messages.
        seconds: From the first message to the last acknowledgement.
    """

    messages: int
    seconds: float


def payload(shape: Shape, number: int, time_milliseconds: int) -> bytes:
    """Return the payload of a message, which carries the device's time; `number` makes the values differ."""
    kind = PAYLOADS[shape.payload]
    reading, part = divmod(number, kind.messages)
    values = _numbers(kind.numbers, reading)
    if kind.messages > 1:
        values = [values[part]]
    if kind.texts:
        values.append(b'"state":"running"')
    return b'{%s,"ts":%d}' % (b",".join(values), time_milliseconds)


def _numbers(count: int, number: int) -> list[bytes]:
    """Return so many members of an object, with numbers as sensors have them."""
    values = [
        b'"temperature":%.2f' % (15 + number % 2000 / 100),
        b'"humidity":%.1f' % (30 + number % 600 / 10),
        b'"pressure":%.2f' % (980 + number % 5000 / 100),
        b'"battery":%.3f' % (3 + number % 700 / 1000),
        b'"rssi":%d' % (-40 - number % 60),
    ]
    return values + [b'"channel_%d":%.2f' % (channel, number * channel % 9973 / 100) for channel in range(6, count + 1)]


def prepared(shape: Shape, connection: int, first_time_milliseconds: int) -> list[Chunk]:
    """Return a connection's PUBLISH packets; their packet identifiers count from 1 to 65535 and begin again.

    A device's readings are a millisecond apart or more, so no two have the same device and time.
    """
    numbers = shape.numbers(connection)
    chunks = []
    for start in range(0, len(numbers), CHUNK_MESSAGES):
        own = numbers[start : start + CHUNK_MESSAGES]
        data = b"".join(
            packet(
                shape,
                shape.device(number),
                start + index,
                payload(shape, number, first_time_milliseconds + shape.milliseconds(number)),
            )
            for index, number in enumerate(own)
        )
        chunks.append(Chunk(len(own), data))
    return chunks


def packet(shape: Shape, device: int, index: int, body: bytes) -> bytes:
    """Return the PUBLISH packet (QoS 1) of a message, which is its connection's message number `index`."""
    return publish_packet(f"{shape.root}/v1/{shape.tenant}/device-{device:07d}/telemetry", index, body)


def publish_packet(topic: str, index: int, body: bytes) -> bytes:
    """Return the PUBLISH packet (QoS 1) of a message to a topic, which is its connection's message number `index`."""
    encoded = topic.encode()
    rest = len(encoded).to_bytes(2) + encoded + (index % 65535 + 1).to_bytes(2) + body
    return b"\x32" + remaining_length(len(rest)) + rest


class Client(asyncio.Protocol):
    """One connection. Counts acknowledgements by their length: a broker sends a publisher nothing else."""

    def __init__(self) -> None:
        self._connected = asyncio.get_running_loop().create_future()
        self._moved = asyncio.Event()
        self._bytes = 0
        self._transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Count."""
        if not self._connected.done():
            if data[:2] != b"\x20\x02" or data[3] != 0:
                self._connected.set_exception(ConnectionError(f"the broker refuses the connection: {data[:4].hex()}"))
                return
            self._connected.set_result(None)
            data = data[4:]
        self._bytes += len(data)
        self._moved.set()

    def connection_lost(self, _error: Exception | None) -> None:
        """Wake whoever waits for acknowledgements."""
        self.lost = True
        self._moved.set()

    @property
    def acknowledged(self) -> int:
        """Return how many messages the broker has acknowledged."""
        return self._bytes // _PUBACK_BYTES

    async def connect(self, name: str) -> None:
        """Begin a clean session."""
        identity = name.encode()
        rest = b"\0\x04MQTT\x04\x02\0\0" + len(identity).to_bytes(2) + identity
        self.write(b"\x10" + remaining_length(len(rest)) + rest)
        await asyncio.wait_for(self._connected, _CONNECT_TIMEOUT_SECONDS)

    def write(self, data: bytes) -> None:
        """Send."""
        if self._transport is not None:
            self._transport.write(data)

    async def reach(self, acknowledged: int) -> None:
        """Wait until so many messages are acknowledged.

        Raises:
            ConnectionError: The broker has closed the connection.
        """
        while self.acknowledged < acknowledged:
            if self.lost:
                raise ConnectionError(f"the broker closed a connection after {self.acknowledged} acknowledgements")
            self._moved.clear()
            await self._moved.wait()

    def close(self) -> None:
        """End the session."""
        self.write(b"\xe0\x00")
        if self._transport is not None:
            self._transport.close()


@contextlib.asynccontextmanager
async def connected(host: str, port: int, count: int, name: str = "bench") -> AsyncIterator[list[Client]]:
    """Keep clients connected while the context is open.

    Raises:
        ConnectionError: The broker refuses a connection.
    """
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, host, port))[1] for _ in range(count)]
    await asyncio.gather(*(client.connect(f"{name}-{number}") for number, client in enumerate(clients)))
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def publish(host: str, port: int, shape: Shape, chunks: Sequence[Sequence[Chunk]]) -> Published:
    """Publish what was prepared for each connection, as fast as it is acknowledged and the rate allows.

    Raises:
        ConnectionError: The broker refuses or closes a connection.
    """
    async with connected(host, port, shape.connections) as clients:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number, (client, own) in enumerate(zip(clients, chunks, strict=True)):
                rate = shape.rate / shape.connections
                # Connections take turns, so that a chunk leaves every now and then.
                first = started + (number / shape.connections * CHUNK_MESSAGES / rate if rate else 0.0)
                tasks.create_task(_publish(client, own, shape.window, rate, first))
        return Published(sum(client.acknowledged for client in clients), time.perf_counter() - started)


async def _publish(client: Client, chunks: Sequence[Chunk], window: int, rate: float, first: float) -> None:
    sent = 0
    for chunk in chunks:
        if rate and (ahead := first + sent / rate - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        await client.reach(sent + chunk.messages - window)
        client.write(chunk.data)
        sent += chunk.messages
    await client.reach(sent)


async def publish_steadily(
    host: str, port: int, shape: Shape, rate: float, make: Callable[[int, int], bytes]
) -> Published:
    """Publish at a rate, messages a second, whatever becomes of them.

    Args:
        host: Of the broker.
        port: Of the broker.
        shape: How many messages, from how many clients.
        rate: Messages a second.
        make: Gives the packet of a message, which is its connection's message number so and so, when it is sent.

    Raises:
        ConnectionError: The broker refuses or closes a connection.
    """
    async with connected(host, port, shape.connections, shape.tenant) as clients:
        started = time.perf_counter()
        sent = [0] * len(clients)
        for number in range(shape.messages):
            ahead = started + number / rate - time.perf_counter()
            # Whoever watches in the same loop must get a turn, even when the load is behind.
            if ahead > _SLEEP_SECONDS or number % CHUNK_MESSAGES == 0:
                await asyncio.sleep(max(ahead, 0))
            turn = number % len(clients)
            clients[turn].write(make(number, sent[turn]))
            sent[turn] += 1
        for client, messages in zip(clients, sent, strict=True):
            await client.reach(messages)
        return Published(shape.messages, time.perf_counter() - started)
