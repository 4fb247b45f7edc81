"""What replays of dead letters expect of the stream of envelopes, held by the one in memory and by JetStream."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Protocol

import pytest
from nats.aio.client import Client

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.errors import UnavailableError
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_platform_api.dead_letters.jetstream import TelemetryStream
from sens_platform_api.dead_letters.repository import StoredDeadLetter
from sens_platform_api.dead_letters.service import Stream
from support.letters import dead_letter, stored_dead_letter
from support.memory_messaging import MemoryEnvelopes, Replayed

CREATED_AT = 1_700_000_000_000_000
WHOLE = b"[" * 300_000
TOPIC = "sens/v1/demo/sensor-1/telemetry"
ENVELOPE = [Message(TOPIC, b"first", 1), Message(TOPIC, WHOLE, 2)]
"""The only one that the stream has at first."""
RECEIVED_AT = 1_700_000_000_123_456
"""When the dead letters of the tests were received."""


class Envelopes(Protocol):
    """The stream, and a look into it."""

    @property
    def stream(self) -> Stream: ...

    @property
    def created_at(self) -> int:
        """When the stream was made, microseconds since the epoch."""

    async def replayed(self) -> list[Replayed]:
        """Return the messages that were published again, each once, in order."""

    async def cut(self) -> None:
        """Let the stream be out of reach."""


class EnvelopesInMemory:
    def __init__(self) -> None:
        self.stream = MemoryEnvelopes(CREATED_AT, {1: ENVELOPE})
        self.created_at = CREATED_AT

    async def replayed(self) -> list[Replayed]:
        return self.stream.replayed

    async def cut(self) -> None:
        self.stream.is_away = True


class EnvelopesInJetStream:
    def __init__(self, client: Client, created_at: int) -> None:
        self._client = client
        self.stream = TelemetryStream(client)
        self.created_at = created_at

    async def replayed(self) -> list[Replayed]:
        jetstream = self._client.jetstream()
        last = (await jetstream.stream_info(TELEMETRY_STREAM)).state.last_seq
        found: dict[Replayed, None] = {}
        for sequence in range(2, last + 1):
            stored = await jetstream.get_msg(TELEMETRY_STREAM, seq=sequence)
            headers = stored.headers or {}
            origins = envelope.decode_origins(headers[envelope.REPLAY_OF_HEADER])
            messages = envelope.decode(stored.data or b"")
            assert int(headers[envelope.COUNT_HEADER]) == len(messages)
            for origin, message in zip(origins, messages, strict=True):
                found[Replayed(origin, int(headers[envelope.REPLAYS_HEADER]), message)] = None
        return list(found)

    async def cut(self) -> None:
        await self._client.close()


type Opener = Callable[[], AbstractAsyncContextManager[Envelopes]]


@pytest.fixture(params=["memory", "jetstream"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open a stream whose first envelope is `ENVELOPE`."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Envelopes]:
            yield EnvelopesInMemory()

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_jetstream() -> AsyncIterator[Envelopes]:
        async with connect(settings, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, settings)
            await jetstream.publish("sens.telemetry.test", envelope.encode(ENVELOPE))
            created = (await jetstream.stream_info(TELEMETRY_STREAM)).created
            assert created is not None
            yield EnvelopesInJetStream(client, int(created.timestamp() * 1e6))

    return open_jetstream


_ids = count(1)


def letter(payload: bytes = b"{", *, replays: int = 0, stream: int = CREATED_AT, sequence: int) -> StoredDeadLetter:
    return stored_dead_letter(
        dead_letter(payload=payload, replays=replays, origin=Origin(stream, sequence, 0)), next(_ids)
    )


def expected(letters: Sequence[StoredDeadLetter]) -> list[Replayed]:
    return [
        Replayed(each.origin, each.summary.replays + 1, Message(TOPIC, each.payload, RECEIVED_AT)) for each in letters
    ]


class TestPublished:
    async def test_is_each_message_with_its_origin_and_the_time_of_its_first_receipt(self, opened: Opener) -> None:
        letters = [letter(b"\x00\xff", sequence=7), letter(b"", sequence=3), letter(b"{}", sequence=5)]
        async with opened() as it:
            await it.stream.publish(letters)
            assert await it.replayed() == expected(letters)

    async def test_is_nothing_of_nothing(self, opened: Opener) -> None:
        async with opened() as it:
            await it.stream.publish([])
            assert await it.replayed() == []

    async def test_are_messages_of_several_streams_replayed_differently_often(self, opened: Opener) -> None:
        letters = [
            letter(replays=replays, stream=stream, sequence=sequence)
            for sequence in (1, 2)
            for stream in (CREATED_AT - 1, CREATED_AT)
            for replays in (0, 3)
        ]
        async with opened() as it:
            await it.stream.publish(letters)
            assert sorted(await it.replayed(), key=repr) == sorted(expected(letters), key=repr)

    async def test_are_more_than_one_envelope_holds(self, opened: Opener) -> None:
        many = [letter(sequence=sequence) for sequence in range(1, 1202)]
        large = [letter(b"x" * 300_000, sequence=sequence) for sequence in range(1202, 1207)]
        async with opened() as it:
            await it.stream.publish([*many, *large])
            assert await it.replayed() == expected([*many, *large])

    async def test_twice_is_the_same_as_once(self, opened: Opener) -> None:
        letters = [letter(sequence=sequence) for sequence in range(1, 4)]
        async with opened() as it:
            await it.stream.publish(letters)
            await it.stream.publish(letters)
            await it.stream.publish(letters[:1])
            assert await it.replayed() == expected(letters)


class TestWhole:
    async def test_is_found_while_the_stream_has_it(self, opened: Opener) -> None:
        async with opened() as it:
            shortened = stored_dead_letter(
                dead_letter(payload=WHOLE[:4096], payload_bytes=len(WHOLE), origin=Origin(it.created_at, 1, 1)), 1
            )
            assert await it.stream.whole(shortened) == shortened._replace(payload=WHOLE)

    async def test_is_none_where_the_stream_has_another_message_or_none(self, opened: Opener) -> None:
        async with opened() as it:
            for origin in (
                Origin(it.created_at - 1, 1, 1),  # of a stream before
                Origin(it.created_at, 1, 0),  # of another size
                Origin(it.created_at, 1, 2),
                Origin(it.created_at, 99, 0),
            ):
                shortened = dead_letter(payload=WHOLE[:4096], payload_bytes=len(WHOLE), origin=origin)
                assert await it.stream.whole(stored_dead_letter(shortened, 1)) is None, origin


class TestOutOfReach:
    async def test_nothing_is_replayed_and_it_is_said(self, opened: Opener) -> None:
        async with opened() as it:
            await it.cut()
            with pytest.raises(UnavailableError):
                await it.stream.publish([letter(sequence=1)])
            with pytest.raises(UnavailableError):
                await it.stream.whole(letter(sequence=1))
