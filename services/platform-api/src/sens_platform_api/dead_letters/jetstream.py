"""The stream of envelopes, for dead letters: messages are published to it again, and the whole payload of a shortened one may still be there."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError as NatsNotFoundError

from sens_common import envelope
from sens_common.errors import UnavailableError, words_of
from sens_common.names import REPLAY_PUBLISHER, TELEMETRY_STREAM, TELEMETRY_SUBJECT
from sens_common.topics import TOPICS
from sens_platform_api.dead_letters.repository import StoredDeadLetter

_ENVELOPE_MESSAGES: Final = 500
_MESSAGE_OVERHEAD_BYTES: Final = 32  # of MessagePack around topic, payload, time and packet id


class TelemetryStream:
    """The stream of envelopes in JetStream."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, letters: Sequence[StoredDeadLetter]) -> None:
        """Publish messages to the stream again, with the times of their first receipt and their origins.

        Raises:
            UnavailableError: NATS can't be used, or the stream takes nothing. It may have happened all the same: doing it twice has no
                effect, because storing the same message twice has none, and one that is refused again has one dead letter.
        """
        with self._translated_errors():
            jetstream = self._client.jetstream()
            for together in _envelopes(letters, self._client.max_payload - envelope.OVERHEAD_BYTES):
                origins = envelope.encode_origins([letter.origin for letter in together])
                replays = together[0].summary.replays
                messages = [
                    envelope.Message(letter.summary.topic, letter.payload, _microseconds(letter)) for letter in together
                ]
                tenants = TOPICS.count_by_tenant([message.topic for message in messages])
                identity = hashlib.sha256(f"{origins} {replays}".encode()).hexdigest()
                await jetstream.publish(
                    f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}",
                    envelope.encode(messages),
                    stream=TELEMETRY_STREAM,
                    headers={
                        envelope.VERSION_HEADER: envelope.VERSION,
                        envelope.COUNT_HEADER: str(len(messages)),
                        envelope.RECEIVED_HEADER: envelope.encode_counts(tenants),
                        envelope.REPLAYS_HEADER: str(replays + 1),
                        envelope.REPLAY_OF_HEADER: origins,
                        envelope.MESSAGE_ID_HEADER: f"replay-{identity}",
                    },
                )

    async def whole(self, letter: StoredDeadLetter) -> StoredDeadLetter | None:
        """Return a shortened dead letter with its whole payload, None when the stream no longer has it.

        Raises:
            UnavailableError: NATS can't be used.
        """
        origin = letter.origin
        with self._translated_errors():
            jetstream = self._client.jetstream()
            created = (await jetstream.stream_info(TELEMETRY_STREAM)).created
            if created is None or int(created.timestamp() * 1e6) != origin.stream_created_at:
                return None
            try:
                found = await jetstream.get_msg(TELEMETRY_STREAM, seq=origin.sequence)
            except NatsNotFoundError:
                return None
        payload = _payload(found.data or b"", origin.message_index)
        is_whole = payload is not None and len(payload) == letter.summary.payload_bytes
        return letter._replace(payload=payload) if payload is not None and is_whole else None

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        if not self._client.is_connected:
            raise UnavailableError("NATS can't be reached; replays and live data have to wait for it")
        try:
            yield
        except NatsNotFoundError as error:
            raise UnavailableError(f"the stream {TELEMETRY_STREAM} does not exist yet") from error
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not do what is needed: {words_of(error)}") from error


def _payload(body: bytes, index: int) -> bytes | None:
    """Return the payload of a message of an envelope; what is no envelope is one message."""
    try:
        messages = envelope.decode(body)
    except ValueError:
        return body if index == 0 else None
    return messages[index].payload if index < len(messages) else None


def _envelopes(letters: Sequence[StoredDeadLetter], max_bytes: int) -> Iterator[list[StoredDeadLetter]]:
    """Yield dead letters that go into one envelope: of one stream, replayed equally often, not too many or too large together."""

    def alike(letter: StoredDeadLetter) -> tuple[int, int]:
        return letter.origin.stream_created_at, letter.summary.replays

    for _, group in itertools.groupby(sorted(letters, key=alike), alike):
        together: list[StoredDeadLetter] = []
        size = 0
        for letter in group:
            length = len(letter.summary.topic.encode()) + len(letter.payload) + _MESSAGE_OVERHEAD_BYTES
            if together and (len(together) == _ENVELOPE_MESSAGES or size + length > max_bytes):
                yield together
                together, size = [], 0
            together.append(letter)
            size += length
        yield together


def _microseconds(letter: StoredDeadLetter) -> int:
    received_at = letter.summary.received_at
    return int(received_at.timestamp()) * 1_000_000 + received_at.microsecond
