"""The ingestion worker's parts on real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js import JetStreamContext

from sens_common import envelope
from sens_common.envelope import Message
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.ingestion.rates import Rates
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_mqtt_ingestion_worker.jetstream import JetStreamPublisher
from sens_mqtt_ingestion_worker.pipeline import SupersededError
from support.clocks import Machine


def message(number: int) -> Message:
    return Message("sens/v1/demo/d1/telemetry", b"{}", number, number)


@asynccontextmanager
async def two_streams(
    nats: NatsSettings,
) -> AsyncIterator[tuple[JetStreamContext, JetStreamPublisher, JetStreamPublisher]]:
    """Open one session's stream twice, as two processes do."""
    async with connect(nats, "test") as client, asyncio.timeout(20):
        jetstream = client.jetstream()
        await ensure_streams(jetstream, nats)
        first, second = (
            JetStreamPublisher(
                jetstream,
                nats,
                "w",
                ReceiptClock(time_slot("w")),
                Rates(),
                receive_max=10,
                max_payload_bytes=client.max_payload,
            )
            for _ in range(2)
        )
        yield jetstream, first, second


class TestPublishOfAFrozenWorker:
    async def test_is_refused_when_its_successor_has_published(self, nats: NatsSettings) -> None:
        async with two_streams(nats) as (_, frozen, successor):
            await frozen.publish([message(1)], {})
            assert await successor.tail(10) == [message(1)]
            await successor.publish([message(2)], {})
            with pytest.raises(SupersededError, match=r"SENS_MQTT__CLIENT_ID"):
                await frozen.publish([message(2)], {})
            assert await frozen.tail(10) == [message(1), message(2)]
            await frozen.publish([message(3)], {})
            assert await successor.tail(10) == [message(1), message(2), message(3)]

    async def test_is_found_out_by_the_successor_that_had_read_the_tail_before(self, nats: NatsSettings) -> None:
        async with two_streams(nats) as (_, frozen, successor):
            assert await successor.tail(10) == []
            await frozen.publish([message(1)], {})
            with pytest.raises(SupersededError):
                await successor.publish([message(1)], {})
            assert await successor.tail(10) == [message(1)]


class TestEnvelope:
    async def test_says_how_many_messages_of_each_tenant_it_holds(self, nats: NatsSettings) -> None:
        async with two_streams(nats) as (jetstream, stream, _):
            topics = [
                "sens/v1/demo/d1/telemetry",
                "sens/v1/other/d1/telemetry",
                "sens/v1/demo/not one/telemetry",
                "x",
            ]
            await stream.publish([Message(topic, b"{}", number, number) for number, topic in enumerate(topics, 1)], {})
            headers = (await jetstream.get_last_msg(TELEMETRY_STREAM, "sens.telemetry.w")).headers or {}
        assert envelope.decode_counts(headers[envelope.RECEIVED_HEADER]) == {"demo": 2, "other": 1, "~": 1}

    async def test_of_thousands_of_tenants_that_somebody_made_up_is_stored(self, nats: NatsSettings) -> None:
        async with two_streams(nats) as (jetstream, stream, _):
            messages = [
                Message(f"sens/v1/{'made-up-' * 6}{number}/d1/telemetry", b"{}", number, number)
                for number in range(1, 4001)
            ]
            await stream.publish(messages, {})
            assert await stream.tail(10) == messages
            received = envelope.decode_counts(
                ((await jetstream.get_last_msg(TELEMETRY_STREAM, "sens.telemetry.w")).headers or {})[
                    envelope.RECEIVED_HEADER
                ]
            )
        assert sum(received.values()) == 4000
        assert received["~"] > len(received) > 50


class TestReceiptTimes:
    async def test_are_never_given_again_by_a_successor_on_a_clock_that_was_set_back(self, nats: NatsSettings) -> None:
        machine = Machine()

        async def session() -> list[int]:
            """Give and publish times as a worker that is killed then."""
            async with connect(nats, "test") as client:
                jetstream = client.jetstream()
                await ensure_streams(jetstream, nats)
                clock = ReceiptClock(time_slot("w"), wall_ns=machine.wall, steady_ns=machine.steady)
                stream = JetStreamPublisher(
                    jetstream, nats, "w", clock, Rates(), receive_max=10, max_payload_bytes=client.max_payload
                )
                await stream.tail(40)
                times: list[int] = []
                for _ in range(20):
                    machine.wait(50_000)
                    first, _is_ahead = clock.next()
                    times += range(first, first + 3000 * 16, 16)
                    clock.note_given(times[-1])
                    await stream.publish([Message("t", b"{}", at, 1) for at in times[-3000:]], {})
                return times

        times = await session()
        for by in (
            -1_000_000,
            3_600_000_000,
            -3_600_000_000,
            3_598_000_000,
        ):  # at last a second of the hour ahead comes again
            machine.set(by)
            times += await session()
        assert len(set(times)) == len(times) == 300_000


class TestPurgedLog:
    async def test_takes_what_comes_next(self, nats: NatsSettings) -> None:
        async with two_streams(nats) as (jetstream, stream, _):
            await stream.publish([message(1)], {})
            await jetstream.purge_stream(TELEMETRY_STREAM)
            await stream.publish([message(2)], {})
            assert (await stream.tail(10)) == [message(2)]


class TestRemovedStream:
    async def test_is_made_anew_and_its_tail_can_be_read(self, nats: NatsSettings) -> None:
        # The sequences of the removed stream, from which the tail was to be read, are none of the new one.
        async with connect(nats, "test") as client, asyncio.timeout(20):
            jetstream = client.jetstream()
            await ensure_streams(jetstream, nats)
            stream = JetStreamPublisher(
                jetstream,
                nats,
                "w",
                ReceiptClock(time_slot("w")),
                Rates(),
                receive_max=10,
                max_payload_bytes=client.max_payload,
            )
            for number in range(1, 6):
                await stream.publish([message(number)], {})
            await jetstream.delete_stream(TELEMETRY_STREAM)
            await stream.publish([message(6)], {})
            assert (await stream.tail(10)) == [message(6)]
