"""Moves the dead letters of versions before 0.2 from their stream into the database, once.

There they lay in the stream ``DEAD_LETTERS``: those of a tenant from one envelope together in a message, or one alone. A message's body is
MessagePack: the map of one dead letter, or an array of arrays ``[number, topic, payload, received_at, reason, detail, dead_lettered_at,
replays]``. The letters of a message are written together with a note that it was moved, so that a move that is cut short is gone on with,
and a letter that was replayed or deleted meanwhile does not come back. The stream is deleted when everything in it is moved; if a worker of
the version before makes it again, it is moved again.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Protocol

import msgspec
import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from sens_common.dead_letters import Origin, Reason
from sens_common.names import DEAD_LETTERS_STREAM, native_route
from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError

log = structlog.get_logger()

_MAX_TOGETHER: Final = 1000
_MOVED_TOGETHER: Final = 200
_LOOK_SECONDS: Final = 30.0
_FROM_LOG: Final = re.compile(r"r?([0-9a-f]{1,15})-([0-9]{1,18})(?:-p[0-9]{1,9}|-([0-9]{1,9}))?")
_STAYED: Final = re.compile(r"s([0-9]{1,18})-([0-9]{1,9})")


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that lies alone in its message."""

    topic: str
    payload: bytes
    received_at: int
    reason: str
    detail: str
    dead_lettered_at: int
    replays: int = 0


class FormerMember(msgspec.Struct, array_like=True, frozen=True):
    """A dead letter among others of its envelope."""

    number: int
    topic: str
    payload: bytes
    received_at: int
    reason: str
    detail: str
    dead_lettered_at: int
    replays: int


_decoder: msgspec.msgpack.Decoder[Former | list[FormerMember]] = msgspec.msgpack.Decoder(
    Former | Annotated[list[FormerMember], msgspec.Meta(min_length=1, max_length=_MAX_TOGETHER)]
)


class Destination(Protocol):
    """The database."""

    async def tenant_ids(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the numbers of those of the tenants that exist."""

    async def take(self, stream: int, messages: Mapping[int, list[Letter]]) -> int:
        """Write the letters of messages that were not taken before, in one transaction; return how many letters.

        Args:
            stream: When the stream was made, microseconds since the epoch.
            messages: Letters by the sequence of their message there.
        """

    async def finish(self, stream: int) -> None:
        """Forget which messages were taken: the stream is no more."""


class Moving:
    """The move."""

    def __init__(self, jetstream: JetStreamContext, destination: Destination) -> None:
        self._jetstream = jetstream
        self._destination = destination

    async def keep_moving(self) -> None:
        """Move what there is, now and then again."""
        while True:
            try:
                await self.move()
            except (NatsError, TimeoutError, OSError, StoreUnavailableError, RowsRefusedError) as error:
                log.warning("dead letters of the version before can't be moved; trying again later", error=str(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def move(self) -> int:
        """Move everything and delete the stream; return how many dead letters were moved, 0 also where there is no stream.

        Raises:
            NatsError: JetStream refuses or does not answer.
            StoreUnavailableError: The database can't be used.
        """
        try:
            information = await self._jetstream.stream_info(DEAD_LETTERS_STREAM)
        except NotFoundError:
            return 0
        stream = int(information.created.timestamp() * 1e6) if information.created is not None else 0
        moved = 0
        sequence = 1
        while messages := await self._following(stream, sequence):
            moved += await self._destination.take(stream, messages)
            sequence = max(messages) + 1
            await self._jetstream.purge_stream(DEAD_LETTERS_STREAM, seq=sequence)
        await self._jetstream.delete_stream(DEAD_LETTERS_STREAM)
        await self._destination.finish(stream)
        log.info("dead letters of the version before are moved into the database", dead_letters=moved)
        return moved

    async def _following(self, stream: int, sequence: int) -> dict[int, list[Letter]]:
        """Return the letters of some messages from a sequence on, none at the end."""
        bodies: dict[int, tuple[str, bytes]] = {}
        while len(bodies) < _MOVED_TOGETHER:
            try:
                found = await self._jetstream.get_msg(DEAD_LETTERS_STREAM, seq=sequence, subject=">", next=True)
            except NotFoundError:
                break
            assert found.seq is not None  # noqa: S101 - for the type checker
            bodies[found.seq] = found.subject or "", found.data or b""
            sequence = found.seq + 1
        letters = {place: _letters(Origin(stream, place, 0), *message) for place, message in bodies.items()}
        names = {name for each in letters.values() for letter in each if (name := native_route(letter.topic)[0])}
        ids = await self._destination.tenant_ids(sorted(names))
        return {
            place: [letter._replace(tenant_id=ids.get(native_route(letter.topic)[0] or "", 0)) for letter in each]
            for place, each in letters.items()
        }


def _letters(place: Origin, subject: str, body: bytes) -> list[Letter]:
    """Return the dead letters of a message; what can't be read is one itself. They have no tenant yet."""
    first = _origin(place, subject.rpartition(".")[2])
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"it was no dead letter that can be read: {error}"
        found = Former(
            topic="", payload=body, received_at=0, reason=Reason.MALFORMED_PAYLOAD, detail=detail, dead_lettered_at=0
        )
    if isinstance(found, Former):
        return [_letter(first, found)]
    return [_letter(first._replace(number=each.number), each) for each in found]


def _origin(place: Origin, token: str) -> Origin:
    """Return where a dead letter came from, by the last token of its subject: the same as when its message comes again.

    - ``<stream>-<sequence>-p<part>``, ``<stream>-<sequence>-<number>``: an envelope of the log, the stream's creation being hexadecimal;
    - ``r<stream>-<sequence>-<number>``: the dead letter that was replayed;
    - ``s<sequence>-<number>``: its own place, before others of its message were replayed.
    """
    if match := _FROM_LOG.fullmatch(token):
        return Origin(int(match[1], 16), int(match[2]), int(match[3] or 0))
    if match := _STAYED.fullmatch(token):
        return Origin(place.stream, int(match[1]), int(match[2]))
    return place


def _letter(origin: Origin, former: Former | FormerMember) -> Letter:
    return Letter(
        message=0,
        origin=origin,
        tenant_id=0,
        device=native_route(former.topic)[1],
        topic=former.topic,
        received_at=former.received_at,
        dead_lettered_at=former.dead_lettered_at,
        reason=former.reason,
        detail=former.detail,
        payload=former.payload,
        payload_bytes=len(former.payload),
        replays=former.replays,
    )
