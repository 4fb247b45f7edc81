"""The stream of envelopes, for dead letters: messages are published to it again, and the whole payload of a shortened one may still be there."""

import contextlib
from collections.abc import Iterator, Sequence

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError as NatsNotFoundError

from sens_common import envelope
from sens_common.errors import UnavailableError, words_of
from sens_common.names import TELEMETRY_STREAM
from sens_common.replays import REPLAY_SUBJECT, ReplayedMessage, envelopes
from sens_platform_api.dead_letters.repository import StoredDeadLetter


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
            messages = [
                ReplayedMessage(
                    letter.summary.topic, letter.payload, _microseconds(letter), letter.origin, letter.summary.replays
                )
                for letter in letters
            ]
            for each in envelopes(messages, self._client.max_payload):
                await jetstream.publish(REPLAY_SUBJECT, each.body, stream=TELEMETRY_STREAM, headers=each.headers)

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


def _microseconds(letter: StoredDeadLetter) -> int:
    received_at = letter.summary.received_at
    return int(received_at.timestamp()) * 1_000_000 + received_at.microsecond
