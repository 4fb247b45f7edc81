"""What the telemetry pipeline expects of the stream that it takes envelopes from, held by the one in memory and by JetStream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.jetstream import connect, ensure_streams
from sens_common.settings import NatsSettings
from sens_telemetry_worker.batch import Envelope
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.pipeline import Inbox
from sens_telemetry_worker.settings import BatchSettings
from support.memory import MemoryEnvelope, MemoryInbox

AT = 1_700_000_000_000_000


def messages(count: int, tenant: str = "demo") -> list[Message]:
    return [Message(f"sens/v1/{tenant}/d1/telemetry", str(number).encode(), AT + number) for number in range(count)]


ENVELOPES = [messages(2), [*messages(1), *messages(3, "acme")], messages(1, "acme")]


type AnyInbox = Inbox[Any]  # each has a type of envelopes of its own
type Opener = Callable[[asyncio.Event], AbstractAsyncContextManager[AnyInbox]]


@pytest.fixture(params=["memory", "jetstream"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open a stream of `ENVELOPES`; the one in memory ends with them, and sets the stop then."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory(stop: asyncio.Event) -> AsyncIterator[AnyInbox]:
            batches = [[MemoryEnvelope(sequence, each)] for sequence, each in enumerate(ENVELOPES, 1)]
            yield MemoryInbox(batches, stop)

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_jetstream(stop: asyncio.Event) -> AsyncIterator[AnyInbox]:
        async with connect(settings, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, settings)
            for each in ENVELOPES:
                await jetstream.publish("sens.telemetry.test", envelope.encode(each))
            inbox = StreamInbox(client, settings, BatchSettings(messages=1, linger_milliseconds=0))
            async with inbox.open():
                yield inbox

    return open_jetstream


async def take(inbox: AnyInbox, count: int) -> list[Envelope]:
    """Take and acknowledge so many envelopes."""
    stop = asyncio.Event()
    taken: list[Envelope] = []
    while len(taken) < count:
        envelopes = await inbox.take(stop)
        async with inbox.keep_in_progress(envelopes):
            taken += envelopes
        await inbox.acknowledge(envelopes)
    return taken


def contents(envelopes: Sequence[Envelope]) -> list[list[tuple[str, bytes, int]]]:
    return [[(each.topic, each.payload, each.received_at) for each in taken.messages] for taken in envelopes]


class TestTake:
    async def test_gives_every_envelope_once_and_in_order(self, opened: Opener) -> None:
        async with opened(asyncio.Event()) as inbox:
            taken = await take(inbox, len(ENVELOPES))
        assert contents(taken) == [
            [(message.topic, message.payload, message.received_at) for message in each] for each in ENVELOPES
        ]
        positions = [each.position for each in taken]
        assert positions == sorted(set(positions))

    async def test_gives_nothing_after_the_stop(self, opened: Opener) -> None:
        async with opened(asyncio.Event()) as inbox:
            stop = asyncio.Event()
            stop.set()
            assert await inbox.take(stop) == []

    async def test_waits_until_there_is_something_or_the_stop_comes(self, opened: Opener) -> None:
        stop = asyncio.Event()
        async with opened(stop) as inbox:
            await take(inbox, len(ENVELOPES))
            taking = asyncio.create_task(inbox.take(stop))
            asyncio.get_running_loop().call_soon(stop.set)
            assert await taking == []
        assert stop.is_set()


class TestEnvelope:
    async def test_accounts_for_its_messages_by_tenant(self, opened: Opener) -> None:
        async with opened(asyncio.Event()) as inbox:
            taken = await take(inbox, len(ENVELOPES))
        assert [dict(each.received) for each in taken] == [{"demo": 2}, {"demo": 1, "acme": 3}, {"acme": 1}]
        assert [(dict(each.discarded), each.replays) for each in taken] == [({}, 0)] * 3

    async def test_names_each_of_its_messages_by_its_position_and_their_index(self, opened: Opener) -> None:
        async with opened(asyncio.Event()) as inbox:
            _, second, _ = await take(inbox, len(ENVELOPES))
        assert [second.origin(index) for index in range(4)] == [Origin(*second.position, index) for index in range(4)]
