"""The ingestion worker's parts on real servers."""

import asyncio

from sens_common.envelope import Message
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_mqtt_ingestion_worker.jetstream import JetStreamLog


def message(number: int) -> Message:
    return Message("sens/v1/demo/d1/telemetry", b"{}", number, number)


class TestRemovedStream:
    def test_is_made_anew_and_its_tail_can_be_read(self, nats: NatsSettings) -> None:
        async def work() -> list[Message]:
            async with connect(nats, "test") as client, asyncio.timeout(20):
                jetstream = client.jetstream()
                await ensure_streams(jetstream, nats)
                log = JetStreamLog(jetstream, nats, "w", receive_max=10, max_payload_bytes=client.max_payload)
                for number in range(1, 6):
                    await log.publish([message(number)])
                await jetstream.delete_stream(TELEMETRY_STREAM)
                await log.publish([message(6)])
                return await log.tail(10)

        # The sequences of the removed stream, from which the tail was to be read, are none of the new one.
        assert asyncio.run(work()) == [message(6)]
