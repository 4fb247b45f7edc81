"""The load of the torture: publishers that remember every message and which of them the broker has acknowledged."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterable
from enum import StrEnum
from types import TracebackType
from typing import Final, NamedTuple, Self

import aiomqtt
import numpy as np
from numpy.typing import NDArray

from tools.stack.tap import Publish

logging.getLogger("mqtt").setLevel(
    logging.CRITICAL
)  # aiomqtt logs each connection that breaks, which faults do on purpose

TENANTS: Final = ("north", "south", "west")
DEVICES: Final = 20
"""Of each tenant."""
POISON: Final = -6.66e66
"""A number that the database is told to refuse."""
FIRST_TIME_MILLISECONDS: Final = 1_760_000_000_000
MALFORMED_EVERY: Final = 1000
POISON_EVERY: Final = 2003
_HOST: Final = "127.0.0.1"
_WINDOW: Final = 100
_SILENCE_SECONDS: Final = 20
_RECONNECT_SECONDS: Final = 0.1
_TAKEN, _ACKNOWLEDGED, _UNCERTAIN = range(3)


class Kind(StrEnum):
    """What a message is like."""

    TIMED = "device time"
    COUNTED = "frame counter"
    BARE = "neither"
    MALFORMED = "malformed"
    POISON = "poison"


class Message(NamedTuple):
    """Message number n, which follows from the number alone.

    Attributes:
        number: Unique; stored as the metric ``n``.
        kind: What it is like.
        tenant: Whose it is.
        device: Name.
        payload: Bytes.
        time_milliseconds: The device's time, None without one.
    """

    number: int
    kind: Kind
    tenant: str
    device: str
    payload: bytes
    time_milliseconds: int | None

    @property
    def topic(self) -> str:
        """Return where it is published."""
        return f"sens/v1/{self.tenant}/{self.device}/telemetry"


def message(number: int) -> Message:
    """Return a message."""
    tenant, device = TENANTS[number % 3], f"d{number // 3 % DEVICES}"
    kind = (Kind.TIMED, Kind.COUNTED, Kind.BARE)[number // 3 % 3]
    body: dict[str, object] = {"n": number, "half": number / 2, "even": number % 2 == 0, "name": f"message {number}"}
    time_milliseconds = FIRST_TIME_MILLISECONDS + number if kind is Kind.TIMED else None
    if time_milliseconds is not None:
        body["ts"] = time_milliseconds
    elif kind is Kind.COUNTED:
        body["fcnt"] = number
    payload = json.dumps(body).encode()
    if number % MALFORMED_EVERY == 0:
        kind, payload = Kind.MALFORMED, payload[:-1]
    elif number % POISON_EVERY == 0:
        kind, payload = Kind.POISON, json.dumps(body | {"poison": POISON}).encode()
    return Message(number, kind, tenant, device, payload, time_milliseconds)


def number_of(payload: bytes) -> int:
    """Return the number of the message with this payload; -1 when it is none."""
    start = payload.find(b'"n": ')
    number = int(payload[start + 5 : payload.index(b",", start)]) if start >= 0 else -1
    return number if number > 0 and message(number).payload == payload else -1


class Record:
    """What was published: of each message whether the broker has acknowledged it, and whether the platform has.

    An uncertain message is one whose acknowledgement was lost with a connection: it is stored once, or not at all. So is a message that
    the broker had acknowledged when it was killed, unless the platform had acknowledged it to the broker.
    """

    def __init__(self) -> None:
        self._states = bytearray(1)
        self._taken_over = bytearray(1)
        self._first_kept = 0
        self._rounds = [(1, time.time())]
        self._lock = threading.Lock()

    def take(self) -> Message:
        """Return the next message."""
        with self._lock:
            number = len(self._states)
            self._states.append(_TAKEN)
            self._taken_over.append(0)
        return message(number)

    def acknowledged(self, number: int) -> None:
        """Note that the broker has acknowledged a message."""
        self._states[number] = _ACKNOWLEDGED

    def uncertain(self, numbers: Iterable[int]) -> None:
        """Note that the acknowledgement of messages will not come any more."""
        for number in numbers:
            self._states[number] = _UNCERTAIN

    def taken_over(self, packet: Publish) -> None:
        """Note that the platform has acknowledged a message to the broker."""
        number = number_of(packet.payload)
        if number > 0 and message(number).topic == packet.topic:
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
                async with aiomqtt.Client(
                    _HOST, self._port, identifier=self._name, timeout=_SILENCE_SECONDS, max_inflight_messages=_WINDOW
                ) as client:
                    client.pending_calls_threshold = _WINDOW
                    await self._session(client)
            except* aiomqtt.MqttError:
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _session(self, client: aiomqtt.Client) -> None:
        """Publish until the end, or until the connection is lost or stays silent."""
        window = asyncio.Semaphore(_WINDOW)
        async with asyncio.TaskGroup() as session:
            connection = session.create_task(_until_lost(client))
            async with asyncio.TaskGroup() as publishing:
                due = time.monotonic()
                while not self._stopping:
                    due = max(due + self._pause, time.monotonic() - 1)
                    if (ahead := due - time.monotonic()) > 0:
                        await asyncio.sleep(ahead)
                    await window.acquire()
                    publishing.create_task(self._publish(client, self._record.take(), window))
            connection.cancel()

    async def _publish(self, client: aiomqtt.Client, current: Message, window: asyncio.Semaphore) -> None:
        try:
            await client.publish(current.topic, current.payload, qos=1)
        except BaseException:
            self._record.uncertain([current.number])
            raise
        self._record.acknowledged(current.number)
        window.release()


async def _until_lost(client: aiomqtt.Client) -> None:
    """Wait until the connection is lost, of which the client tells whoever waits for messages.

    Raises:
        MqttError: It is lost.
    """
    async for _ in client.messages:
        pass
