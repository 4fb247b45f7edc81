"""Dead letters on their way to the database, and what a tenant's quota leaves of them."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Self

from sens_common.dead_letters import KEPT_BYTES, Origin, Reason
from sens_common.device_times import time_text
from sens_common.fields import MAX_PAYLOAD_BYTES
from sens_common.formats import MetricKind
from sens_common.names import shown
from sens_telemetry_worker.batch import BatchPart, Rejection
from sens_telemetry_worker.preparing import Conflict
from sens_telemetry_worker.tenants import ERASED

MAX_DETAIL_CHARACTERS: Final = 1000


class Letter(NamedTuple):
    """A dead letter; its message may be kept in part.

    Attributes:
        message_index: Index of the message in its batch.
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

    message_index: int
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

    def shortened(self) -> Self:
        """Return it with the beginning of its payload."""
        return self._replace(payload=self.payload[:KEPT_BYTES])


def dead_letters(part: BatchPart, conflicts: Mapping[int, Conflict]) -> list[Letter]:
    """Return the dead letters of a part.

    Args:
        part: What is written; its rejections have a letter each.
        conflicts: Its messages that say something else than what is stored.
    """
    names = _metric_names(part, conflicts)
    rejections = [
        Rejection(index, Reason.CONFLICTING_VALUE, _words_of_conflict(conflict, *names[conflict.metric_id]))
        for index, conflict in sorted(conflicts.items())
    ]
    return [_letter(part, rejection) for rejection in (*part.rejections, *rejections)]


def _metric_names(part: BatchPart, conflicts: Mapping[int, Conflict]) -> dict[int, tuple[str, MetricKind]]:
    """Return names and kinds of metrics that messages conflict about; a number stands for what has no name."""
    names: dict[int, tuple[str, MetricKind]] = {
        conflict.metric_id: (f"metric {conflict.metric_id}", "number") for conflict in conflicts.values()
    }
    tenants = [part.batch.interpreted.tenant(index) for index in conflicts]
    for tenant in {tenant.id: tenant for tenant in tenants if tenant is not None}.values():
        for kind, ids in tenant.metric_ids.items():
            names |= {metric_id: (name, kind) for name, metric_id in ids.items() if metric_id in names}
    return names


def _words_of_conflict(conflict: Conflict, name: str, kind: MetricKind) -> str:
    """Say which value is stored and which is not."""
    stored, refused = _value_text(conflict.stored, kind), _value_text(conflict.refused, kind)
    instant = time_text(conflict.measured_at)
    if conflict.within_message:
        return f"the message says both {stored} and {refused} of {shown(name)} at {instant}; nothing of it is stored"
    return (
        f"{shown(name)} is already stored as {stored} at {instant}, and this message says {refused}; the stored value stays,"
        " and nothing of this message is stored"
    )


def _value_text(value: float | str, kind: MetricKind) -> str:
    if isinstance(value, str):
        return shown(value)
    return ("true" if value else "false") if kind == "boolean" else repr(value).removesuffix(".0")


def _letter(part: BatchPart, rejection: Rejection) -> Letter:
    batch, index = part.batch, rejection.message_index
    message = batch.messages[index]
    return Letter(
        message_index=index,
        origin=batch.origin(index),
        tenant_id=int(batch.tenant_ids[index]),
        device=batch.interpreted.device_name(index),
        topic=message.topic,
        received_at=message.received_at,
        dead_lettered_at=part.dead_lettered_at,
        reason=rejection.reason,
        detail=rejection.detail[:MAX_DETAIL_CHARACTERS],
        payload=message.payload,
        payload_bytes=len(message.payload),
        replays=batch.envelope(index).replays,
    )


class Quota(NamedTuple):
    """The dead letters that a tenant may have, and those that it has; of all unknown tenants together for `Letter.tenant_id` 0."""

    count_limit: int
    byte_limit: int
    letter_count: int
    byte_count: int


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
    letter before, and a replay must not lose it. Nothing is kept of a device that was erased since the message was received.
    """
    kept: list[Letter] = []
    discarded: list[Letter] = []
    counts = {tenant_id: quota.letter_count for tenant_id, quota in quotas.items()}
    sizes = {tenant_id: quota.byte_count for tenant_id, quota in quotas.items()}
    for letter in letters:
        if letter.reason == ERASED:
            discarded.append(letter)
            continue
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
