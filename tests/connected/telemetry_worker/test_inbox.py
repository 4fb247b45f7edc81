"""Taking envelopes from a real stream."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.settings import BatchSettings
from support.envelopes import TOPIC, publish_envelopes, publishes_envelopes
from support.servers import eventually, free_port, nats_server, scratch_folder


class TestInbox:
    async def test_gives_back_what_was_not_taken(self, nats: NatsSettings) -> None:
        stop = asyncio.Event()
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            await publish_envelopes(client, 3)
            for _ in range(2):
                inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
                async with inbox.open():
                    assert await inbox.take(stop)

    async def test_gives_back_at_a_stop_what_has_not_become_a_batch(self, nats: NatsSettings) -> None:
        stop = asyncio.Event()
        async with connect(nats, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, nats)
            await publish_envelopes(client, 1)
            lingering = StreamInbox(client, nats, BatchSettings(messages=2, linger_milliseconds=5000))

            async def has_arrived() -> bool:
                info = await jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
                return bool(info.num_ack_pending == 1)

            async with lingering.open():
                taking = asyncio.create_task(lingering.take(stop))
                await eventually(has_arrived, "the envelope has arrived")
                stop.set()
                assert await taking == []
            inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
            async with inbox.open():
                await take_one(inbox, 5)  # not given back, it would come after 10 s

    async def test_hands_over_a_foreign_message_as_one_without_a_topic(self, nats: NatsSettings) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            await client.jetstream().publish("sens.telemetry.foreign", b"not an envelope")
            inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
            async with inbox.open():
                (taken_envelope,) = await inbox.take(asyncio.Event())
            assert [(message.topic, message.payload) for message in taken_envelope.messages] == [
                ("", b"not an envelope")
            ]

    async def test_takes_no_more_than_its_size_at_once(self, nats: NatsSettings) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            body = envelope.encode([envelope.Message(TOPIC, bytes(900_000), 1)])
            for _ in range(20):
                await client.jetstream().publish("sens.telemetry.test", body)
            inbox = StreamInbox(client, nats, BatchSettings(messages=1000, linger_milliseconds=5000))
            sizes: list[int] = []
            async with inbox.open():
                while sum(sizes) < 20:
                    envelopes = await inbox.take(asyncio.Event())
                    await inbox.acknowledge(envelopes)
                    sizes.append(len(envelopes))
        assert sum(sizes) == 20
        assert max(sizes) * 900_000 <= 8 << 20

    @pytest.mark.parametrize(("rejected_share", "taken"), [(0.0, 4), (0.5, 8), (0.9, 8)])
    async def test_takes_as_many_more_as_are_rejected(
        self, nats: NatsSettings, rejected_share: float, taken: int
    ) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            await publish_envelopes(client, 20)
            inbox = StreamInbox(client, nats, BatchSettings(messages=4, linger_milliseconds=5000))
            async with inbox.open():
                assert len(await inbox.take(asyncio.Event(), rejected_share=rejected_share)) == taken

    @pytest.mark.parametrize(("seconds_ahead", "taken"), [(60.0, 2), (-60.0, 1)])
    async def test_waits_for_more_only_when_it_is_behind(
        self, nats: NatsSettings, seconds_ahead: float, taken: int
    ) -> None:
        async with connect(nats, "test") as client:
            await ensure_streams(client.jetstream(), nats)
            inbox = StreamInbox(
                client,
                nats,
                BatchSettings(messages=2, linger_milliseconds=0, linger_milliseconds_behind=5000),
                clock=lambda: time.time() + seconds_ahead,
            )
            async with inbox.open():
                taking = asyncio.create_task(inbox.take(asyncio.Event()))
                await publish_envelopes(client, 1)
                if taken == 1:
                    await asyncio.wait({taking})
                await publish_envelopes(client, 1)
                assert len(await taking) == taken


async def take_one(inbox: StreamInbox, seconds: float) -> Origin:
    """Take and acknowledge one envelope; return its origin."""
    async with asyncio.timeout(seconds):
        (taken_envelope,) = await inbox.take(asyncio.Event())
    await inbox.acknowledge([taken_envelope])
    return taken_envelope.origin(0)


class TestInboxAfterALoss:
    async def test_of_its_request_in_a_restart_of_nats_asks_again(self) -> None:
        port, password = free_port(), "secret"

        async def run(folder: Path) -> None:
            with contextlib.ExitStack() as server:
                nats = server.enter_context(nats_server(folder, port, password))
                async with connect(nats, "test") as client:
                    inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
                    async with inbox.open():
                        await publish_envelopes(client, 1)
                        await take_one(inbox, 10)
                        server.close()
                        server.enter_context(nats_server(folder, port, password))
                        await eventually(lambda: publishes_envelopes(client), "NATS takes messages again")
                        # The forgotten request would have ended after 20 s.
                        await take_one(inbox, 12)

        with scratch_folder("sens-nats-") as folder:
            await run(folder)

    async def test_of_stream_and_consumer_makes_them_again_and_tells_their_messages_apart(
        self, nats: NatsSettings
    ) -> None:
        async with connect(nats, "test") as client:
            inbox = StreamInbox(client, nats, BatchSettings(messages=1, linger_milliseconds=0))
            async with inbox.open():
                await publish_envelopes(client, 1)
                before = await take_one(inbox, 10)
                await client.jetstream().delete_stream(TELEMETRY_STREAM)
                taking = asyncio.create_task(take_one(inbox, 10))
                await eventually(lambda: publishes_envelopes(client), "the stream is there again")
                after = await taking
            # Both were the first message of their stream; a dead letter of one must not pass for one of the other.
            assert before.sequence == after.sequence == 1
            assert before != after
