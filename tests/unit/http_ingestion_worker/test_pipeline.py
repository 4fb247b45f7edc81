"""What the pipeline answers, when, and what it gives to the stream at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sens_common.envelope import Message
from sens_common.errors import UnavailableError
from sens_common.ingestion.clock import ReceiptClock
from sens_http_ingestion_worker.pipeline import MAX_TENANTS, Pipeline
from sens_http_ingestion_worker.reception import Submission
from sens_http_ingestion_worker.refusals import RefusedError


class MemoryStream:
    """A stream that stores when it is let, as `pipeline.Stream`.

    Attributes:
        envelopes: What was published.
        open: Set while it stores.
        asked: Set when it was first asked to.
        fails: Whether it says that it does not.
    """

    def __init__(self) -> None:
        self.envelopes: list[tuple[list[Message], dict[str, int], str | None]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.fails = False
        self._repeats: set[str] = set()

    async def publish(
        self,
        messages: list[Message],
        discarded: Mapping[str, int],
        *,
        repeat_id: str | None,
        seconds: float,  # noqa: ARG002 - of the port
    ) -> bool:
        self.asked.set()
        await self.open.wait()
        if self.fails:
            raise UnavailableError("full")
        if repeat_id is not None and repeat_id in self._repeats:
            return False
        self._repeats |= {repeat_id} if repeat_id is not None else set()
        self.envelopes.append((messages, dict(discarded), repeat_id))
        return True

    @property
    def sizes(self) -> list[int]:
        return [len(messages) for messages, _, _ in self.envelopes]


@asynccontextmanager
async def running(
    stream: MemoryStream, *, answer_seconds: float = 4, max_envelope_bytes: int = 100_000
) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(stream, ReceiptClock(15), max_envelope_bytes=max_envelope_bytes, answer_seconds=answer_seconds)
    stop = asyncio.Event()
    working = asyncio.create_task(pipeline.run(stop))
    try:
        yield pipeline
    finally:
        stop.set()
        await working


def post(
    pipeline: Pipeline, payload: bytes = b"{}", repeat_id: str | None = None, tenant: str = "demo"
) -> "asyncio.Future[RefusedError | None]":
    answer: asyncio.Future[RefusedError | None] = asyncio.get_running_loop().create_future()
    pipeline.take(Submission(f"ingest/v1/{tenant}/push", payload, repeat_id), answer.set_result)
    return answer


class TestAnswer:
    async def test_waits_for_the_stream(self) -> None:
        stream = MemoryStream()
        stream.open.clear()
        async with running(stream) as pipeline:
            answer = post(pipeline)
            await asyncio.sleep(0)
            assert not answer.done()
            assert pipeline.waiting_count == 1
            stream.open.set()
            assert await answer is None
        assert pipeline.waiting_count == 0

    async def test_is_503_where_the_stream_refuses(self) -> None:
        stream = MemoryStream()
        stream.fails = True
        async with running(stream) as pipeline:
            refusal = await post(pipeline)
        assert refusal is not None
        assert (refusal.status, refusal.headers["Retry-After"]) == (503, "5")

    async def test_is_503_in_time_where_the_stream_says_nothing(self) -> None:
        stream = MemoryStream()
        stream.open.clear()
        async with running(stream, answer_seconds=0.2) as pipeline:
            first, waiting = post(pipeline), post(pipeline, b"waits behind it")
            repeatable = post(pipeline, b"by itself", "http-1")
            answers = [await each for each in (first, waiting, repeatable)]
            stream.open.set()
        assert [None if each is None else each.status for each in answers] == [503, 503, 503]

    async def test_that_is_late_keeps_no_body_in_the_queue(self) -> None:
        gone: list[bytes] = []

        class Body(bytes):
            def __del__(self) -> None:
                gone.append(self[:1])

        stream = MemoryStream()
        stream.open.clear()
        async with running(stream, answer_seconds=0.2) as pipeline:
            under_way = post(pipeline, Body(b"1"))
            await stream.asked.wait()
            waiting = post(pipeline, Body(b"2"))
            assert [(await each) is None for each in (under_way, waiting)] == [False, False]
            assert gone == [b"2"]
            stream.open.set()

    async def test_to_a_repeat_is_that_of_the_first(self) -> None:
        stream = MemoryStream()
        async with running(stream) as pipeline:
            assert [await post(pipeline, b"1", "http-1") for _ in range(3)] == [None, None, None]
        assert stream.sizes == [1]


class TestEnvelope:
    async def test_holds_what_came_while_the_one_before_was_under_way(self) -> None:
        stream = MemoryStream()
        stream.open.clear()
        async with running(stream) as pipeline:
            answers = [post(pipeline)]
            await asyncio.sleep(0)
            answers += [post(pipeline) for _ in range(50)]
            stream.open.set()
            await asyncio.gather(*answers)
        assert sum(stream.sizes) == 51
        assert len(stream.sizes) <= 3
        times = [message.received_at for messages, _, _ in stream.envelopes for message in messages]
        assert len(set(times)) == 51

    async def test_has_room_for_its_messages_and_for_the_names_of_its_tenants(self) -> None:
        stream = MemoryStream()
        async with running(stream) as pipeline:
            answers = [post(pipeline, b"x" * 30_000) for _ in range(6)]
            answers += [post(pipeline, tenant=f"t{number}") for number in range(120)]
            await asyncio.gather(*answers)
        for messages, _, _ in stream.envelopes:
            assert sum(len(message.payload) for message in messages) <= 100_000
            assert len({message.topic for message in messages}) <= MAX_TENANTS
        assert sum(stream.sizes) == 126

    async def test_tells_what_was_discarded(self) -> None:
        stream = MemoryStream()
        async with running(stream) as pipeline:
            pipeline.note_discarded("demo")
            pipeline.note_discarded("demo")
            await post(pipeline)
        assert [discarded for _, discarded, _ in stream.envelopes if discarded] == [{"demo": 2}]

    async def test_that_was_not_stored_leaves_the_discarded_to_the_next_one(self) -> None:
        stream = MemoryStream()
        stream.fails = True
        async with running(stream) as pipeline:
            pipeline.note_discarded("demo")
            await post(pipeline)
            stream.fails = False
        assert [(len(messages), discarded) for messages, discarded, _ in stream.envelopes] == [(0, {"demo": 1})]
