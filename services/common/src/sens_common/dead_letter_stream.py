"""Publishing to the stream of dead letters, which takes one message a subject.

A server that syncs every message to disk stores a few hundred a second, so messages are published in atomic batches, which it syncs once
(NATS ADR-50, "JetStream Batch Publishing"). A batch with a message whose subject is taken is refused as a whole, and so is every batch by
a stream made without ``allow_atomic``; then each message is published alone.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from sens_common.jetstream import is_refusal
from sens_common.names import DEAD_LETTERS_STREAM

_TIMEOUT_SECONDS: Final = 5.0
_BATCH_MESSAGES: Final = 1000  # the most that a server takes by default (NATS ADR-50)
_BATCH_BYTES: Final = 8 << 20
_BATCH_ID: Final = "Nats-Batch-Id"
_BATCH_SEQUENCE: Final = "Nats-Batch-Sequence"
_BATCH_COMMIT: Final = "Nats-Batch-Commit"
_ATOMIC_PUBLISH_DISABLED: Final = 10174  # JSAtomicPublishDisabledErr, nats-server server/errors.json


class Encoded(NamedTuple):
    """A message for the stream."""

    subject: str
    body: bytes


class DeadLetterPublisher:
    """Puts messages into the stream; safe to repeat, as a subject takes one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._jetstream = client.jetstream()
        self._takes_batches = True

    async def publish_together(self, batch: Sequence[Encoded]) -> bool:
        """Publish a batch as `batches` yields it; False when it can't be told that all are stored."""
        if not self._takes_batches or len(batch) == 1:
            return False
        identity = secrets.token_hex(16)
        try:
            for number, (subject, body) in enumerate(batch[:-1], 1):
                headers = {_BATCH_ID: identity, _BATCH_SEQUENCE: str(number)}
                await self._client.publish(subject, body, headers=headers)
            headers = {_BATCH_ID: identity, _BATCH_SEQUENCE: str(len(batch)), _BATCH_COMMIT: "1"}
            answer = await self._jetstream.publish(
                *batch[-1], timeout=_TIMEOUT_SECONDS, stream=DEAD_LETTERS_STREAM, headers=headers
            )
        except APIError as error:
            self._takes_batches = error.err_code != _ATOMIC_PUBLISH_DISABLED
            return False
        except (NatsError, TimeoutError, OSError):
            return False
        # A server older than 2.12 takes the batch for single messages.
        self._takes_batches = answer.batch_id == identity
        return self._takes_batches

    async def publish(self, message: Encoded) -> bool:
        """Publish a message and wait until it is safe; False when its subject had one before.

        Raises:
            nats.errors.Error: JetStream refuses it, or can't be reached.
            TimeoutError: No answer in time.
            OSError: The connection is lost.
        """
        try:
            await self._jetstream.publish(*message, timeout=_TIMEOUT_SECONDS, stream=DEAD_LETTERS_STREAM)
        except APIError as error:
            if is_refusal(error, "maximum messages per subject exceeded"):
                return False
            raise
        return True


def batches(messages: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Yield messages in batches that the server takes."""
    batch: list[Encoded] = []
    size = 0
    for message in messages:
        if batch and (len(batch) == _BATCH_MESSAGES or size + len(message.body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message.body)
    if batch:
        yield batch
