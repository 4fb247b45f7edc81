"""The stream read by sequence, as `codec_runs.runner.Stream`: without a consumer, so that the workers' own is left alone."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.errors import words_of
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_telemetry_worker.codec_runs.runs import StreamMessage, StreamState
from sens_telemetry_worker.storing import StoreUnavailableError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class StreamHistory:
    """The stream of envelopes."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream

    async def state(self) -> StreamState:
        """See `runner.Stream.state`."""
        with _translated():
            stream = await self._jetstream.stream_info(TELEMETRY_STREAM)
            consumer = await self._jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
        created = 0 if stream.created is None else int(stream.created.timestamp() * 1e6)
        settled = 0 if consumer.ack_floor is None else consumer.ack_floor.stream_seq
        if not consumer.num_pending and not consumer.num_ack_pending:
            settled = max(settled, stream.state.last_seq)
        return StreamState(created, stream.state.first_seq, stream.state.last_seq, settled)

    async def first_since(self, at: int, state: StreamState) -> int:
        """See `runner.Stream.first_since`; by halving."""
        low, high = state.first, state.last + 1
        cutoff = _EPOCH + timedelta(microseconds=at)
        with _translated():
            while low < high:
                middle = (low + high) // 2
                try:
                    found = await self._jetstream.get_msg(TELEMETRY_STREAM, seq=middle, next=True, subject=">")
                except NotFoundError:
                    high = middle
                    continue
                if found.time is not None and found.time < cutoff:
                    low = middle + 1
                else:
                    high = middle
        return low

    async def messages(self, first: int, past: int, created_at: int) -> list[StreamMessage]:
        """See `runner.Stream.messages`."""
        with _translated():
            found = await asyncio.gather(*(self._get(sequence) for sequence in range(first, past)))
        return [message for each in found if each is not None for message in _messages(each, created_at)]

    async def _get(self, sequence: int) -> RawStreamMsg | None:
        try:
            return await self._jetstream.get_msg(TELEMETRY_STREAM, seq=sequence)
        except NotFoundError:
            return None


def _messages(found: RawStreamMsg, created_at: int) -> Iterator[StreamMessage]:
    """Yield the messages of an envelope; what is no envelope has none."""
    try:
        messages = envelope.decode(found.data or b"")
    except ValueError:
        return
    sequence = found.seq or 0
    origins: list[Origin] = []
    with contextlib.suppress(KeyError, ValueError):
        origins = envelope.decode_origins((found.headers or {})[envelope.REPLAY_OF_HEADER])
    for index, message in enumerate(messages):
        origin = origins[index] if len(origins) == len(messages) else Origin(created_at, sequence, index)
        yield StreamMessage(origin, message)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Tell errors of NATS.

    Raises:
        StoreUnavailableError: NATS does not do what is needed; try again.
    """
    try:
        yield
    except (NatsError, TimeoutError, OSError) as error:
        raise StoreUnavailableError(f"NATS does not do what is needed: {words_of(error)}") from error
