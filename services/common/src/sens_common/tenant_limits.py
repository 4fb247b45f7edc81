"""What the ingestion workers, which have no database, know of each tenant: a key of the JetStream bucket `BUCKET` for each.

The platform API writes the bucket from the database; the ingestion workers watch it, and go on with what they last knew while NATS is away.
"""

import urllib.parse
from typing import Final

import msgspec

from sens_common.brokers import Broker
from sens_common.names import subject_token

BUCKET: Final = "TENANT_LIMITS"


class MqttSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source of a tenant whose messages come by MQTT.

    Attributes:
        name: Its name.
        topic_filter: Of its messages (MQTT 5.0, section 4.7).
        broker: The source's own broker; None for the platform's.
    """

    name: str
    topic_filter: str
    broker: Broker | None = None


class IngestKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key with which messages are posted.

    Attributes:
        hash: SHA-256 of the key, hexadecimal.
        source: Name of the source that it is for, which takes HTTP and is enabled; None for the native topics.
        device: Canonical name of the one device that it is for; None for any.
        expires_at: Seconds since the epoch; None for never.
    """

    hash: str
    source: str | None = None
    device: str | None = None
    expires_at: int | None = None


class TenantLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What holds for one tenant at ingestion; JSON object in the bucket.

    Attributes:
        messages_per_second: Messages over this rate are acknowledged and discarded; None for no limit.
        mqtt_sources: Its sources of MQTT that are enabled.
        ingest_keys: Those that are neither revoked nor of a source that takes nothing.
    """

    messages_per_second: int | None = None
    mqtt_sources: tuple[MqttSource, ...] = ()
    ingest_keys: tuple[IngestKey, ...] = ()


_decoder = msgspec.json.Decoder(TenantLimits)


def key(tenant: str) -> str:
    """Return a tenant's key; the bucket's keys allow fewer characters than tenants' names (NATS documentation, "Key/Value Store").

    >>> key("plant.north")
    'plant=2Enorth'
    """
    return subject_token(tenant).replace("%", "=")


def tenant(key_: str) -> str:
    """Return the tenant whose key this is.

    >>> tenant("plant=2Enorth")
    'plant.north'
    """
    return urllib.parse.unquote(key_.replace("=", "%"))


def encode(limits: TenantLimits) -> bytes:
    """Return the value of a key."""
    return msgspec.json.encode(limits)


def decode(value: bytes) -> TenantLimits:
    """Return the limits that a value holds.

    Raises:
        ValueError: The value is not the limits of a tenant.
    """
    try:
        return _decoder.decode(value)
    except msgspec.DecodeError as error:  # a ValidationError is a DecodeError
        raise ValueError(f"not the limits of a tenant: {error}") from error
