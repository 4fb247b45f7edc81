"""The dead letters: messages that could not be decoded or stored. They are rows of ``sens.dead_letters`` (schema/0007_dead_letters.sql)."""

from enum import StrEnum
from typing import Final, NamedTuple

KEPT_BYTES: Final = 4096
"""So much is kept of a payload that is too large, or that has no room in its tenant's quota."""


class Reason(StrEnum):
    """Why a message lies in the dead letters."""

    INVALID_TOPIC = "invalid_topic"
    """The topic names no tenant and device. Where it names a tenant, the dead letter is that tenant's."""
    UNKNOWN_TENANT = "unknown_tenant"
    """No tenant has the name in the topic."""
    UNKNOWN_SOURCE = "unknown_source"
    """The tenant has no source of the name in the topic."""
    UNKNOWN_DEVICE = "unknown_device"
    """The source may not register devices, and the message names one that is not known."""
    NO_CODEC = "no_codec"
    """The network hands over bytes alone, and the device has no profile with a codec."""
    MALFORMED_PAYLOAD = "malformed_payload"
    """The payload is not what its format prescribes (not JSON, not UTF-8, duplicate keys, not an object, empty …)."""
    UNSUPPORTED_VALUE = "unsupported_value"
    """A value can't be stored as it is: an integer that a 64-bit float can't hold, a NUL character, an array that holds arrays or objects.
    Or all metrics are null, so that there is no value."""
    INVALID_METRIC = "invalid_metric"
    """A metric's name is empty, too long or has control characters."""
    TOO_LARGE = "too_large"
    """The payload, its nesting, an array or the number of metrics, readings or values is over the limit."""
    INVALID_TIME = "invalid_time"
    """The time is neither RFC 3339 with a zone nor an epoch in s, ms, µs or ns, or a reading of a backlog has none."""
    IMPLAUSIBLE_TIME = "implausible_time"
    """The device's clock is absurd: before 2000, or more than a day ahead of the receipt."""
    UNKNOWN_ALIAS = "unknown_alias"
    """Data of Sparkplug B name a metric by an alias whose birth has not come, or lack a datatype that it tells."""
    CONFLICTING_VALUE = "conflicting_value"
    """Another value is already stored for the same device, metric and time. The stored one stays, and nothing of the message is stored."""
    TOO_OLD = "too_old"
    """The time lies further back than the tenant's limit allows (400 days where nothing else is set)."""
    LIMIT_REACHED = "limit_reached"
    """The tenant's limit of devices, of metrics or of stored bytes is reached."""
    TOO_MANY_NEW_NAMES = "too_many_new_names"
    """More new devices or metrics came within an hour than the tenant's limit allows."""
    CODEC_ERROR = "codec_error"
    """The codec threw an exception, said that something is wrong, or returned no values that can be stored."""
    CODEC_LIMIT = "codec_limit"
    """The codec took more time or memory than it may, or its process ended."""
    REFUSED_BY_DATABASE = "refused_by_database"
    """The database refuses the message's rows, alone and again."""


class Origin(NamedTuple):
    """Where a message came from, the same whenever it comes again, also from a replay.

    Attributes:
        stream_created_at: When the stream was made, microseconds since the epoch.
        sequence: Of the envelope in the stream.
        message_index: Of the message in the envelope, from 0.
    """

    stream_created_at: int
    sequence: int
    message_index: int
