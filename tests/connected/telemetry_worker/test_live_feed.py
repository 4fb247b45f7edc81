"""The telemetry worker's live feed on a real NATS server: what is left out is told."""

import asyncio

from nats.aio.msg import Msg

from sens_common import live
from sens_common.jetstream import connect, flush_all
from sens_common.live import LiveReading
from sens_common.settings import NatsSettings
from sens_telemetry_worker.nats_live import MAX_BATCH_BYTES, NatsLiveFeed


async def shown(nats: NatsSettings, *batches: list[LiveReading]) -> list[Msg]:
    """Publish batches of a tenant; return the messages that somebody who watches gets."""

    messages: list[Msg] = []

    async def note(message: Msg) -> None:
        messages.append(message)

    async with connect(nats, "reader") as reader, connect(nats, "worker") as client:
        await reader.subscribe(live.subject("demo"), cb=note)
        await flush_all(reader)
        feed = NatsLiveFeed(client)
        for batch in batches:
            await feed.publish("demo", batch)
        await flush_all(client)
        await flush_all(reader)
    return messages


def readings(count: int, text: str) -> list[LiveReading]:
    return [LiveReading("d", "t", number, f"{number} {text}") for number in range(count)]


class TestFeed:
    async def test_publishes_more_than_a_message_holds_in_several(self, nats: NatsSettings) -> None:
        batch = readings(3000, "x" * 1000)

        messages = await shown(nats, batch)

        assert [reading for message in messages for reading in live.decode(message.data)] == batch
        assert not any(live.dropped(message.headers) for message in messages)

    async def test_leaves_out_the_oldest_of_a_batch_that_is_too_large_and_says_so_first(
        self, nats: NatsSettings
    ) -> None:
        batch = readings(3000, "x" * 4000)

        first, *others = await shown(nats, batch)

        seen = [reading for message in (first, *others) for reading in live.decode(message.data)]
        assert MAX_BATCH_BYTES / 5000 < len(seen) < MAX_BATCH_BYTES / 4000
        assert batch[-len(seen) :] == seen
        assert live.dropped(first.headers) == len(batch) - len(seen)
        assert not any(live.dropped(message.headers) for message in others)

    async def test_tells_of_what_could_not_be_sent_while_nats_was_away(self, nats: NatsSettings) -> None:
        told: asyncio.Queue[int] = asyncio.Queue()

        async def note(message: Msg) -> None:
            told.put_nowait(live.dropped(message.headers))

        async with connect(nats, "reader") as reader, connect(nats, "worker") as client:
            await reader.subscribe(live.subject("demo"), cb=note)
            await flush_all(reader)
            async with connect(nats, "closed") as closed:
                feed = NatsLiveFeed(closed)
            await feed.publish("demo", readings(7, "x"))
            feed._client = client
            await feed.publish("demo", readings(1, "x"))
            await feed.publish("demo", readings(1, "x"))
            assert [await asyncio.wait_for(told.get(), 10) for _ in range(2)] == [7, 0]
