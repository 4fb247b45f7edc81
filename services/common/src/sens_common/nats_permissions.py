"""What each service may do in NATS: one table, from which ``sens up`` and the chart make the server's users.

JetStream is asked by publishing on subjects below ``$JS.API`` (NATS documentation, "JetStream API reference"), so permissions on subjects
say who may read, purge or remove which stream. Answers come to an inbox below a prefix of the service's own (`inbox_prefix`): no service
reads another one's. A service that begins to use NATS in a new way needs a new line here, and ``scripts/generate-nats-users`` afterwards;
`tests/connected/common/test_nats_permissions.py` plays each one's part against a server with these users.
"""

from typing import Final, NamedTuple

from sens_common.control import ERASURE_SUBJECT
from sens_common.names import (
    CONTROL_STREAM,
    DEAD_LETTERS_STREAM,
    LIVE_INTEREST_SUBJECT,
    LIVE_SUBJECT,
    REPLAY_PUBLISHER,
    SESSIONS_BUCKET,
    TELEMETRY_CONSUMER,
    TELEMETRY_STREAM,
    TELEMETRY_SUBJECT,
)
from sens_common.source_states import BUCKET as STATES_BUCKET
from sens_common.source_states import STREAM as _STATES_STREAM
from sens_common.tenant_limits import BUCKET

API_USER: Final = "platform-api"
INGESTION_USER: Final = "mqtt-ingestion-worker"
HTTP_INGESTION_USER: Final = "http-ingestion-worker"
TELEMETRY_USER: Final = "telemetry-worker"
ADMINISTRATOR: Final = "sens"
"""A user for people and tools, who may do everything."""

_SESSIONS_STREAM: Final = f"KV_{SESSIONS_BUCKET}"
_LIMITS_STREAM: Final = f"KV_{BUCKET}"  # a bucket is a stream of this name (NATS ADR-8)


class Permissions(NamedTuple):
    """Subjects on which a user may publish and subscribe; a denied subject stays denied where a wildcard allows it."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_denied: tuple[str, ...] = ()


def inbox_prefix(client_name: str) -> str:
    """Return the beginning of the subjects to which a client gets its answers; what follows a space in its name is of one process.

    >>> inbox_prefix("mqtt-ingestion-worker sens-0")
    '_INBOX.mqtt-ingestion-worker'
    """
    return f"_INBOX.{client_name.partition(' ')[0]}"


def _inbox(client_name: str) -> str:
    return f"{inbox_prefix(client_name)}.>"


def _reading(stream: str) -> tuple[str, ...]:
    """Return the subjects for reading a stream's messages and state without a consumer."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    )


def _own(stream: str) -> tuple[str, ...]:
    """Return the subjects for doing everything with a stream."""
    return (
        f"$JS.API.STREAM.*.{stream}",
        f"$JS.API.STREAM.MSG.*.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        *_consuming(stream),
    )


def _consuming(stream: str) -> tuple[str, ...]:
    """Return the subjects for making consumers of a stream for one's own use."""
    return (
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.*.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


PERMISSIONS: Final[dict[str, Permissions]] = {
    # Reads single envelopes, puts dead letters back into the stream, owns the tenants' limits; the stream itself is not its own. Makes the stream
    # of erasures, adds to it and reads it, and may not take anything out of it. Reads how sources do.
    API_USER: Permissions(
        publish=(
            "$JS.API.INFO",
            *_reading(TELEMETRY_STREAM),
            f"$JS.API.CONSUMER.INFO.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
            f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}",
            *_reading(CONTROL_STREAM),
            f"$JS.API.STREAM.CREATE.{CONTROL_STREAM}",
            ERASURE_SUBJECT,
            *_own(_LIMITS_STREAM),
            f"$KV.{BUCKET}.>",
            *_reading(_STATES_STREAM),
            LIVE_INTEREST_SUBJECT,
        ),
        subscribe=(_inbox("platform-api"), _inbox("sens-admin"), f"{LIVE_SUBJECT}.*"),
    ),
    # Writes the stream, and reads the tail of what it wrote by a consumer that ends by itself; reads the tenants' limits,
    # and keeps what its sessions are subscribed to; tells how sources do, and which worker serves which of their brokers.
    INGESTION_USER: Permissions(
        publish=(
            "$JS.API.INFO",
            *_reading(TELEMETRY_STREAM),
            f"$JS.API.STREAM.CREATE.{TELEMETRY_STREAM}",
            f"$JS.API.CONSUMER.CREATE.{TELEMETRY_STREAM}.*.{TELEMETRY_SUBJECT}.>",
            f"$JS.API.CONSUMER.INFO.{TELEMETRY_STREAM}.*",
            f"$JS.API.CONSUMER.MSG.NEXT.{TELEMETRY_STREAM}.*",
            f"{TELEMETRY_SUBJECT}.*",
            *_reading(_LIMITS_STREAM),
            *_consuming(_LIMITS_STREAM),
            *_reading(_SESSIONS_STREAM),
            f"$JS.API.STREAM.CREATE.{_SESSIONS_STREAM}",
            f"$KV.{SESSIONS_BUCKET}.>",
            *_reading(_STATES_STREAM),
            f"$JS.API.STREAM.CREATE.{_STATES_STREAM}",
            f"$KV.{STATES_BUCKET}.>",
        ),
        subscribe=(_inbox("mqtt-ingestion-worker"),),
        publish_denied=(
            # The telemetry workers' own.
            f"$JS.API.CONSUMER.CREATE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
        ),
    ),
    # Writes the stream, and reads what it wrote last; reads the tenants' limits and ingest keys; tells how sources do.
    HTTP_INGESTION_USER: Permissions(
        publish=(
            "$JS.API.INFO",
            *_reading(TELEMETRY_STREAM),
            f"$JS.API.STREAM.CREATE.{TELEMETRY_STREAM}",
            f"{TELEMETRY_SUBJECT}.*",
            *_reading(_LIMITS_STREAM),
            *_consuming(_LIMITS_STREAM),
            f"$JS.API.STREAM.INFO.{_STATES_STREAM}",
            f"$JS.API.STREAM.CREATE.{_STATES_STREAM}",
            f"$KV.{STATES_BUCKET}.state.>",
        ),
        subscribe=(_inbox("http-ingestion-worker"),),
    ),
    # Reads the stream through the consumer that all telemetry workers share, and removes what is stored and old enough. Puts dead letters
    # back whose births have come. Moves the dead letters of versions before 0.2, and removes their stream.
    TELEMETRY_USER: Permissions(
        publish=(
            "$JS.API.INFO",
            *_reading(TELEMETRY_STREAM),
            f"$JS.API.STREAM.CREATE.{TELEMETRY_STREAM}",
            f"$JS.API.STREAM.PURGE.{TELEMETRY_STREAM}",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
            f"$JS.API.CONSUMER.CREATE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
            f"$JS.API.CONSUMER.INFO.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
            f"$JS.API.CONSUMER.MSG.NEXT.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
            f"$JS.ACK.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}.>",
            f"$JS.ACK.*.*.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}.>",  # a server with a JetStream domain
            *_reading(DEAD_LETTERS_STREAM),
            f"$JS.API.STREAM.PURGE.{DEAD_LETTERS_STREAM}",
            f"$JS.API.STREAM.DELETE.{DEAD_LETTERS_STREAM}",
            f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}",
            f"{LIVE_SUBJECT}.*",
        ),
        subscribe=(_inbox("telemetry-worker"), LIVE_INTEREST_SUBJECT),
    ),
}
"""The services' users."""
