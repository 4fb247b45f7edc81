"""Reading a real stream by sequence, beside the consumer that the workers share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.jetstream import connect
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_common.replays import ReplayedMessage
from sens_common.settings import NatsSettings
from sens_telemetry_worker.codec_runs.runs import microseconds
from sens_telemetry_worker.jetstream.consumer import ensure_consumer
from sens_telemetry_worker.jetstream.history import StreamHistory
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.jetstream.past_consumer import StreamPastConsumer
from sens_telemetry_worker.settings import BatchSettings
from sens_telemetry_worker.storing import StoreUnavailableError
from support.envelopes import TOPIC, publish_envelopes

LONG_AGO, FAR_AHEAD = 0, microseconds(datetime(2100, 1, 1, tzinfo=UTC))


@asynccontextmanager
async def history(nats: NatsSettings) -> AsyncIterator[tuple[Client, StreamHistory]]:
    """Give a stream with the workers' consumer, and its history."""
    async with connect(nats, "test") as client:
        await ensure_consumer(client, nats)
        yield client, StreamHistory(client.jetstream())


class TestState:
    async def test_of_a_stream_without_messages_has_nothing_to_read(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            state = await stream.state()
            assert (state.first, state.last, state.settled) == (1, 0, 0)
            assert state.created_at == await ensure_consumer(client, nats)
            assert await stream.first_since(LONG_AGO, state) == 1

    async def test_tells_up_to_which_envelope_all_are_settled(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            await publish_envelopes(client, 3)
            subscription = await client.jetstream().pull_subscribe("", TELEMETRY_CONSUMER, TELEMETRY_STREAM)
            first, second, third = await subscription.fetch(3, timeout=5)
            await first.ack_sync()
            await third.ack_sync()
            assert (await stream.state()).settled == 1
            await second.ack_sync()
            assert (await stream.state()).settled == 3

    async def test_takes_a_trimmed_stream_for_settled(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            await publish_envelopes(client, 3)
            await client.jetstream().purge_stream(TELEMETRY_STREAM)
            state = await stream.state()
            assert (state.first, state.last, state.settled) == (4, 3, 3)
            assert await stream.first_since(LONG_AGO, state) == 4

    async def test_can_not_be_told_without_the_stream(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            await client.jetstream().delete_stream(TELEMETRY_STREAM)
            with pytest.raises(StoreUnavailableError, match="NATS does not do what is needed"):
                await stream.state()


class TestFirstSince:
    async def test_finds_the_envelope_by_the_time_at_which_the_stream_has_taken_it(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            await publish_envelopes(client, 9)
            for gone in (1, 4, 5):
                await client.jetstream().delete_msg(TELEMETRY_STREAM, gone)
            times = {
                sequence: (await client.jetstream().get_msg(TELEMETRY_STREAM, seq=sequence)).time
                for sequence in (2, 3, 6, 7, 8, 9)
            }
            state = await stream.state()
            for sequence, time in times.items():
                assert time is not None
                found = await stream.first_since(microseconds(time), state)
                # Envelopes that are gone may be taken along; none that is there is left out.
                assert found <= sequence
                assert all(before < time for each, before in times.items() if before is not None and each < found)
            assert await stream.first_since(LONG_AGO, state) == 2
            assert await stream.first_since(FAR_AHEAD, state) == 10


class TestMessages:
    async def test_are_those_of_envelopes_that_are_there_in_their_order(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            for each in range(12):
                body = envelope.encode([Message(TOPIC, b"%d" % each, 1), Message(TOPIC, b"%d+" % each, 2)])
                await client.jetstream().publish("sens.telemetry.test", body)
            await client.jetstream().delete_msg(TELEMETRY_STREAM, 3)
            await client.jetstream().publish("sens.telemetry.foreign", b"not an envelope")

            found = await stream.messages(2, 20, 7)

        assert [(each.origin, each.message.payload) for each in found[:3]] == [
            (Origin(7, 2, 0), b"1"),
            (Origin(7, 2, 1), b"1+"),
            (Origin(7, 4, 0), b"3"),
        ]
        assert (len(found), found[-1].origin) == (20, Origin(7, 12, 1))

    async def test_of_a_replay_come_from_where_they_came_first(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            await publish_envelopes(client, 1)
            await StreamPastConsumer(client).replay([ReplayedMessage(TOPIC, b"{}", 5, Origin(1, 99, 3), 0)])

            found = await stream.messages(1, 3, 7)

        assert [(each.origin, each.message.received_at) for each in found] == [
            (Origin(7, 1, 0), 1),
            (Origin(1, 99, 3), 5),
        ]

    async def test_are_read_without_taking_them_from_the_workers(self, nats: NatsSettings) -> None:
        async with history(nats) as (client, stream):
            await publish_envelopes(client, 2)
            assert len(await stream.messages(1, 3, 7)) == 2
            inbox = StreamInbox(client, nats, BatchSettings(messages=2, linger_milliseconds=0))
            async with inbox.open():
                taken = await inbox.take(asyncio.Event())
            assert taken[0].position.sequence == 1
