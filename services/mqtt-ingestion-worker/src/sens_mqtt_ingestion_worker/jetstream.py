"""The stream of envelopes on JetStream, one publisher per MQTT session. See `sens_common.envelope` for their form."""

import contextlib
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header, PubAck, RawStreamMsg
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from sens_common import envelope
from sens_common.attempts import Attempts, Backoff
from sens_common.envelope import Message
from sens_common.errors import StoppedError, UnavailableError
from sens_common.health import Problems
from sens_common.ingestion import metrics
from sens_common.ingestion.clock import ReceiptClock
from sens_common.ingestion.rates import Rates
from sens_common.jetstream import ensure_streams
from sens_common.names import TELEMETRY_STREAM, TELEMETRY_SUBJECT, subject_token
from sens_common.settings import NatsSettings
from sens_common.topics import TOPICS
from sens_mqtt_ingestion_worker.accounting import fitted
from sens_mqtt_ingestion_worker.pipeline import SupersededError
from sens_mqtt_ingestion_worker.redelivery import kept_message_count

log = structlog.get_logger()

_MESSAGE_OVERHEAD_BYTES: Final = 32
_MARK_BYTES: Final = 24
_RECEIVED_BYTES: Final = 8192  # of envelope.OVERHEAD_BYTES
_DISCARDED_BYTES: Final = 5120  # likewise
_PUBLISH_TIMEOUT_SECONDS: Final = 5.0
_PUBLISH_BACKOFF: Final = Backoff(0.1, 5)
_READ_BACKOFF: Final = Backoff(1, 1)
_TAIL_FETCH: Final = 256
_TAIL_TIMEOUT_SECONDS: Final = 10.0
_PROBLEM: Final = "stream"
_WRONG_LAST_SEQUENCE: Final = 10071  # JSStreamWrongLastSequenceErrF, nats-server server/errors.json


class _Contents(NamedTuple):
    """What one envelope holds.

    Attributes:
        messages: Messages, and marks of those that were discarded.
        message_count: How many are messages.
        received_counts: Messages of each tenant, those included that were discarded.
        discarded_counts: Those.
    """

    messages: list[Message]
    message_count: int
    received_counts: dict[str, int]
    discarded_counts: dict[str, int]


class JetStreamPublisher:
    """The stream, as `pipeline.Stream`.

    Each publish names the envelope that it follows (header ``Nats-Expected-Last-Subject-Sequence``), and JetStream refuses it when
    the session's newest envelope is another one: a worker that was frozen and wakes after its successor can't store a message twice.

    Attributes:
        problems: Why the current envelope is not stored yet; for the readiness check.
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        settings: NatsSettings,
        publisher: str,
        clock: ReceiptClock,
        rates: Rates,
        *,
        receive_max: int,
        max_payload_bytes: int,
        problems: Problems | None = None,
    ) -> None:
        self._jetstream = jetstream
        self._settings = settings
        self._clock = clock
        self._rates = rates
        self._subject = f"{TELEMETRY_SUBJECT}.{subject_token(publisher)}"
        self._kept_message_count = kept_message_count(receive_max)
        self._max_envelope_bytes = max_payload_bytes - envelope.OVERHEAD_BYTES
        # Message ids must differ between two runs of the same publisher.
        self._message_id_prefix = f"{subject_token(publisher)}-{secrets.token_hex(6)}"
        self._envelope_count = 0
        self._last_sequence = 0
        self._recent: deque[tuple[int, int]] = deque()  # stream sequence and number of messages of the newest envelopes
        self._recent_message_count = 0
        self.problems = problems if problems is not None else Problems("stream")
        self._reading = Attempts(
            self.problems,
            _PROBLEM,
            "the stream's tail can't be read",
            retry_on=(NatsError, TimeoutError),
            backoff=_READ_BACKOFF,
        )
        self._publishing = Attempts(
            self.problems,
            _PROBLEM,
            "the stream does not take messages",
            retry_on=(NatsError, TimeoutError, OSError),
            backoff=_PUBLISH_BACKOFF,
            retries=metrics.PUBLISH_RETRIES,
        )

    async def tail(self, count: int) -> list[Message]:
        """See `pipeline.Stream.tail`."""
        return await self._reading.run(lambda: self._tail(count))

    async def _tail(self, count: int) -> list[Message]:
        last = await self._last()
        self._forget()
        self._last_sequence = last_sequence = (last.seq or 0) if last is not None else 0
        if last is None:
            self._clock.recall(None, 0)
            return []
        first_sequence = int((last.headers or {}).get(envelope.TAIL_HEADER, "0")) or last_sequence
        subscription = await self._jetstream.pull_subscribe(
            self._subject,
            stream=TELEMETRY_STREAM,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=min(first_sequence, last_sequence),
                ack_policy=AckPolicy.NONE,
                inactive_threshold=30,
                mem_storage=True,
            ),
        )
        messages: list[Message] = []
        newest = 0
        try:
            sequence = 0
            while sequence < last_sequence:
                for message in await subscription.fetch(_TAIL_FETCH, timeout=_TAIL_TIMEOUT_SECONDS):
                    sequence = message.metadata.sequence.stream
                    contents = envelope.decode_with_marks(message.data)
                    self._recent.append((sequence, len(contents)))
                    self._recent_message_count += len(contents)
                    messages.extend(contents)
                    newest = max((each.received_at for each in contents), default=0) or newest
        finally:
            await subscription.unsubscribe()
        self._clock.recall((last.headers or {}).get(envelope.CLOCK_HEADER), newest)
        log.info("read the stream's tail", envelopes=len(self._recent), messages=len(messages), wanted=count)
        return messages

    async def publish(self, messages: list[Message], discarded: Mapping[int, str]) -> None:
        """See `pipeline.Stream.publish`."""
        for contents in self._divided(messages, discarded):
            started = time.perf_counter()
            sequence = await self._publish(contents)
            metrics.PUBLISH_SECONDS.observe(time.perf_counter() - started)
            metrics.ENVELOPE_MESSAGES.observe(contents.message_count)
            metrics.ENVELOPES.inc()
            self._remember(sequence, len(contents.messages))

    def _divided(self, messages: list[Message], discarded: Mapping[int, str]) -> Iterator[_Contents]:
        """Split so that each envelope, and its headers, fit into a NATS message."""
        start = size = 0
        for index, message in enumerate(messages):
            if discarded and index in discarded:
                message_size = _MARK_BYTES
            else:
                # A character of a topic takes up to four bytes; most take one.
                topic_bytes = len(message.topic) if message.topic.isascii() else 4 * len(message.topic)
                message_size = topic_bytes + len(message.payload) + _MESSAGE_OVERHEAD_BYTES
            if size and size + message_size > self._max_envelope_bytes:
                yield from self._divided_by_names(messages, discarded, start, index)
                start, size = index, 0
            size += message_size
        if start < len(messages):
            yield from self._divided_by_names(messages, discarded, start, len(messages))

    def _divided_by_names(
        self, messages: list[Message], discarded: Mapping[int, str], start: int, end: int
    ) -> Iterator[_Contents]:
        """Split what fits into one envelope where its headers have no room for the names of all tenants that exist."""
        received_counts = TOPICS.count_by_tenant([message.topic for message in messages[start:end]])
        over_counts = (
            Counter(discarded[index] for index in range(start, end) if index in discarded) if discarded else Counter()
        )
        shown = fitted(received_counts, self._rates.tenants, _RECEIVED_BYTES)
        shown_over = fitted(over_counts, self._rates.tenants, _DISCARDED_BYTES)
        left_out = (received_counts.keys() - shown.keys()) | (over_counts.keys() - shown_over.keys())
        if end - start > 1 and not left_out.isdisjoint(self._rates.tenants):
            middle = (start + end) // 2
            yield from self._divided_by_names(messages, discarded, start, middle)
            yield from self._divided_by_names(messages, discarded, middle, end)
            return
        if not over_counts:
            yield _Contents(messages[start:end], end - start, shown, {})
            return
        # What came with QoS 0 can't come again, and needs no mark.
        kept = [
            envelope.mark(messages[index]) if index in discarded else messages[index]
            for index in range(start, end)
            if index not in discarded or messages[index].packet_id
        ]
        yield _Contents(kept, end - start - over_counts.total(), shown, shown_over)

    async def _publish(self, contents: _Contents) -> int:
        self._envelope_count += 1
        message_id = f"{self._message_id_prefix}-{self._envelope_count}"
        body = envelope.encode(contents.messages)
        headers = {
            envelope.VERSION_HEADER: envelope.VERSION,
            envelope.COUNT_HEADER: str(contents.message_count),
            envelope.RECEIVED_HEADER: envelope.encode_counts(contents.received_counts),
            envelope.TAIL_HEADER: str(self._recent[0][0] if self._recent else 0),
            envelope.MESSAGE_ID_HEADER: message_id,
        }
        if contents.discarded_counts:
            headers[envelope.DISCARDED_HEADER] = envelope.encode_counts(contents.discarded_counts)
        clock = self._clock.header
        if clock is not None:
            headers[envelope.CLOCK_HEADER] = clock
        async for attempt in self._publishing:
            with attempt:
                if attempt.number > 1 and (stored_sequence := await self._stored_as(message_id)) is not None:
                    return stored_sequence
                headers[Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(self._last_sequence)
                return await self._publish_once(body, headers, message_id)
        raise StoppedError("told to stop")

    async def _publish_once(self, body: bytes, headers: dict[str, str], message_id: str) -> int:
        """Publish an envelope; return its sequence.

        Raises:
            NatsError: JetStream refuses it.
            TimeoutError: JetStream does not answer; whether it has stored the envelope is not known.
            SupersededError: See `_stored_as`.
        """
        try:
            acknowledgement: PubAck = await self._jetstream.publish(
                self._subject, body, timeout=_PUBLISH_TIMEOUT_SECONDS, stream=TELEMETRY_STREAM, headers=headers
            )
        except NoStreamResponseError:
            # Somebody has removed the stream, or JetStream is not up yet.
            with contextlib.suppress(UnavailableError):
                await ensure_streams(self._jetstream, self._settings)
            raise
        except APIError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise
            stored_sequence = await self._stored_as(message_id)
            if stored_sequence is None:
                raise
            return stored_sequence
        return acknowledgement.seq

    async def _stored_as(self, message_id: str) -> int | None:
        """Return the sequence of an envelope whose acknowledgement got lost, None when it is not (known to be) stored.

        This publisher's newest envelope tells, however long ago the attempt was; JetStream's own window is finite.

        Raises:
            SupersededError: The newest envelope is neither this one nor the one before it.
        """
        try:
            last = await self._last()
        except (NatsError, TimeoutError, OSError):
            return None
        if last is None:
            self._last_sequence = 0  # purged, or the stream was deleted and made again
            return None
        sequence = last.seq or 0
        if (last.headers or {}).get(envelope.MESSAGE_ID_HEADER) == message_id:
            return sequence
        if sequence > self._last_sequence:
            raise SupersededError(
                f"another process has published to {self._subject} (sequence {sequence}, {self._last_sequence} was the last one"
                " known); is a second worker running with the same SENS_MQTT__CLIENT_ID?"
            )
        self._last_sequence = sequence
        return None

    async def _last(self) -> RawStreamMsg | None:
        """Return this publisher's newest envelope, None when there is none."""
        try:
            return await self._jetstream.get_last_msg(TELEMETRY_STREAM, self._subject)
        except NotFoundError:
            return None

    def _remember(self, sequence: int, count: int) -> None:
        """Keep the sequences of the newest envelopes that hold the newest messages, `kept_message_count` of them, between them."""
        if self._recent and sequence < self._recent[-1][0]:
            self._forget()  # the stream was deleted and made again
        self._last_sequence = sequence
        self._recent.append((sequence, count))
        self._recent_message_count += count
        while len(self._recent) > 1 and self._recent_message_count - self._recent[0][1] >= self._kept_message_count:
            self._recent_message_count -= self._recent.popleft()[1]

    def _forget(self) -> None:
        self._recent.clear()
        self._recent_message_count = 0
