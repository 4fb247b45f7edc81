"""The dead letters in JetStream, one or several of a tenant in a message.

A dead letter's id is the sequence number of its message in the stream times `MAX_TOGETHER`, plus its place in the message.

One message after the other is read with the stream's "next message with this subject" request (NATS ADR-31): it needs no consumer,
whatever else lies in the stream costs nothing, and it is answered by the stream's leader, so that a deleted message stays away.
A replay reads many with one request.

A message that is replayed in part is taken apart: those of its dead letters that stay are stored alone, under subjects that tell their
ids, and then it is deleted.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from nats.js.errors import NotFoundError as NatsNotFoundError

from sens_common import dead_letters, envelope
from sens_common.dead_letter_stream import DeadLetterPublisher, Encoded, batches
from sens_common.dead_letters import MAX_TOGETHER, DeadLetter
from sens_common.errors import UnavailableError
from sens_common.names import DEAD_LETTERS_STREAM, REPLAY_PUBLISHER, TELEMETRY_STREAM, TELEMETRY_SUBJECT
from sens_platform_api.errors import NotFoundError

UNREADABLE = "unreadable"
"""Reason that is shown for a message in the stream that is no dead letter; its payload is the message's body."""

_REQUEST_SECONDS: Final = 5.0
_SCAN_SECONDS: Final = 30.0
_SCAN_BYTES: Final = 2 << 20  # some ten thousand letters, if they are small
_DELETED_TOGETHER: Final = 64
_ENVELOPE_MESSAGES: Final = 500
_MESSAGE_OVERHEAD_BYTES: Final = 32  # of MessagePack around topic, payload, time and packet id
_STAYS: Final = "s"
_STAYS_TOKEN: Final = re.compile(rf"{_STAYS}([0-9]{{1,20}})-([0-9]{{1,3}})")
_NO_MESSAGE: Final = frozenset(
    {10037, 10057}
)  # JSNoMessageFoundErr, JSStreamMsgDeleteFailedF; nats-server server/errors.json


class StoredDeadLetter(NamedTuple):
    """A dead letter and its id."""

    id: int
    letter: DeadLetter


class StoredMessage(NamedTuple):
    """A message of the stream.

    Attributes:
        sequence: Its place in the stream.
        letters: At least one.
    """

    sequence: int
    letters: list[StoredDeadLetter]


class Scan(NamedTuple):
    """Messages that follow each other, oldest first.

    Attributes:
        messages: None of the tenant's is missing between them.
        remaining: How many of the tenant's come behind them, about.
    """

    messages: list[StoredMessage]
    remaining: int


class Choice(NamedTuple):
    """What is replayed of a message: at least one of its letters."""

    message: StoredMessage
    letters: list[StoredDeadLetter]

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the message stays."""
        return len(self.letters) == len(self.message.letters)


class DeadLetterStream:
    """The stream of dead letters. ``tenant`` None stands for those whose topic names no valid tenant."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._publisher = DeadLetterPublisher(client)
        self._taking_apart = asyncio.Lock()

    async def get(self, tenant: str | None, letter_id: int) -> Choice:
        """Return one dead letter, and its message.

        Raises:
            NotFoundError: There is none with this id, or it is another tenant's.
            UnavailableError: NATS can't be used.
        """
        sequence = letter_id // MAX_TOGETHER
        found = await self._find(tenant, letter_id, seq=sequence) if sequence else None
        found = found or await self._find(tenant, letter_id, subject=_stays_subject(tenant, letter_id))
        if found is not None:
            return found
        raise NotFoundError(f"there is no dead letter {letter_id}; it may have been replayed meanwhile")

    async def _find(
        self, tenant: str | None, letter_id: int, *, seq: int | None = None, subject: str | None = None
    ) -> Choice | None:
        """Look for a dead letter in one message."""
        with self._translated_errors():
            try:
                found = await self._client.jetstream().get_msg(DEAD_LETTERS_STREAM, seq=seq, subject=subject)
            except NatsNotFoundError:
                return None
        if not (found.subject or "").startswith(f"{dead_letters.tenant_subject(tenant)}."):
            return None
        message = _stored(tenant, found.seq, found.subject, found.data, found.time)
        letters = [stored for stored in message.letters if stored.id == letter_id]
        return Choice(message, letters) if letters else None

    async def following(self, tenant: str | None, sequence: int) -> StoredMessage | None:
        """Return the first message whose sequence is this one or higher, None when there is none.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            try:
                message = await self._client.jetstream().get_msg(
                    DEAD_LETTERS_STREAM,
                    seq=sequence,
                    subject=f"{dead_letters.tenant_subject(tenant)}.>",
                    next=True,
                )
            except NatsNotFoundError:
                return None
        return _stored(tenant, message.seq, message.subject, message.data, message.time)

    async def scan(self, tenant: str | None, sequence: int, limit: int) -> Scan:
        """Return messages whose sequences are this one or higher, at most `limit`; none only when there are none.

        Any replica answers a request for many (NATS ADR-31, "Batched requests"). One that lags behind knows only the older ones, so
        the leader is asked whether there are more at the end.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            found = await self._read_together(tenant, sequence, limit)
        if found.messages:
            return found
        stored = await self.following(tenant, sequence)
        return Scan([] if stored is None else [stored], 0)

    async def _read_together(self, tenant: str | None, sequence: int, limit: int) -> Scan:
        request = {
            "seq": sequence,
            "next_by_subj": f"{dead_letters.tenant_subject(tenant)}.>",
            "batch": limit,
            "max_bytes": _SCAN_BYTES,
        }
        messages: list[StoredMessage] = []
        remaining = 0
        ended = asyncio.Event()

        async def take(message: Msg) -> None:
            nonlocal remaining
            headers = message.headers or {}
            if "Nats-Sequence" in headers:
                stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
                place = int(headers["Nats-Sequence"]), headers["Nats-Subject"]
                messages.append(_stored(tenant, *place, message.data, stored_at))
                remaining = int(headers.get("Nats-Num-Pending", "0"))
            # A status says that there are no more, or nobody who answers; a server older than 2.11 answers with one message.
            if len(messages) == limit or "Nats-Num-Pending" not in headers or "Nats-Sequence" not in headers:
                ended.set()

        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox, cb=take)
        try:
            await self._client.publish(
                f"$JS.API.DIRECT.GET.{DEAD_LETTERS_STREAM}", json.dumps(request).encode(), reply=inbox
            )
            async with asyncio.timeout(_SCAN_SECONDS):
                await ended.wait()
        finally:
            await answers.unsubscribe()
        letters = sum(len(message.letters) for message in messages)
        return Scan(messages, round(remaining * letters / len(messages)) if messages else 0)

    async def last_sequence(self) -> int:
        """Return the highest sequence that was given so far, to a message of any tenant.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            information = await self._client.jetstream().stream_info(DEAD_LETTERS_STREAM)
        return information.state.last_seq

    async def send_again(self, tenant: str | None, choices: Sequence[Choice], *, gapless: bool = False) -> None:
        """Put messages into the telemetry stream again, with the times of their first receipt, and then delete the dead letters.

        Args:
            tenant: Whose they are.
            choices: Oldest first.
            gapless: Whether none of the tenant's is missing between them.

        Raises:
            UnavailableError: NATS can't be used, or the telemetry stream takes nothing. It may have happened all the same: doing it
                twice has no effect, because storing the same measurement twice has none, and a message that is refused again
                has one dead letter, however often it comes.
        """
        letters = [stored for choice in choices for stored in choice.letters]
        with self._translated_errors():
            jetstream = self._client.jetstream()
            created = (await jetstream.stream_info(DEAD_LETTERS_STREAM)).created
            stream = f"{int(created.timestamp() * 1e6) if created is not None else 0:x}"
            for together in _envelopes(letters, self._client.max_payload - envelope.OVERHEAD_BYTES):
                sources = f"{stream}:{','.join(_place(stored.id) for stored in together)}"
                messages = [
                    envelope.Message(stored.letter.topic, stored.letter.payload, stored.letter.received_at)
                    for stored in together
                ]
                await jetstream.publish(
                    f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}",
                    envelope.encode(messages),
                    stream=TELEMETRY_STREAM,
                    headers={
                        envelope.VERSION_HEADER: envelope.VERSION,
                        envelope.COUNT_HEADER: str(len(messages)),
                        envelope.REPLAYS_HEADER: str(together[0].letter.replays + 1),
                        envelope.REPLAY_OF_HEADER: sources,
                        envelope.MESSAGE_ID_HEADER: f"replay-{hashlib.sha256(sources.encode()).hexdigest()}",
                    },
                )
        await self._delete(tenant, choices, gapless=gapless)

    async def _delete(self, tenant: str | None, choices: Sequence[Choice], *, gapless: bool) -> None:
        """Delete dead letters: with one request where they are the tenant's oldest ones, else a message at a time, which takes a sync each."""
        whole = [choice.message.sequence for choice in choices if choice.is_whole]
        gapless = gapless and len(whole) == len(choices) > 1
        oldest = await self.following(tenant, 1) if gapless else None
        with self._translated_errors():
            if oldest is not None and oldest.sequence >= whole[0]:
                await self._client.jetstream().purge_stream(
                    DEAD_LETTERS_STREAM,
                    seq=whole[-1] + 1,
                    subject=f"{dead_letters.tenant_subject(tenant)}.>",
                )
                return
            for start in range(0, len(whole), _DELETED_TOGETHER):
                await asyncio.gather(*map(self._delete_one, whole[start : start + _DELETED_TOGETHER]))
            for choice in choices:
                if not choice.is_whole:
                    await self._take_apart(tenant, choice)

    async def _take_apart(self, tenant: str | None, choice: Choice) -> None:
        """Delete letters of a message; the others stay, alone. Doing it twice has no effect."""
        gone = {stored.id for stored in choice.letters}
        async with self._taking_apart:
            with contextlib.suppress(NatsNotFoundError):
                await self._client.jetstream().get_msg(DEAD_LETTERS_STREAM, seq=choice.message.sequence)
                staying = [
                    Encoded(_stays_subject(tenant, stored.id), dead_letters.encode(stored.letter))
                    for stored in choice.message.letters
                    if stored.id not in gone
                ]
                for batch in batches(staying):
                    if not await self._publisher.publish_together(batch):
                        for start in range(0, len(batch), _DELETED_TOGETHER):
                            await asyncio.gather(
                                *map(self._publisher.publish, batch[start : start + _DELETED_TOGETHER])
                            )
                await self._delete_one(choice.message.sequence)
                return
            # Another replay of the same message was faster, and these are among those that stayed.
            for letter_id in gone:
                await self._client.jetstream().purge_stream(
                    DEAD_LETTERS_STREAM, subject=_stays_subject(tenant, letter_id)
                )

    async def _delete_one(self, sequence: int) -> None:
        # Overwriting its bytes on disk would cost the server a rewrite of everything stored around it.
        request = json.dumps({"seq": sequence, "no_erase": True}).encode()
        subject = f"$JS.API.STREAM.MSG.DELETE.{DEAD_LETTERS_STREAM}"
        answer = json.loads((await self._client.request(subject, request, timeout=_REQUEST_SECONDS)).data)
        # Another replay of the same dead letter may have been faster.
        if "error" in answer and answer["error"].get("err_code") not in _NO_MESSAGE:
            raise APIError.from_error(answer["error"])

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


def _envelopes(letters: Sequence[StoredDeadLetter], max_bytes: int) -> Iterator[list[StoredDeadLetter]]:
    """Yield dead letters that go into one envelope: replayed equally often, and not too many or too large together."""
    for _, alike in itertools.groupby(letters, lambda stored: stored.letter.replays):
        together: list[StoredDeadLetter] = []
        size = 0
        for stored in alike:
            length = len(stored.letter.topic.encode()) + len(stored.letter.payload) + _MESSAGE_OVERHEAD_BYTES
            if together and (len(together) == _ENVELOPE_MESSAGES or size + length > max_bytes):
                yield together
                together, size = [], 0
            together.append(stored)
            size += length
        yield together


def _place(letter_id: int) -> str:
    """Return a dead letter's place in the stream: its message's sequence and its number in there."""
    sequence, number = divmod(letter_id, MAX_TOGETHER)
    return f"{sequence}-{number}"


def _stays_subject(tenant: str | None, letter_id: int) -> str:
    """Return the subject of a dead letter that is alone because others of its message were replayed."""
    return dead_letters.single_subject(tenant, (f"{_STAYS}{_place(letter_id)}", None))


def _stored(
    tenant: str | None, sequence: int | None, subject: str | None, data: bytes | None, time: datetime | None
) -> StoredMessage:
    body = data or b""
    sequence = sequence or 0
    try:
        letters = [placed.letter for placed in dead_letters.decode(body)]
    except ValueError as error:
        stored_at = round(time.timestamp() * 1_000_000) if time is not None else 0
        unreadable = DeadLetter(
            tenant=tenant,
            device=None,
            topic="",
            payload=body,
            received_at=stored_at,
            reason=UNREADABLE,
            detail=str(error),
            dead_lettered_at=stored_at,
        )
        letters = [unreadable]
    stays = _STAYS_TOKEN.fullmatch((subject or "").rpartition(".")[2])
    first = int(stays[1]) * MAX_TOGETHER + int(stays[2]) if stays else sequence * MAX_TOGETHER
    return StoredMessage(sequence, [StoredDeadLetter(first + number, letter) for number, letter in enumerate(letters)])
