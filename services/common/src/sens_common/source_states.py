"""What the ingestion workers tell of the sources that they serve: keys of a JetStream bucket, which the API shows.

A key is of one worker and one tenant, so that each worker writes its own. What is not written again is gone after `KEPT_SECONDS`, so nothing
of a worker that has died is taken for true. The bucket also holds the leases of sessions at brokers of tenants' own.
"""

from typing import Final, Literal

import msgspec

from sens_common import tenant_limits
from sens_common.names import subject_token

BUCKET: Final = "SOURCE_STATES"
STREAM: Final = f"KV_{BUCKET}"
"""A bucket is a stream of this name (NATS architecture decision record 8)."""
KEPT_SECONDS: Final = 15.0
_MAX_DETAIL: Final = 400

MAX_DOWNLINK_URL: Final = 500
"""Characters of an address in `Downlinks`."""

type Status = Literal["connected", "connecting", "failed"]
type Reason = Literal[
    "",
    "host_not_allowed",
    "credential_missing",
    "unreachable",
    "tls_error",
    "bad_credentials",
    "refused",
    "subscription_refused",
    "at_most_once",
    "session_taken",
    "protocol_error",
    "too_many_brokers",
    "not_subscribed",
]


class Downlinks(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the network of a source takes messages for the device that sent last, as a request's header said.

    Attributes:
        push: Address that adds to the queue of the device; None where none was named.
        replace: Address that replaces the queue.
    """

    push: str | None = None
    replace: str | None = None


class SourceState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a source does at one worker. Times are microseconds since the epoch.

    Attributes:
        status: ``connected``: its messages come, or over HTTP are taken, though `reason` and `detail` may say that some can be lost. ``failed``: they don't, and
            these say why.
        reason: A word for programs, empty where nothing is wrong.
        detail: A sentence for people.
        connected_since: None while there is no connection.
        last_message_at: None before the first one.
        messages: How many came since the worker began to serve the source.
        checks_token: Whether the worker has the key with which a network signs its requests, and refuses those that are not signed with it.
        downlinks: None where no request named them.
    """

    status: Status
    reason: Reason = ""
    detail: str = ""
    connected_since: int | None = None
    last_message_at: int | None = None
    messages: int = 0
    checks_token: bool = False
    downlinks: Downlinks | None = None


class WorkerStates(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker tells of one tenant's sources; JSON object in the bucket.

    Attributes:
        worker: Its client identifier.
        sources: By name.
    """

    worker: str
    sources: dict[str, SourceState] = {}


_decoder = msgspec.json.Decoder(WorkerStates)


def failed(reason: Reason, detail: str) -> SourceState:
    """Return the state of a source that takes no messages."""
    return SourceState("failed", reason, shortened(detail))


def shortened(detail: str) -> str:
    """Return a detail that is not too long; some of its words are a broker's."""
    return detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL]}…"


def state_subject(worker: str, tenant: str) -> str:
    """Return the subject of a key; ``*`` for a worker stands for all of them."""
    token = worker if worker == "*" else _token(worker)
    return f"$KV.{BUCKET}.state.{token}.{tenant_limits.key(tenant)}"


def lease_subject(session: str) -> str:
    """Return the subject of a session's lease."""
    return f"$KV.{BUCKET}.lease.{_token(session)}"


def _token(name: str) -> str:
    return subject_token(name).replace("%", "=")


def encode(states: WorkerStates) -> bytes:
    """Return the value of a key."""
    return msgspec.json.encode(states)


def decode(value: bytes) -> WorkerStates:
    """Return what a value says.

    Raises:
        ValueError: It can't be understood.
    """
    try:
        return _decoder.decode(value)
    except msgspec.DecodeError as error:
        raise ValueError(f"not the states of sources: {error}") from error
