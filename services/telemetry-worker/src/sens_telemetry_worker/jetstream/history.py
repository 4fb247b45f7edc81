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
_TOGETHER: Final = 8
"""Envelopes that are on their way at once: the server cuts a client off for which too much waits, and each may have a megabyte."""


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
        # A stream that never had a message says 0; sequences begin at 1.
        return StreamState(created, max(1, stream.state.first_seq), stream.state.last_seq, settled)

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
        found: list[StreamMessage] = []
        with _translated():
            for start in range(first, past, _TOGETHER):
                sequences = range(start, min(start + _TOGETHER, past))
                for messages in await asyncio.gather(*(self._messages_of(each, created_at) for each in sequences)):
                    found += messages
        return found

    async def _messages_of(self, sequence: int, created_at: int) -> list[StreamMessage]:
        try:
            found = await self._jetstream.get_msg(TELEMETRY_STREAM, seq=sequence)
        except NotFoundError:
            return []
        return list(_messages(found, created_at))


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
