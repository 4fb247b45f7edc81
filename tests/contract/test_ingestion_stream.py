"""What the ingestion pipeline expects of the stream, held by the one in memory and by JetStream."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from sens_common.envelope import Message
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.ingestion.rates import Rates
from sens_common.jetstream import connect, ensure_streams
from sens_common.settings import NatsSettings
from sens_mqtt_ingestion_worker.jetstream import JetStreamPublisher
from sens_mqtt_ingestion_worker.pipeline import Stream
from support.memory import MemoryStream

type Opener = Callable[[], AbstractAsyncContextManager[Stream]]

RECEIVE_MAX = 50


def message(number: int, size: int = 10) -> Message:
    return Message("sens/v1/demo/d1/telemetry", bytes(size), 1_700_000_000_000_000 + number, number % RECEIVE_MAX + 1)


@pytest.fixture(params=["memory", "jetstream"])
def reopen(request: pytest.FixtureRequest) -> Opener:
    """Open the stream of one session, as often as the session is restarted."""
    if request.param == "memory":
        memory = MemoryStream()

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Stream]:
            yield memory

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_jetstream() -> AsyncIterator[Stream]:
        async with connect(settings, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, settings)
            yield JetStreamPublisher(
                jetstream,
                settings,
                "worker.0",
                ReceiptClock(time_slot("worker.0")),
                Rates(),
                receive_max=RECEIVE_MAX,
                max_payload_bytes=client.max_payload,
            )

    return open_jetstream


async def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    await work()


class TestTail:
    async def test_of_an_empty_stream_is_empty(self, reopen: Opener) -> None:
        async def work() -> None:
            async with reopen() as stream:
                assert await stream.tail(RECEIVE_MAX) == []

        await run(work)

    async def test_is_what_was_published_last(self, reopen: Opener) -> None:
        async def work() -> None:
            messages = [message(number) for number in range(200)]
            async with reopen() as stream:
                for start in range(0, 200, 8):
                    await stream.publish(messages[start : start + 8], {})
            async with reopen() as stream:
                tail = await stream.tail(RECEIVE_MAX)
            assert tail[-RECEIVE_MAX:] == messages[-RECEIVE_MAX:]

        await run(work)

    async def test_reaches_back_over_several_restarts(self, reopen: Opener) -> None:
        async def work() -> None:
            messages = [message(number) for number in range(30)]
            for number in range(0, 30, 10):
                async with reopen() as stream:
                    await stream.tail(RECEIVE_MAX)
                    await stream.publish(messages[number : number + 10], {})
            async with reopen() as stream:
                assert await stream.tail(RECEIVE_MAX) == messages

        await run(work)


class TestPublish:
    async def test_takes_more_than_fits_into_one_message(self, reopen: Opener) -> None:
        async def work() -> None:
            messages = [message(number, size=300_000) for number in range(8)]
            async with reopen() as stream:
                await stream.publish(messages, {})
                assert await stream.tail(RECEIVE_MAX) == messages

        await run(work)
