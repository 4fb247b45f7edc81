"""The dead letters in JetStream. A dead letter's id is its sequence number in the stream.

One message after the other is read with the stream's "next message with this subject" request (NATS ADR-31): it needs no consumer,
whatever else lies in the stream costs nothing, and it is answered by the stream's leader, so that a deleted message stays away.
A replay reads many with one request.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from nats.js.errors import NotFoundError as NatsNotFoundError

from sens_common import dead_letters, envelope
from sens_common.dead_letters import DeadLetter
from sens_common.errors import UnavailableError
from sens_common.names import DEAD_LETTERS_STREAM, REPLAY_PUBLISHER, TELEMETRY_STREAM, TELEMETRY_SUBJECT
from sens_platform_api.errors import NotFoundError

UNREADABLE = "unreadable"
"""Reason that is shown for a message in the stream that is no dead letter; its payload is the message's body."""

_REQUEST_SECONDS: Final = 5.0
_SCAN_SECONDS: Final = 30.0
_SCAN_BYTES: Final = 8 << 20
_DELETED_TOGETHER: Final = 64
_ENVELOPE_MESSAGES: Final = 500
_MESSAGE_OVERHEAD_BYTES: Final = 32  # of MessagePack around topic, payload, time and packet id
_NO_MESSAGE: Final = frozenset(
    {10037, 10057}
)  # JSNoMessageFoundErr, JSStreamMsgDeleteFailedF; nats-server server/errors.json


class StoredDeadLetter(NamedTuple):
    """A dead letter and its place in the stream."""

    id: int
    letter: DeadLetter


class Scan(NamedTuple):
    """Dead letters that follow each other, oldest first.

    Attributes:
        letters: None of the tenant's is missing between them.
        remaining: How many of the tenant's come behind them, about.
    """

    letters: list[StoredDeadLetter]
    remaining: int


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
        return _stored(tenant, message.seq, message.data, message.time)

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
        return _stored(tenant, message.seq, message.data, message.time)

    async def scan(self, tenant: str | None, letter_id: int, limit: int) -> Scan:
        """Return dead letters whose ids are this one or higher, at most `limit`; none only when there are none.

        Any replica answers a request for many (NATS ADR-31, "Batched requests"). One that lags behind knows only the older ones, so
        the leader is asked whether there are more at the end.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            found = await self._read_together(tenant, letter_id, limit)
        if found.letters:
            return found
        stored = await self.following(tenant, letter_id)
        return Scan([] if stored is None else [stored], 0)

    async def _read_together(self, tenant: str | None, letter_id: int, limit: int) -> Scan:
        request = {
            "seq": letter_id,
            "next_by_subj": f"{dead_letters.tenant_subject(tenant)}.>",
            "batch": limit,
            "max_bytes": _SCAN_BYTES,
        }
        letters: list[StoredDeadLetter] = []
        remaining = 0
        ended = asyncio.Event()

        async def take(message: Msg) -> None:
            nonlocal remaining
            headers = message.headers or {}
            if "Nats-Sequence" in headers:
                stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
                letters.append(_stored(tenant, int(headers["Nats-Sequence"]), message.data, stored_at))
                remaining = int(headers.get("Nats-Num-Pending", "0"))
            # A status says that there are no more, or nobody who answers; a server older than 2.11 answers with one message.
            if len(letters) == limit or "Nats-Num-Pending" not in headers or "Nats-Sequence" not in headers:
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
        return Scan(letters, remaining)

    async def last_id(self) -> int:
        """Return the highest id that was given so far, of any tenant.

        Raises:
            UnavailableError: NATS can't be used.
        """
        with self._translated_errors():
            information = await self._client.jetstream().stream_info(DEAD_LETTERS_STREAM)
        return information.state.last_seq

    async def send_again(
        self, tenant: str | None, letters: Sequence[StoredDeadLetter], *, gapless: bool = False
    ) -> None:
        """Put messages into the telemetry stream again, with the times of their first receipt, and then delete the dead letters.

        Args:
            tenant: Whose they are.
            letters: Oldest first.
            gapless: Whether none of the tenant's is missing between them.

        Raises:
            UnavailableError: NATS can't be used, or the telemetry stream takes nothing. It may have happened all the same: doing it
                twice has no effect, because storing the same measurement twice has none, and a message that is refused again
                has one dead letter, however often it comes.
        """
        with self._translated_errors():
            jetstream = self._client.jetstream()
            created = (await jetstream.stream_info(DEAD_LETTERS_STREAM)).created
            stream = f"{int(created.timestamp() * 1e6) if created is not None else 0:x}"
            for together in _envelopes(letters, self._client.max_payload - envelope.OVERHEAD_BYTES):
                sources = f"{stream}:{','.join(str(stored.id) for stored in together)}"
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
        await self._delete(tenant, letters, gapless=gapless)

    async def _delete(self, tenant: str | None, letters: Sequence[StoredDeadLetter], *, gapless: bool) -> None:
        """Delete dead letters: with one request where they are the tenant's oldest ones, else one by one, which takes a sync each."""
        oldest = await self.following(tenant, 1) if gapless and len(letters) > 1 else None
        with self._translated_errors():
            if oldest is not None and oldest.id >= letters[0].id:
                await self._client.jetstream().purge_stream(
                    DEAD_LETTERS_STREAM,
                    seq=letters[-1].id + 1,
                    subject=f"{dead_letters.tenant_subject(tenant)}.>",
                )
                return
            for start in range(0, len(letters), _DELETED_TOGETHER):
                together = letters[start : start + _DELETED_TOGETHER]
                await asyncio.gather(*(self._delete_one(stored.id) for stored in together))

    async def _delete_one(self, letter_id: int) -> None:
        # Overwriting its bytes on disk would cost the server a rewrite of everything stored around it.
        request = json.dumps({"seq": letter_id, "no_erase": True}).encode()
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


def _stored(tenant: str | None, letter_id: int | None, data: bytes | None, time: datetime | None) -> StoredDeadLetter:
    body = data or b""
    try:
        letter = dead_letters.decode(body)
    except ValueError as error:
        stored_at = round(time.timestamp() * 1_000_000) if time is not None else 0
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
    return StoredDeadLetter(letter_id or 0, letter)
