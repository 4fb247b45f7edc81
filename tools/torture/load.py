"""The load of the torture: publishers that remember every message and which of them the broker has acknowledged."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self, override

import numpy as np
from numpy.typing import NDArray

from tools.stack.tap import Publish, remaining_length
from tools.torture.messages import Message, Messages

_HOST: Final = "127.0.0.1"
_WINDOW: Final = 500
_SILENCE_SECONDS: Final = 20
_RECONNECT_SECONDS: Final = 0.1
_TURN_SECONDS: Final = 0.002
_PUBACK_BYTES: Final = 4
_PACKET_IDS: Final = 65_535
_TAKEN, _ACKNOWLEDGED, _UNCERTAIN = range(3)


class Record:
    """What was published: of each message whether the broker has acknowledged it, and whether the platform has.

    An uncertain message is one whose acknowledgement was lost with a connection: it is stored once, or not at all. So is a message that
    the broker had acknowledged when it was killed, unless the platform had acknowledged it to the broker.

    Attributes:
        posted: How many messages the platform acknowledged over HTTP.
    """

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self._states = bytearray(1)
        self._taken_over = bytearray(1)
        self._first_kept = 0
        self._rounds = [(1, time.time())]
        self._lock = threading.Lock()
        self.posted = 0

    def take(self) -> Message:
        """Return the next message."""
        with self._lock:
            number = len(self._states)
            self._states.append(_TAKEN)
            self._taken_over.append(0)
        return self.messages.message(number)

    def acknowledged(self, number: int) -> None:
        """Note that the broker has acknowledged a message."""
        self._states[number] = _ACKNOWLEDGED

    def stored(self, number: int) -> None:
        """Note that the platform itself has acknowledged a message, without a broker."""
        self._states[number] = _ACKNOWLEDGED
        self._taken_over[number] = 1
        self.posted += 1

    def uncertain(self, numbers: Iterable[int]) -> None:
        """Note that the acknowledgement of messages will not come any more."""
        for number in numbers:
            self._states[number] = _UNCERTAIN

    def taken_over(self, packet: Publish) -> None:
        """Note that the platform has acknowledged a message to the broker."""
        number = self.messages.number_of(packet.payload)
        if number > 0 and self.messages.message(number).topic == packet.topic:
            self._taken_over[number] = 1

    def broker_was_killed(self) -> None:
        """Note that the broker was killed, that it runs again and that the platform has subscribed again."""
        self._first_kept = len(self._states)

    def owed(self) -> NDArray[np.bool_]:
        """Return which numbers have to arrive, with an element for each number from 0 on.

        Those are what the platform has acknowledged to the broker, and what the broker has acknowledged since it was killed last.
        """
        with self._lock:
            states = np.frombuffer(bytes(self._states), np.uint8)
            taken_over = np.frombuffer(bytes(self._taken_over), np.bool_)
        kept = np.arange(len(states)) >= self._first_kept
        owed: NDArray[np.bool_] = taken_over | ((states == _ACKNOWLEDGED) & kept)
        return owed

    def begin_round(self) -> None:
        """Note the time at which the next message can have been published at the earliest."""
        self._rounds.append((len(self._states), time.time()))

    def published_after(self, number: int) -> float:
        """Return a time, seconds since the epoch, before which this message was not published."""
        return max((moment for first, moment in self._rounds if first <= number), default=0.0)

    def masks(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which numbers are acknowledged, and which are uncertain; both arrays have an element for each number from 0 on."""
        with self._lock:
            states = np.frombuffer(bytes(self._states), np.uint8)
        return states == _ACKNOWLEDGED, states == _UNCERTAIN


class _Connection(asyncio.Protocol):
    """A connection of MQTT 3.1.1 (OASIS standard, 2014; sections 3.1 to 3.4) that publishes with QoS 1.

    Attributes:
        in_flight: Numbers of the messages that are sent and not acknowledged, in their order, by packet identifier and with their time.
        accepted: Done when the broker has accepted the connection.
        closed: Done when it is over.
        lost: Whether it is over.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._packet_id = 0
        self.accepted = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()
        self.in_flight: deque[tuple[int, int, float]] = deque()
        self.lost = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while len(data) >= _PUBACK_BYTES:  # CONNACK is as long as PUBACK
            packet, data = data[:_PUBACK_BYTES], data[_PUBACK_BYTES:]
            if packet == b"\x20\x02\x00\x00" and not self.accepted.done():
                self.accepted.set_result(None)
            elif packet[:2] == b"\x40\x02" and self.in_flight:
                self._acknowledge(int.from_bytes(packet[2:]))
            else:
                self.close()
                return
        self._rest = data

    @override
    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        self._record.uncertain(number for _, number, _ in self.in_flight)
        self.in_flight.clear()
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionError("the broker does not accept the connection"))
        self.closed.set_result(None)

    def _acknowledge(self, packet_id: int) -> None:
        for index, (sent_id, number, _) in enumerate(self.in_flight):
            if sent_id == packet_id:
                self._record.acknowledged(number)
                del self.in_flight[index]
                return
        self.close()

    def connect(self, name: str) -> None:
        """Begin a clean session."""
        identity = name.encode()
        self._write(0x10, b"\0\x04MQTT\x04\x02\0\0" + len(identity).to_bytes(2) + identity)

    def publish(self, message: Message) -> None:
        """Send a message."""
        self._packet_id = self._packet_id % _PACKET_IDS + 1
        self.in_flight.append((self._packet_id, message.number, time.monotonic()))
        topic = message.topic.encode()
        self._write(0x32, len(topic).to_bytes(2) + topic + self._packet_id.to_bytes(2) + message.payload)

    def _write(self, first: int, rest: bytes) -> None:
        if self._transport is not None:
            self._transport.write(bytes([first]) + remaining_length(len(rest)) + rest)

    def is_silent(self) -> bool:
        """Return whether the broker owes an acknowledgement for too long."""
        return bool(self.in_flight) and time.monotonic() - self.in_flight[0][2] > _SILENCE_SECONDS

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


class Publisher:
    """Publishes in a thread of its own, as fast as the rate and the broker allow, until it is left: an ordinary MQTT 3.1.1 client.

    Its session ends with its connection, so that nothing is sent again: what is not acknowledged by then stays uncertain.
    """

    def __init__(self, port: int, record: Record, *, name: str, rate: float) -> None:
        self._port = port
        self._record = record
        self._name = name
        self._pause = 1 / rate
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._session()
            except (OSError, TimeoutError):
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _session(self) -> None:
        """Publish until the end, or until the connection is lost or stays silent.

        Raises:
            OSError: There is no connection, or not any more.
            TimeoutError: The broker says nothing.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._record), _HOST, self._port)
        try:
            connection.connect(self._name)
            await asyncio.wait_for(connection.accepted, _SILENCE_SECONDS)
            due = time.monotonic()
            while not connection.lost and not connection.is_silent():
                now = time.monotonic()
                due = max(due, now - 1)
                while due <= now and len(connection.in_flight) < _WINDOW and not self._stopping:
                    connection.publish(self._record.take())
                    due += self._pause
                if self._stopping and not connection.in_flight:
                    return
                await asyncio.sleep(max(_TURN_SECONDS, min(due - now, 0.05)))
            raise ConnectionError("the connection is lost")
        finally:
            connection.close()
            await connection.closed
