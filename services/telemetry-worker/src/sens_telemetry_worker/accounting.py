"""Conservation: every message is counted once.

Received = stored + duplicate + dead-lettered + discarded + without measurements.

The envelopes' headers say how many messages were received, the transactions what became of them, so that the law can fail. Each transaction
counts the messages that it settles. An envelope's last one settles the envelope as well, and counts the messages that it has received. While
a batch is stored in parts, the database is told what became of each message so far. A settled message is neither stored nor counted again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sens_telemetry_worker import metrics
from sens_telemetry_worker.batch import Batch, BatchPart, EnvelopeProgress, MessageOutcome
from sens_telemetry_worker.letters import Letter

_EPOCH: Final = date(1970, 1, 1).toordinal()


class MessageCounts(NamedTuple):
    """Messages of a tenant and day; `tenant_id` is 0 for topics that name no tenant that exists."""

    tenant_id: int
    day: date
    received: int
    stored: int
    duplicate: int
    dead_lettered: int
    discarded: int
    without_measurements: int


class Settlement(NamedTuple):
    """What the database is to know of an envelope in the place of `before`; see `EnvelopeProgress.recorded`. `after` None: it is settled."""

    progress: EnvelopeProgress
    before: bytes | None
    outcomes: bytes
    after: bytes | None


class AccountsUpdate(NamedTuple):
    """What a transaction adds to the accounts."""

    counts: list[MessageCounts]
    settlements: list[Settlement]


class WrittenPart(NamedTuple):
    """A part of a batch that is committed, and what became of it.

    Attributes:
        new_values: int64, for each message of the batch the number of its values that were not stored before.
        letters: Dead letters that were kept.
        discarded: Those that had no room.
        accounts: What the transaction has added to the accounts.
    """

    new_values: NDArray[np.int64]
    letters: list[Letter]
    discarded: list[Letter]
    accounts: AccountsUpdate


def accounts_update(
    part: BatchPart, new_values: NDArray[np.int64], dead_lettered: Iterable[int], discarded: Iterable[int]
) -> AccountsUpdate:
    """Return what a part adds to the accounts; a message of a letter is either kept or discarded, as the quotas have left it."""
    outcomes = np.where(new_values > 0, MessageOutcome.STORED, MessageOutcome.DUPLICATE).astype(np.uint8)
    outcomes[list(part.batch.interpreted.without_measurements)] = MessageOutcome.WITHOUT_MEASUREMENTS
    outcomes[list(dead_lettered)] = MessageOutcome.DEAD_LETTERED
    outcomes[list(discarded)] = MessageOutcome.DISCARDED
    indexes = part.message_indexes
    settlements = list(_settlements(part.batch, indexes, outcomes[indexes]))
    return AccountsUpdate(list(_counts(part.batch, indexes, outcomes[indexes], settlements)), settlements)


def mark_committed(update: AccountsUpdate) -> None:
    """Take note that an update of the accounts is committed."""
    for settlement in update.settlements:
        settlement.progress.outcomes = settlement.outcomes
        settlement.progress.recorded = settlement.after
        settlement.progress.settled = settlement.after is None


def _settlements(batch: Batch, message_indexes: NDArray[np.int64], outcomes: NDArray[np.uint8]) -> Iterator[Settlement]:
    everything = len(message_indexes) == len(batch.messages)
    envelope_indexes = batch.undecided.envelope_indexes[message_indexes]
    touched = set(envelope_indexes.tolist())
    for envelope_index, progress in enumerate(batch.undecided.envelopes):
        if progress.settled:
            continue
        if everything:
            yield Settlement(progress, progress.recorded, progress.outcomes, None)
            continue
        after = np.frombuffer(progress.outcomes, np.uint8)
        if envelope_index in touched:
            mine = envelope_indexes == envelope_index
            after = after.copy()
            after[batch.undecided.indexes_in_envelope[message_indexes[mine]]] = outcomes[mine]
        if MessageOutcome.UNDECIDED not in after:
            yield Settlement(progress, progress.recorded, after.tobytes(), None)
        elif envelope_index in touched:
            yield Settlement(progress, progress.recorded, after.tobytes(), after.tobytes())


def _counts(
    batch: Batch, message_indexes: NDArray[np.int64], outcomes: NDArray[np.uint8], settlements: list[Settlement]
) -> Iterator[MessageCounts]:
    days = np.array([progress.day for progress in batch.undecided.envelopes], np.int64)
    days_of_messages = days[batch.undecided.envelope_indexes[message_indexes]]
    counts: Counter[tuple[int, int, int]] = Counter()
    keys = (batch.tenant_ids[message_indexes].astype(np.int64) << 32) | (days_of_messages << 8) | outcomes
    for key, count in zip(*np.unique(keys, return_counts=True), strict=True):
        counts[int(key) >> 32, (int(key) >> 8) & 0xFFFFFF, int(key) & 0xFF] += int(count)
    received: Counter[tuple[int, int]] = Counter()
    for progress in (settlement.progress for settlement in settlements if settlement.after is None):
        for name, count in progress.envelope.received.items():
            received[batch.tenant_ids_by_name.get(name, 0), progress.day] += count
        for name, count in progress.envelope.discarded.items():
            counts[batch.tenant_ids_by_name.get(name, 0), progress.day, MessageOutcome.DISCARDED] += count
    for tenant_id, day in sorted({*received, *((tenant_id, day) for tenant_id, day, _ in counts)}):
        yield MessageCounts(
            tenant_id,
            date.fromordinal(_EPOCH + day),
            received[tenant_id, day],
            *(counts[tenant_id, day, outcome] for outcome in MessageOutcome if outcome is not MessageOutcome.UNDECIDED),
        )


def add_to_metrics(batch: Batch, written: WrittenPart) -> None:
    """Count a part of a batch in the worker's metrics."""
    names = batch.tenant_names
    for each in written.accounts.counts:
        tenant = names[each.tenant_id]
        metrics.RECEIVED.labels(tenant).inc(each.received)
        metrics.STORED.labels(tenant).inc(each.stored)
        metrics.DUPLICATE.labels(tenant).inc(each.duplicate)
        metrics.DISCARDED.labels(tenant).inc(each.discarded)
        if each.without_measurements:
            metrics.WITHOUT_MEASUREMENTS.labels(tenant).inc(each.without_measurements)
    tenants, index = np.unique(batch.tenant_ids, return_inverse=True)
    values = np.bincount(index, written.new_values, minlength=len(tenants)).astype(np.int64)
    for tenant_id, count in zip(tenants.tolist(), values.tolist(), strict=True):
        if count:
            metrics.VALUES.labels(names[tenant_id]).inc(count)
    reasons = Counter((names[letter.tenant_id], letter.reason) for letter in written.letters)
    for (tenant, reason), count in reasons.items():
        metrics.DEAD_LETTERED.labels(tenant, reason).inc(count)
