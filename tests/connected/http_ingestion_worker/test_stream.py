"""The pipeline on a real stream: 2xx only for what is stored, and a repeat once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from sens_common import envelope
from sens_common.envelope import OVERHEAD_BYTES, Message
from sens_common.ingestion.clock import ReceiptClock
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_http_ingestion_worker.jetstream import EnvelopeStream
from sens_http_ingestion_worker.pipeline import Pipeline
from sens_http_ingestion_worker.reception import Submission
from sens_http_ingestion_worker.refusals import RefusedError
from support.servers import nats_server, scratch_folder

TOPIC = "ingest/v1/demo/push"


@asynccontextmanager
async def running(nats: NatsSettings, *, answer_seconds: float = 4) -> AsyncIterator[tuple[Pipeline, EnvelopeStream]]:
    """A pipeline on a stream."""
    async with connect(nats, "http-ingestion-worker test") as client:
        await ensure_streams(client.jetstream(), nats)
        clock = ReceiptClock(15)
        stream = EnvelopeStream(client, nats, "http-0", clock)
        await stream.recall(asyncio.Event())
        pipeline = Pipeline(
            stream, clock, max_envelope_bytes=client.max_payload - OVERHEAD_BYTES, answer_seconds=answer_seconds
        )
        stop = asyncio.Event()
        working = asyncio.create_task(pipeline.run(stop))
        try:
            yield pipeline, stream
        finally:
            stop.set()
            await working


async def post(pipeline: Pipeline, payload: bytes, repeat_id: str | None = None) -> RefusedError | None:
    """Give a message to the pipeline; return what it answers."""
    answer: asyncio.Future[RefusedError | None] = asyncio.get_running_loop().create_future()
    pipeline.take(Submission(TOPIC, payload, repeat_id), answer.set_result)
    return await answer


async def stored(nats: NatsSettings) -> tuple[list[Message], dict[str, int], dict[str, int]]:
    """Return the messages of the stream, and what its headers say was received and discarded."""
    messages: list[Message] = []
    received: dict[str, int] = {}
    discarded: dict[str, int] = {}
    async with connect(nats, "test") as client:
        jetstream = client.jetstream()
        last = (await jetstream.stream_info(TELEMETRY_STREAM)).state.last_seq
        for sequence in range(1, last + 1):
            each = await jetstream.get_msg(TELEMETRY_STREAM, sequence)
            messages += envelope.decode(each.data or b"")
            for header, counts in ((envelope.RECEIVED_HEADER, received), (envelope.DISCARDED_HEADER, discarded)):
                for tenant, count in envelope.decode_counts((each.headers or {}).get(header, "{}")).items():
                    counts[tenant] = counts.get(tenant, 0) + count
    return messages, received, discarded


class TestPipeline:
    async def test_answers_what_the_stream_has_stored_and_counts_it(self, nats: NatsSettings) -> None:
        async with running(nats) as (pipeline, _):
            answers = await asyncio.gather(*(post(pipeline, b"%d" % number) for number in range(100)))
            pipeline.note_discarded("demo")
        messages, received, discarded = await stored(nats)
        assert answers == [None] * 100
        assert sorted(int(message.payload) for message in messages) == list(range(100))
        assert len({message.received_at for message in messages}) == 100
        assert (received, discarded) == ({"demo": 101}, {"demo": 1})

    async def test_stores_a_repeat_once_and_answers_it_alike(self, nats: NatsSettings) -> None:
        async with running(nats) as (pipeline, _):
            assert await post(pipeline, b"once", "http-1") is None
        async with running(nats) as (pipeline, _):  # another process
            answers = await asyncio.gather(*(post(pipeline, b"once", "http-1") for _ in range(5)))
            assert await post(pipeline, b"twice", "http-2") is None
        messages, received, _ = await stored(nats)
        assert answers == [None] * 5
        assert [message.payload for message in messages] == [b"once", b"twice"]
        assert received == {"demo": 2}

    async def test_gives_times_after_those_of_the_process_before(self, nats: NatsSettings) -> None:
        for _ in range(2):
            async with running(nats) as (pipeline, _stream):
                await post(pipeline, b"1")
        messages, _, _ = await stored(nats)
        first, second = (message.received_at for message in messages)
        assert second > first
        assert {first % 16, second % 16} == {15}

    async def test_answers_503_while_the_stream_is_away_and_goes_on_when_it_is_back(self) -> None:
        with scratch_folder("sens-nats-") as folder, ExitStack() as first:
            nats = first.enter_context(nats_server(folder))
            async with running(nats, answer_seconds=1) as (pipeline, stream):
                assert await post(pipeline, b"before") is None
                first.close()
                refusal = await post(pipeline, b"refused")
                assert refusal is not None
                assert refusal.status == 503
                while await stream.problems.check() is None:
                    await post(pipeline, b"refused")
                assert nats.password is not None
                port = int(nats.url.rpartition(":")[2])
                with nats_server(folder, port, nats.password.get_secret_value()):
                    while await post(pipeline, b"after") is not None:
                        pass
                    messages, received, _ = await stored(nats)
        assert {message.payload for message in messages} == {b"before", b"after"}
        assert received == {"demo": len(messages)}
