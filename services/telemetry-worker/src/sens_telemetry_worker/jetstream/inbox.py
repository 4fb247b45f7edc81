"""Taking envelopes from the stream, as `pipeline.Inbox`.

A batch waits shortly for more messages, and longer when the worker is behind: then latency is lost already, and a larger batch costs less a
message.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from sens_common.attempts import Attempts, Backoff
from sens_common.errors import StoppedError, UnavailableError
from sens_common.health import Problems
from sens_common.settings import NatsSettings
from sens_common.stopping import Race
from sens_telemetry_worker.jetstream import pulling
from sens_telemetry_worker.jetstream.buffered_envelopes import BufferedEnvelopes
from sens_telemetry_worker.jetstream.consumer import ensure_consumer
from sens_telemetry_worker.jetstream.envelope import StreamEnvelope
from sens_telemetry_worker.jetstream.pulling import StandingPull
from sens_telemetry_worker.settings import BatchSettings

log = structlog.get_logger()

BEHIND_SECONDS: Final = 0.25
"""A worker is behind when the envelope that it takes next has been in the stream for longer than this."""

_PROGRESS_INTERVAL_SECONDS: Final = 3.0
_POSTPONED_SECONDS: Final = 30.0
_RESTORE_BACKOFF: Final = Backoff(1, 1)
_LONGEST_WAIT_SECONDS: Final = 1.0
"""A connection that is lost wakes no lane that waits; this is soon enough to notice it."""


class StreamInbox:
    """The envelopes of the durable consumer, which all workers share.

    Attributes:
        problems: Why nothing can be taken now.
    """

    def __init__(
        self,
        client: Client,
        settings: NatsSettings,
        batch: BatchSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._settings = settings
        self._batch = batch
        self._clock = clock
        self._pull = StandingPull(client, client.new_inbox())
        self._buffered = BufferedEnvelopes()
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()
        self._stream_created_at = 0
        self.problems = Problems("stream")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Receive while the context is open; envelopes that were received and not taken are given back at its end.

        Raises:
            UnavailableError: JetStream does not answer, or refuses the stream or the consumer.
        """
        self._stream_created_at = await ensure_consumer(self._client, self._settings)
        subscription = await self._client.subscribe(self._pull.reply_subject, cb=self._receive)
        try:
            yield
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()
                for envelope in self._buffered:
                    await envelope.release()

    async def _receive(self, delivery: Msg) -> None:
        status = pulling.status_of(delivery)
        if status is None:
            self._pull.note_envelope()
            self._buffered.add(StreamEnvelope.read(delivery, self._stream_created_at))
        else:
            self._pull.note_status(status)
        self._arrived.set()

    async def take(self, stop: asyncio.Event, *, rejected_share: float = 0.0) -> list[StreamEnvelope]:
        """See `pipeline.Inbox.take`. Lanes take turns; a batch is at most twice as large because of rejected messages."""
        wanted = round(self._batch.messages / (1 - min(rejected_share, 0.5)))
        async with self._turn:
            with Race(stop) as race, contextlib.suppress(StoppedError):
                await self._wait_for_one(race, stop)
                await self._linger(race, wanted)
            if stop.is_set():  # what waits is given back
                return []
            taken = self._buffered.take(wanted, pulling.MAX_BYTES)
            await self._ask_for_more()
            return taken

    async def _wait_for_one(self, race: Race, stop: asyncio.Event) -> None:
        """Wait until an envelope is there.

        Raises:
            StoppedError: The stop came first.
        """
        while not self._buffered:
            if self._pull.consumer_is_missing:
                await self._restore(stop)
            await self._wait(race)

    async def _linger(self, race: Race, wanted: int) -> None:
        """Wait shortly for a batch to become full.

        Raises:
            StoppedError: The stop came first.
        """
        behind = self._clock() - self._buffered.oldest.stored_at > BEHIND_SECONDS
        milliseconds = self._batch.linger_milliseconds
        if behind:
            milliseconds = max(milliseconds, self._batch.linger_milliseconds_behind)
        deadline = time.monotonic() + milliseconds / 1000
        while (
            self._buffered.message_count < wanted
            and self._buffered.size < pulling.MAX_BYTES
            and time.monotonic() < deadline
        ):
            await self._wait(race, deadline)

    async def _wait(self, race: Race, deadline: float | None = None) -> None:
        """Wait until something arrives, but no longer than the deadline; without one, than the request may be silent.

        Raises:
            StoppedError: The stop came first.
        """
        self._arrived.clear()
        await self._ask_for_more()
        seconds = (self._pull.silent_at if deadline is None else deadline) - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)):
                await race.run(self._arrived.wait())

    async def _ask_for_more(self) -> None:
        """Keep enough envelopes on their way; ask for none while two batches' worth waits, in number or in size."""
        buffered = self._buffered
        enough = (
            buffered.message_count >= 2 * self._batch.messages
            or buffered.size >= 2 * pulling.MAX_BYTES
            or len(buffered) >= pulling.MAX_ENVELOPES
        )
        await self._pull.keep_open(enough=enough)

    async def _restore(self, stop: asyncio.Event) -> None:
        """Make the stream and the consumer again: they were removed, or JetStream has just started."""
        attempts = Attempts(
            self.problems,
            "consumer",
            "nothing can be taken from the stream",
            retry_on=(UnavailableError,),
            backoff=_RESTORE_BACKOFF,
            stop=stop,
        )
        async for attempt in attempts:
            with attempt:
                self._stream_created_at = await ensure_consumer(self._client, self._settings)
                self._pull.consumer_is_missing = False

    @contextlib.asynccontextmanager
    async def keep_in_progress(self, envelopes: list[StreamEnvelope]) -> AsyncIterator[None]:
        """See `pipeline.Inbox.keep_in_progress`; what waits for its turn is kept as well."""
        keeping = asyncio.create_task(self._keep_in_progress(envelopes), name="keep envelopes in progress")
        try:
            yield
        finally:
            keeping.cancel()

    async def _keep_in_progress(self, envelopes: list[StreamEnvelope]) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL_SECONDS)
            with contextlib.suppress(NatsError):
                for envelope in [*envelopes, *self._buffered]:
                    await envelope.keep_in_progress()

    async def acknowledge(self, envelopes: list[StreamEnvelope]) -> None:
        """See `pipeline.Inbox.acknowledge`. An acknowledgement that gets lost makes the envelope come again, to no effect."""
        for envelope in envelopes:
            try:
                await envelope.acknowledge()
            except NatsError as error:
                log.warning("an envelope could not be acknowledged; it comes again", error=str(error))

    async def postpone(self, envelopes: list[StreamEnvelope]) -> None:
        """See `pipeline.Inbox.postpone`."""
        for envelope in envelopes:
            with contextlib.suppress(NatsError):
                await envelope.release(_POSTPONED_SECONDS)
