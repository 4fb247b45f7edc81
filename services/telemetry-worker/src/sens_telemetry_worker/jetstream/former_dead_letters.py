"""The format of the dead letters of versions before 0.2, in their stream ``DEAD_LETTERS``.

The letters of a tenant from one envelope were together in one JetStream message, or a letter was alone in one. A body is MessagePack: the map
of one dead letter, or an array of arrays ``[index, topic, payload, received_at, reason, detail, dead_lettered_at, replays]``.
"""

import re
from typing import Annotated, Final

import msgspec

from sens_common.dead_letters import Origin, Reason
from sens_common.topics import TOPICS
from sens_telemetry_worker.letters import Letter

_MAX_TOGETHER: Final = 1000
_FROM_STREAM: Final = re.compile(r"r?([0-9a-f]{1,15})-([0-9]{1,18})(?:-p[0-9]{1,9}|-([0-9]{1,9}))?")
_REPLAYED_BESIDE: Final = re.compile(r"s([0-9]{1,18})-([0-9]{1,9})")


class SingleLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter alone in its JetStream message."""

    topic: str
    payload: bytes
    received_at: int
    reason: str
    detail: str
    dead_lettered_at: int
    replays: int = 0


class GroupedLetter(msgspec.Struct, array_like=True, frozen=True):
    """A dead letter among others of its envelope."""

    index: int
    topic: str
    payload: bytes
    received_at: int
    reason: str
    detail: str
    dead_lettered_at: int
    replays: int


_decoder: msgspec.msgpack.Decoder[SingleLetter | list[GroupedLetter]] = msgspec.msgpack.Decoder(
    SingleLetter | Annotated[list[GroupedLetter], msgspec.Meta(min_length=1, max_length=_MAX_TOGETHER)]
)


def read_letters(position: Origin, subject: str, body: bytes) -> list[Letter]:
    """Return the dead letters of a JetStream message; what can't be read is one itself. They have no tenant yet.

    Args:
        position: Of the message in the stream of dead letters.
        subject: Its last token says where the letters' messages came from.
        body: The letters.
    """
    first = _origin(position, subject.rpartition(".")[2])
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"it was no dead letter that can be read: {error}"
        found = SingleLetter(
            topic="", payload=body, received_at=0, reason=Reason.MALFORMED_PAYLOAD, detail=detail, dead_lettered_at=0
        )
    if isinstance(found, SingleLetter):
        return [_letter(first, found)]
    return [_letter(first._replace(message_index=each.index), each) for each in found]


def _origin(position: Origin, token: str) -> Origin:
    """Return where a dead letter came from: the same as when its message comes again.

    - ``<stream>-<sequence>-p<part>``, ``<stream>-<sequence>-<index>``: an envelope of the stream ``TELEMETRY``; the time at which that was
      created is hexadecimal;
    - ``r<stream>-<sequence>-<index>``: the dead letter that was replayed;
    - ``s<sequence>-<index>``: its own position, before others of its message were replayed.
    """
    if match := _FROM_STREAM.fullmatch(token):
        return Origin(int(match[1], 16), int(match[2]), int(match[3] or 0))
    if match := _REPLAYED_BESIDE.fullmatch(token):
        return Origin(position.stream_created_at, int(match[1]), int(match[2]))
    return position


def _letter(origin: Origin, found: SingleLetter | GroupedLetter) -> Letter:
    return Letter(
        message_index=0,
        origin=origin,
        tenant_id=0,
        device=TOPICS.route(found.topic).device,
        topic=found.topic,
        received_at=found.received_at,
        dead_lettered_at=found.dead_lettered_at,
        reason=found.reason,
        detail=found.detail,
        payload=found.payload,
        payload_bytes=len(found.payload),
        replays=found.replays,
    )
