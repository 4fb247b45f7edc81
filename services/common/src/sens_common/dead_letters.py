"""The dead letters: messages that could not be decoded or stored, with their reason and their raw bytes.

They lie in the stream ``DEAD_LETTERS``, each under a subject of its own, ``sens.dead_letters.<tenant token>.<origin>``. The origin
names the message's place in the telemetry stream, or the dead letter that was replayed. The stream takes one message per subject and
refuses a second one (``max_msgs_per_subject: 1``, ``discard: new``, ``discard_new_per_subject``), so that dead-lettering a redelivered
message has no effect, however late it comes.
"""

from enum import StrEnum

import msgspec

from sens_common.names import DEAD_LETTERS_SUBJECT, UNROUTED, subject_token


class Reason(StrEnum):
    """Why a message lies in the dead letters."""

    INVALID_TOPIC = "invalid_topic"
    """The topic names no tenant and device."""
    UNKNOWN_TENANT = "unknown_tenant"
    """No tenant has the name in the topic. Create it, then replay."""
    MALFORMED_PAYLOAD = "malformed_payload"
    """The payload is not what its format prescribes (invalid JSON, invalid UTF-8, duplicate keys, not an object, empty …)."""
    UNSUPPORTED_VALUE = "unsupported_value"
    """A value can't be stored as it is: null, an array, an integer that a 64-bit float can't hold, a NUL character."""
    INVALID_METRIC = "invalid_metric"
    """A metric's name is empty, too long or has control characters."""
    TOO_LARGE = "too_large"
    """The payload, its nesting or its number of metrics or readings is over the limit."""
    INVALID_TIME = "invalid_time"
    """The time is not RFC 3339 nor an epoch in s, ms, µs or ns, or a backlog entry has none."""
    IMPLAUSIBLE_TIME = "implausible_time"
    """The device's clock is absurd: before 2000, or more than a day ahead of the receipt."""
    CONFLICTING_VALUE = "conflicting_value"
    """Another value is already stored for the same device, metric and time. The stored one stays."""
    LIMIT_REACHED = "limit_reached"
    """The tenant's limit of devices or metrics is reached."""
    REFUSED_BY_DATABASE = "refused_by_database"
    """The database refuses the message's rows, alone and again."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
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


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeadLetter)


def encode(dead_letter: DeadLetter) -> bytes:
    """Return the body of a dead letter."""
    return _encoder.encode(dead_letter)


def decode(body: bytes) -> DeadLetter:
    """Return a dead letter.

    Raises:
        ValueError: The body is not a dead letter.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a dead letter: {error}") from error


def subject(tenant: str | None, origin: str) -> str:
    """Return the subject of one dead letter.

    Args:
        tenant: As in `DeadLetter.tenant`.
        origin: The message's place in the telemetry stream: ``<stream's creation, hex µs>-<sequence>-<index in batch>``; of a
            replayed message the place of the dead letter that it was: ``r<this stream's creation, hex µs>-<sequence>``, so that
            a message which is replayed twice comes back once.
    """
    return f"{tenant_subject(tenant)}.{origin}"


def tenant_subject(tenant: str | None) -> str:
    """Return the subject below which a tenant's dead letters lie; None stands for those without a valid tenant."""
    return f"{DEAD_LETTERS_SUBJECT}.{UNROUTED if tenant is None else subject_token(tenant)}"
