"""The stream of envelopes on JetStream, as an HTTP ingestion worker publishes to it. See `sens_common.envelope` for their form."""

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import PubAck, RawStreamMsg
from nats.js.errors import NoStreamResponseError, NotFoundError

from sens_common import envelope
from sens_common.attempts import Attempts, Backoff
from sens_common.envelope import Message
from sens_common.errors import UnavailableError, words_of
from sens_common.health import Problems
from sens_common.ingestion import metrics
from sens_common.ingestion.clock import ReceiptClock
from sens_common.jetstream import ensure_streams
from sens_common.names import TELEMETRY_STREAM, TELEMETRY_SUBJECT, subject_token
from sens_common.settings import NatsSettings
from sens_common.topics import TOPICS

log = structlog.get_logger()

_ATTEMPT_SECONDS: Final = 1.5
_PAUSE_SECONDS: Final = 0.1
_READ_BACKOFF: Final = Backoff(1, 1)
_PUBLISHING: Final = "publish"
_READING: Final = "read"


class EnvelopeStream:
    """The stream, as `pipeline.Stream`.

    Attributes:
        problems: Why envelopes are not stored; for the readiness check.
    """

    def __init__(self, client: Client, settings: NatsSettings, publisher: str, clock: ReceiptClock) -> None:
        self._client = client
        self._jetstream: JetStreamContext = client.jetstream()
        self._settings = settings
        self._clock = clock
        self._subject = f"{TELEMETRY_SUBJECT}.{subject_token(publisher)}"
        # Identifiers must differ between two runs of the same publisher.
        self._id_prefix = f"{subject_token(publisher)}-{secrets.token_hex(6)}"
        self._envelope_count = 0
        self.problems = Problems("stream")

    async def recall(self, stop: asyncio.Event) -> None:
        """Let the receipt clock know what this publisher gave in an earlier process; returns once that is known, or at the stop."""
        attempts = Attempts(
            self.problems,
            _READING,
            "the stream's newest envelope can't be read",
            retry_on=(NatsError, TimeoutError),
            backoff=_READ_BACKOFF,
            stop=stop,
        )
        async for attempt in attempts:
            with attempt:
                last = await self._last()
                if last is None:
                    self._clock.recall(None, 0)
                    return
                messages = envelope.decode_with_marks(last.data or b"")
                newest = max((message.received_at for message in messages), default=0)
                self._clock.recall((last.headers or {}).get(envelope.CLOCK_HEADER), newest)
                return

    async def _last(self) -> RawStreamMsg | None:
        try:
            return await self._jetstream.get_last_msg(TELEMETRY_STREAM, self._subject)
        except NotFoundError:
            return None

    async def publish(
        self, messages: list[Message], discarded: Mapping[str, int], *, repeat_id: str | None, seconds: float
    ) -> bool:
        """See `pipeline.Stream.publish`."""
        self._envelope_count += 1
        body = envelope.encode(messages)
        headers = self._headers(messages, discarded, repeat_id or f"{self._id_prefix}-{self._envelope_count}")
        started = time.perf_counter()
        deadline = started + seconds
        number = 0
        while True:
            number += 1
            left = deadline - time.perf_counter()
            try:
                acknowledgement = await self._publish_once(body, headers, min(left, _ATTEMPT_SECONDS))
            except (NatsError, TimeoutError, OSError) as error:
                self.problems.set(_PUBLISHING, "the stream does not take messages", words_of(error))
                if deadline - time.perf_counter() < 2 * _PAUSE_SECONDS:
                    raise UnavailableError(f"the stream does not take messages: {words_of(error)}") from error
                metrics.PUBLISH_RETRIES.inc()
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            break
        self.problems.clear(_PUBLISHING)
        metrics.PUBLISH_SECONDS.observe(time.perf_counter() - started)
        metrics.ENVELOPE_MESSAGES.observe(len(messages))
        if repeat_id is not None and acknowledgement.duplicate and number == 1:
            return False
        metrics.ENVELOPES.inc()
        return True

    def _headers(self, messages: list[Message], discarded: Mapping[str, int], message_id: str) -> dict[str, str]:
        received = Counter(TOPICS.count_by_tenant([message.topic for message in messages]))
        received.update(discarded)
        headers = {
            envelope.VERSION_HEADER: envelope.VERSION,
            envelope.COUNT_HEADER: str(len(messages)),
            envelope.RECEIVED_HEADER: envelope.encode_counts(received),
            envelope.MESSAGE_ID_HEADER: message_id,
        }
        if discarded:
            headers[envelope.DISCARDED_HEADER] = envelope.encode_counts(discarded)
        clock = self._clock.header
        if clock is not None:
            headers[envelope.CLOCK_HEADER] = clock
        return headers

    async def _publish_once(self, body: bytes, headers: dict[str, str], seconds: float) -> PubAck:
        """Publish an envelope.

        Raises:
            NatsError: JetStream refuses it.
            TimeoutError: JetStream does not answer; whether it has stored the envelope is not known.
            ConnectionError: There is no connection. What is published then would be sent when there is one, long after its sender was told 503.
        """
        if not self._client.is_connected:
            raise ConnectionError("not connected to NATS")
        try:
            return await self._jetstream.publish(
                self._subject, body, timeout=seconds, stream=TELEMETRY_STREAM, headers=headers
            )
        except NoStreamResponseError:
            # Somebody has removed the stream, or JetStream is not up yet.
            with contextlib.suppress(UnavailableError):
                await ensure_streams(self._jetstream, self._settings)
            raise
