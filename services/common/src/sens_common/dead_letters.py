"""The dead letters: messages that could not be decoded or stored, with their reason and their raw bytes.

They lie in the stream ``DEAD_LETTERS``: those of a tenant from one envelope together in a message, under a subject that names tenant and
envelope, ``sens.dead_letters.<tenant token>.<envelope>``; what was replayed and came back alone, under the dead letter that it was. The
stream takes one message per subject and refuses a second one (``max_msgs_per_subject: 1``, ``discard: new``,
``discard_new_per_subject``), so that dead-lettering a redelivered message has no effect, however late it comes.

A message's body is MessagePack: the map of one dead letter, or, for those of an envelope, an array of arrays ``[number, topic, payload,
received_at, reason, detail, dead_lettered_at, replays]`` with the message's number in the envelope and members of `DeadLetter`, whose tenant
and device are those in the topic.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec

from sens_common.names import DEAD_LETTERS_SUBJECT, UNROUTED, native_route, subject_token


class Reason(StrEnum):
    """Why a message lies in the dead letters."""

    INVALID_TOPIC = "invalid_topic"
    """The topic names no tenant and device. Where it names a tenant, the dead letter is that tenant's."""
    UNKNOWN_TENANT = "unknown_tenant"
    """No tenant has the name in the topic. Create it, then replay."""
    MALFORMED_PAYLOAD = "malformed_payload"
    """The payload is not what its format prescribes (not JSON, not UTF-8, duplicate keys, not an object, empty …)."""
    UNSUPPORTED_VALUE = "unsupported_value"
    """A value can't be stored as it is: an integer that a 64-bit float can't hold, a NUL character, an array that holds arrays or objects.
    Or all metrics are null, so that there is no value."""
    INVALID_METRIC = "invalid_metric"
    """A metric's name is empty, too long or has control characters."""
    TOO_LARGE = "too_large"
    """The payload, its nesting, an array or the number of metrics or readings is over the limit."""
    INVALID_TIME = "invalid_time"
    """The time is neither RFC 3339 with a zone nor an epoch in s, ms, µs or ns, or a backlog entry has none."""
    IMPLAUSIBLE_TIME = "implausible_time"
    """The device's clock is absurd: before 2000, or more than a day ahead of the receipt."""
    CONFLICTING_VALUE = "conflicting_value"
    """Another value is already stored for the same device, metric and time. The stored one stays."""
    TOO_OLD = "too_old"
    """The time lies further back than the tenant's limit allows (400 days where nothing else is set). Raise the limit, then replay."""
    LIMIT_REACHED = "limit_reached"
    """The tenant's limit of devices or metrics is reached. Delete some or raise the limit, then replay."""
    TOO_MANY_NEW_NAMES = "too_many_new_names"
    """More new devices or metrics came within an hour than the tenant's limit allows. Replay in the next hour, or raise the limit first."""
    REFUSED_BY_DATABASE = "refused_by_database"
    """The database refuses the message's rows, alone and again."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One dead letter; MessagePack map in the stream.

    Attributes:
        tenant: Name in the topic, None when the topic has no valid one. The tenant need not exist.
        device: Canonical name in the topic, None when the topic has no valid one.
        topic: As published.
        payload: As published.
        received_at: Microseconds since the epoch: when the ingestion worker received it.
        reason: See `Reason`.
        detail: A sentence for people.
        dead_lettered_at: Microseconds since the epoch.
        replays: How often it was replayed before it came (back) here.
    """

    tenant: str | None
    device: str | None
    topic: str
    payload: bytes
    received_at: int
    reason: str
    detail: str
    dead_lettered_at: int
    replays: int = 0


type Origin = tuple[str, int | None]
"""Where a message came from, the same whenever it comes again: a place and the message's number there.

The place is the envelope, ``<stream's creation, hex µs>-<sequence>``, and the number the message's in it, from 0. Of a replayed message the
place is the dead letter that it was, ``r<this stream's creation, hex µs>-<sequence>-<number in its message>``, so that a message which is
replayed twice comes back once, and there is no number.
"""


class Placed(NamedTuple):
    """A dead letter and the message's number in its envelope."""

    number: int
    letter: DeadLetter


MAX_TOGETHER: Final = 1000
"""Dead letters in one message."""


class _Member(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A dead letter among others of its envelope, on the wire."""

    number: int
    topic: str
    payload: bytes
    received_at: int
    reason: str
    detail: str
    dead_lettered_at: int
    replays: int


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[DeadLetter | list[_Member]] = msgspec.msgpack.Decoder(
    DeadLetter | Annotated[list[_Member], msgspec.Meta(min_length=1, max_length=MAX_TOGETHER)]
)


def encode(letter: DeadLetter) -> bytes:
    """Return the body of a message that holds one dead letter."""
    return _encoder.encode(letter)


def encode_together(letters: Iterable[Placed]) -> bytes:
    """Return the body of a message that holds the dead letters of a tenant from one envelope, at most `MAX_TOGETHER`."""
    return _encoder.encode(
        [
            _Member(
                number,
                letter.topic,
                letter.payload,
                letter.received_at,
                letter.reason,
                letter.detail,
                letter.dead_lettered_at,
                letter.replays,
            )
            for number, letter in letters
        ]
    )


def decode(body: bytes) -> list[Placed]:
    """Return the dead letters of a message, at least one; a single one has the number 0.

    Raises:
        ValueError: The body is not a dead letter, and no array of them.
    """
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        raise ValueError(f"not a dead letter: {error}") from error
    if isinstance(found, DeadLetter):
        return [Placed(0, found)]
    return [Placed(member.number, _letter(member)) for member in found]


def _letter(member: _Member) -> DeadLetter:
    tenant, device = native_route(member.topic)
    return DeadLetter(
        tenant=tenant,
        device=device,
        topic=member.topic,
        payload=member.payload,
        received_at=member.received_at,
        reason=member.reason,
        detail=member.detail,
        dead_lettered_at=member.dead_lettered_at,
        replays=member.replays,
    )


def single_subject(tenant: str | None, origin: Origin) -> str:
    """Return the subject of a message with a single dead letter; `tenant` is that of `DeadLetter.tenant`."""
    place, number = origin
    return f"{tenant_subject(tenant)}.{place}" + ("" if number is None else f"-{number}")


def batch_subject(tenant: str | None, place: str, part: int) -> str:
    """Return the subject of a message with the tenant's dead letters of one envelope.

    Args:
        tenant: As in `DeadLetter.tenant`.
        place: Of the envelope, as in `Origin`.
        part: The messages' numbers in the envelope divided by `MAX_TOGETHER`.
    """
    return f"{tenant_subject(tenant)}.{place}-p{part}"


def tenant_subject(tenant: str | None) -> str:
    """Return the subject below which a tenant's dead letters lie; None stands for those without a valid tenant."""
    return f"{DEAD_LETTERS_SUBJECT}.{UNROUTED if tenant is None else subject_token(tenant)}"
