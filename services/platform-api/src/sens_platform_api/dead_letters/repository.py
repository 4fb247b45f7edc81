"""The dead letters in JetStream. A dead letter's id is its sequence number in the stream.

One message after the other is read with the stream's "next message with this subject" request (NATS ADR-31): it needs no consumer,
whatever else lies in the stream costs nothing, and it is answered by the stream's leader, so that a deleted message stays away.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError as NatsNotFoundError

from sens_common import dead_letters, envelope
from sens_common.dead_letters import DeadLetter
from sens_common.errors import UnavailableError
from sens_common.names import DEAD_LETTERS_STREAM, REPLAY_PUBLISHER, TELEMETRY_STREAM, TELEMETRY_SUBJECT
from sens_platform_api.errors import NotFoundError

UNREADABLE = "unreadable"
"""Reason that is shown for a message in the stream that is no dead letter; its payload is the message's body."""


class StoredDeadLetter(NamedTuple):
    """A dead letter and its place in the stream."""

    id: int
    letter: DeadLetter


class DeadLetterStream:
    """The stream of dead letters. ``tenant`` None stands for those whose topic names no valid tenant."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, tenant: str | None, letter_id: int) -> StoredDeadLetter:
        """Return one dead letter.

        Raises:
            NotFoundError: There is none with this id, or it is another tenant's.
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            try:
                message = await self._client.jetstream().get_msg(DEAD_LETTERS_STREAM, seq=letter_id)
            except NatsNotFoundError:
                message = None
        if message is None or not (message.subject or "").startswith(f"{dead_letters.tenant_subject(tenant)}."):
            raise NotFoundError(f"there is no dead letter {letter_id}; it may have been replayed meanwhile")
        return _stored(message, tenant)

    async def following(self, tenant: str | None, letter_id: int) -> StoredDeadLetter | None:
        """Return the first dead letter whose id is this one or higher, None when there is none.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            try:
                message = await self._client.jetstream().get_msg(
                    DEAD_LETTERS_STREAM,
                    seq=letter_id,
                    subject=f"{dead_letters.tenant_subject(tenant)}.>",
                    next=True,
                )
            except NatsNotFoundError:
                return None
        return _stored(message, tenant)

    async def last_id(self) -> int:
        """Return the highest id that was given so far, of any tenant.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            information = await self._client.jetstream().stream_info(DEAD_LETTERS_STREAM)
        return information.state.last_seq

    async def send_again(self, stored: StoredDeadLetter) -> None:
        """Put the message into the telemetry stream again, with the time of its first receipt, and then delete the dead letter.

        Raises:
            UnavailableError: NATS can't be used, or the telemetry stream takes nothing. It may have happened all the same: doing it
                twice has no effect, because storing the same measurement twice has none.
        """
        letter = stored.letter
        message = envelope.Message(letter.topic, letter.payload, letter.received_at)
        with self._translated_errors():
            jetstream = self._client.jetstream()
            created = (await jetstream.stream_info(DEAD_LETTERS_STREAM)).created
            stream = f"{created.timestamp():.6f}" if created is not None else "0"
            await jetstream.publish(
                f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}",
                envelope.encode([message]),
                stream=TELEMETRY_STREAM,
                headers={
                    envelope.VERSION_HEADER: envelope.VERSION,
                    envelope.COUNT_HEADER: "1",
                    envelope.REPLAYS_HEADER: str(letter.replays + 1),
                    envelope.MESSAGE_ID_HEADER: f"replay-{stream}-{stored.id}",
                },
            )
            with contextlib.suppress(NatsNotFoundError):  # another replay of the same dead letter was faster
                await jetstream.delete_msg(DEAD_LETTERS_STREAM, stored.id)

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        if not self._client.is_connected:
            raise UnavailableError("NATS can't be reached; dead letters and live data have to wait for it")
        try:
            yield
        except NatsNotFoundError as error:
            raise UnavailableError(f"the stream {DEAD_LETTERS_STREAM} does not exist yet") from error
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not do what is needed: {str(error) or 'no answer in time'}") from error


def _stored(message: RawStreamMsg, tenant: str | None) -> StoredDeadLetter:
    body = message.data or b""
    try:
        letter = dead_letters.decode(body)
    except ValueError as error:
        stored_at = round(message.time.timestamp() * 1_000_000) if message.time is not None else 0
        letter = DeadLetter(
            tenant=tenant,
            device=None,
            topic="",
            payload=body,
            received_at=stored_at,
            reason=UNREADABLE,
            detail=str(error),
            dead_lettered_at=stored_at,
        )
    return StoredDeadLetter(message.seq or 0, letter)
