"""The stream of envelopes, for imports."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError as NatsNotFoundError

from sens_common import envelope
from sens_common.errors import UnavailableError, words_of
from sens_common.names import REPLAY_PUBLISHER, TELEMETRY_CONSUMER, TELEMETRY_STREAM, TELEMETRY_SUBJECT
from sens_common.topics import TOPICS
from sens_platform_api.imports.lines import Message

_MESSAGE_OVERHEAD_BYTES: Final = 32  # of MessagePack around topic, payload, time and packet id


class ImportStream:
    """The stream of envelopes in JetStream. Imports share the subject of replays, the only one on which the API may publish."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, identity: str, messages: Sequence[Message], received_at: int, late_days: int) -> None:
        """See `service.Stream.publish`."""
        # Each has a receipt time of its own, as the contract of envelopes says it.
        received = [
            envelope.Message(each.topic, each.payload, received_at + index) for index, each in enumerate(messages)
        ]
        with self._translated_errors():
            for together in _envelopes(received, self._client.max_payload - envelope.OVERHEAD_BYTES):
                tenants = TOPICS.count_by_tenant([each.topic for each in together])
                whose = f"{identity} {together[0].received_at - received_at}"
                await self._client.jetstream().publish(
                    f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}",
                    envelope.encode(together),
                    stream=TELEMETRY_STREAM,
                    headers={
                        envelope.VERSION_HEADER: envelope.VERSION,
                        envelope.COUNT_HEADER: str(len(together)),
                        envelope.RECEIVED_HEADER: envelope.encode_counts(tenants),
                        envelope.IMPORT_HEADER: str(late_days),
                        envelope.MESSAGE_ID_HEADER: f"import-{hashlib.sha256(whose.encode()).hexdigest()}",
                    },
                )

    async def waiting_seconds(self) -> float:
        """See `pace.Stream.waiting_seconds`."""
        with self._translated_errors():
            jetstream = self._client.jetstream()
            consumer = await jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
            if not consumer.num_pending and not consumer.num_ack_pending:
                return 0.0
            settled = 0 if consumer.ack_floor is None else consumer.ack_floor.stream_seq
            try:
                oldest = await jetstream.get_msg(TELEMETRY_STREAM, seq=settled + 1, next=True, subject=">")
            except NatsNotFoundError:
                return 0.0
        return 0.0 if oldest.time is None else max(0.0, time.time() - oldest.time.timestamp())

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        if not self._client.is_connected:
            raise UnavailableError("NATS can't be reached; imports have to wait for it")
        try:
            yield
        except NatsNotFoundError as error:
            raise UnavailableError(f"the stream {TELEMETRY_STREAM} and its consumer do not exist yet") from error
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not do what is needed: {words_of(error)}") from error


def _envelopes(messages: Sequence[envelope.Message], max_bytes: int) -> Iterator[list[envelope.Message]]:
    """Yield messages that go into one envelope: not too large together."""
    together: list[envelope.Message] = []
    size = 0
    for message in messages:
        length = len(message.topic.encode()) + len(message.payload) + _MESSAGE_OVERHEAD_BYTES
        if together and size + length > max_bytes:
            yield together
            together, size = [], 0
        together.append(message)
        size += length
    yield together
