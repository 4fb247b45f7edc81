"""Dead letters on their way to the database: what a tenant's quota leaves of them, and the bytes of a binary COPY.

The format of the COPY is that of `rows`.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.dead_letters import KEPT_BYTES, Origin
from sens_telemetry_worker.decoders.native import MAX_PAYLOAD_BYTES
from sens_telemetry_worker.rows import POSTGRES_EPOCH_MICROSECONDS, SIGNATURE, TRAILER

COLUMNS: Final = (
    "tenant_id", "device", "topic", "received_at", "dead_lettered_at", "reason", "detail", "payload", "payload_bytes",
    "stream", "sequence", "number", "replays",
)  # fmt: skip
_LATEST: Final = 253_402_300_799_999_999  # the year 9999, with which dates of other programs end
_NULL: Final = struct.pack(">i", -1)
_TENANT: Final = struct.Struct(">hii")
_NO_TENANT: Final = struct.Struct(">hi")
_LENGTH: Final = struct.Struct(">i")
_TIMES: Final = struct.Struct(">iqiq")
_END: Final = struct.Struct(">iiiqiqiiii")


class Letter(NamedTuple):
    """A dead letter; its message may be kept in part.

    Attributes:
        message: Number of the message in its batch.
        origin: Where the message came from first.
        tenant_id: 0 where the topic names no tenant that exists.
        device: Canonical name in the topic, None when the topic has no valid one.
        topic: As published.
        received_at: Microseconds since the epoch.
        dead_lettered_at: Likewise.
        reason: See `sens_common.dead_letters.Reason`.
        detail: A sentence for people.
        payload: As published, or its beginning.
        payload_bytes: Size of the payload as published.
        replays: How often it was replayed before.
    """

    message: int
    origin: Origin
    tenant_id: int
    device: str | None
    topic: str
    received_at: int
    dead_lettered_at: int
    reason: str
    detail: str
    payload: bytes
    payload_bytes: int
    replays: int

    @property
    def size(self) -> int:
        """Bytes that count against the tenant's quota, about; see schema/0007_dead_letters.sql."""
        return len(self.payload) + len(self.topic) + len(self.detail)

    def shortened(self) -> "Letter":
        """Return it with the beginning of its payload."""
        return self._replace(payload=self.payload[:KEPT_BYTES])


class Quota(NamedTuple):
    """What a tenant may have of dead letters, and has; that of all unknown tenants together for `Letter.tenant_id` 0."""

    count_limit: int
    byte_limit: int
    letters: int
    bytes: int


class Apportioned(NamedTuple):
    """What the quotas leave.

    Attributes:
        kept: Some of them shortened.
        discarded: Those that have no room at all.
    """

    kept: list[Letter]
    discarded: list[Letter]


def apportion(letters: Sequence[Letter], quotas: Mapping[int, Quota]) -> Apportioned:
    """Keep letters as far as there is room.

    Over the quota's bytes, the beginning of a payload is kept; over its count, nothing. What was replayed is kept in any case: it was a dead
    letter before, and a replay must not lose it.
    """
    kept: list[Letter] = []
    discarded: list[Letter] = []
    counts = {tenant_id: quota.letters for tenant_id, quota in quotas.items()}
    sizes = {tenant_id: quota.bytes for tenant_id, quota in quotas.items()}
    for letter in letters:
        quota = quotas[letter.tenant_id]
        if counts[letter.tenant_id] >= quota.count_limit and not letter.replays:
            discarded.append(letter)
            continue
        no_room = sizes[letter.tenant_id] + letter.size > quota.byte_limit and not letter.replays
        if no_room or letter.payload_bytes > MAX_PAYLOAD_BYTES:
            letter = letter.shortened()  # noqa: PLW2901 - the same one, as it is kept
        counts[letter.tenant_id] += 1
        sizes[letter.tenant_id] += letter.size
        kept.append(letter)
    return Apportioned(kept, discarded)


def copy_bytes(letters: Iterable[Letter]) -> bytes:
    """Return letters as a binary COPY of `COLUMNS`."""
    parts = [SIGNATURE]
    for letter in letters:
        topic, reason, detail = plain(letter.topic).encode(), letter.reason.encode(), plain(letter.detail).encode()
        if letter.tenant_id:
            parts.append(_TENANT.pack(len(COLUMNS), 4, letter.tenant_id))
        else:
            parts.append(_NO_TENANT.pack(len(COLUMNS), -1))
        if letter.device is None:
            parts.append(_NULL)
        else:
            device = letter.device.encode()
            parts += (_LENGTH.pack(len(device)), device)
        parts += (
            _LENGTH.pack(len(topic)),
            topic,
            _TIMES.pack(8, _postgres_time(letter.received_at), 8, _postgres_time(letter.dead_lettered_at)),
            _LENGTH.pack(len(reason)),
            reason,
            _LENGTH.pack(len(detail)),
            detail,
            _LENGTH.pack(len(letter.payload)),
            letter.payload,
            _END.pack(
                *(4, letter.payload_bytes),
                *(8, letter.origin.stream),
                *(8, letter.origin.sequence),
                *(4, letter.origin.number),
                *(4, letter.replays),
            ),
        )
    parts.append(TRAILER)
    return b"".join(parts)


def plain(text: str) -> str:
    """Return a text without the character that PostgreSQL's texts can't hold."""
    return text.replace("\0", "�") if "\0" in text else text


def plausible(microseconds: int) -> int:
    """Return a time that every program can show; only what is not from an ingestion worker has another one."""
    return min(max(microseconds, 0), _LATEST)


def _postgres_time(microseconds: int) -> int:
    return plausible(microseconds) - POSTGRES_EPOCH_MICROSECONDS
