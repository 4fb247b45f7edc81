"""What became of each message, so that every one is counted once: received = stored + duplicate + dead-lettered + discarded.

What is received is said by the envelopes' headers, what became of it by the transactions, so that the law can fail. Each transaction
counts the messages that it settles. An envelope's last one settles the envelope as well, and counts what it has received. While a batch
is stored in parts, the database is told what became of each message so far. A settled message is neither stored nor counted again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sens_common.dead_letters import Origin, Reason
from sens_common.envelope import Message
from sens_common.names import UNROUTED, native_route
from sens_telemetry_worker.columns import Rejected
from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.routing import Routed
from sens_telemetry_worker.rows import Prepared

MAX_DETAIL_CHARACTERS: Final = 1000

_EPOCH: Final = date(1970, 1, 1).toordinal()
_CONFLICT: Final = "another value is already stored for the same device, metric and time; the stored one stays"


class Outcome(IntEnum):
    """What became of a message; a byte each in ``sens.settled.outcomes``."""

    PENDING = 0
    STORED = 1
    DUPLICATE = 2
    DEAD_LETTERED = 3
    DISCARDED = 4


class Place(NamedTuple):
    """Where an envelope is: when its stream was made, microseconds since the epoch, and its sequence there."""

    stream: int
    sequence: int


class Entry(Protocol):
    """An envelope taken from the log.

    Attributes:
        place: Where it is.
        logged_at: When the log took it, seconds since the epoch.
        messages: Its messages.
        replays: How often its messages came from the dead letters.
        received: How many messages of each tenant's name it speaks for, those included that were discarded.
        discarded: How many of those were discarded before.
    """

    @property
    def place(self) -> Place: ...
    @property
    def logged_at(self) -> float: ...
    @property
    def messages(self) -> list[Message]: ...
    @property
    def replays(self) -> int: ...
    @property
    def received(self) -> Mapping[str, int]: ...
    @property
    def discarded(self) -> Mapping[str, int]: ...

    def origin(self, index: int) -> Origin:
        """Return where a message came from, which names its dead letter."""


@dataclass(slots=True)
class Envelope:
    """An envelope and what is known of its messages.

    Attributes:
        entry: As it was taken.
        outcomes: An `Outcome` for each message.
        recorded: The same as the database has it, None where it has nothing.
        settled: Whether there is nothing left to do.
    """

    entry: Entry
    outcomes: bytes
    recorded: bytes | None = None
    settled: bool = False

    @classmethod
    def of(cls, entry: Entry) -> "Envelope":
        """Return an envelope of which nothing is known."""
        return cls(entry, bytes(len(entry.messages)))

    def learn(self, recorded: bytes | None) -> None:
        """Take over what the database knows: the outcomes of some of its messages, None where it is settled."""
        self.recorded = recorded
        if recorded is None:
            self.settled = True
        elif len(recorded) == len(self.outcomes):
            self.outcomes = recorded


class Counts(NamedTuple):
    """Messages of a tenant and day; `tenant_id` is 0 for topics that name no tenant that exists."""

    tenant_id: int
    day: date
    received: int
    stored: int
    duplicate: int
    dead_lettered: int
    discarded: int


class Settlement(NamedTuple):
    """What the database is to know of an envelope instead of `before`; see `Envelope.recorded`. `after` None: it is settled."""

    envelope: Envelope
    before: bytes | None
    outcomes: bytes
    after: bytes | None


class Record(NamedTuple):
    """What a transaction adds to the accounts."""

    counts: list[Counts]
    settlements: list[Settlement]


class Batch:
    """The messages of some envelopes of which nothing became yet.

    Attributes:
        messages: In their order.
        routed: What is known of them, message by message.
        tenant_ids: int32, each message's tenant, 0 where its topic names none that exists.
        generation: Of the ids of devices and metrics in the rows, see `routing.Known`.
        tenant_names: Names of tenants by number; that of 0 stands for all topics that name no tenant that exists.
    """

    def __init__(self, envelopes: Sequence[Envelope]) -> None:
        self._envelopes = [envelope for envelope in envelopes if not envelope.settled]
        self.messages: list[Message] = []
        owners: list[NDArray[np.int64]] = []
        numbers: list[NDArray[np.int64]] = []
        for position, envelope in enumerate(self._envelopes):
            pending = np.flatnonzero(np.frombuffer(envelope.outcomes, np.uint8) == Outcome.PENDING)
            everything = envelope.entry.messages
            self.messages += (
                everything if len(pending) == len(everything) else [everything[n] for n in pending.tolist()]
            )
            owners.append(np.full(len(pending), position, np.int64))
            numbers.append(pending)
        empty = [np.zeros(0, np.int64)]
        self._owners = np.concatenate(owners + empty)
        self._numbers = np.concatenate(numbers + empty)
        self._days = np.array([int(envelope.entry.logged_at // 86_400) for envelope in self._envelopes], np.int64)
        self._tenants: Mapping[str, int] = {}
        self.generation = 0
        self.tenant_names: dict[int, str] = {0: UNROUTED}
        self.routed: Routed | None = None
        self.tenant_ids = np.zeros(len(self.messages), np.int32)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do for any envelope."""
        return all(envelope.settled for envelope in self._envelopes)

    def recorded(self) -> dict[Place, bytes | None]:
        """Return what the database is thought to have of each envelope; see `Envelope.recorded`."""
        return {envelope.entry.place: envelope.recorded for envelope in self._envelopes if not envelope.settled}

    def names(self, routed: Routed) -> set[str]:
        """Return the names of tenants whose numbers are needed."""
        names: set[str] = set()
        for envelope in self._envelopes:
            names.update(envelope.entry.received, envelope.entry.discarded)
        names.update(
            _tenant_in(self.messages[number].topic) for number, device in enumerate(routed.devices) if device is None
        )
        return names - {UNROUTED}

    def take(self, routed: Routed, tenants: Mapping[str, int]) -> None:
        """Take over whose the messages are; `tenants` has the numbers of those of `names` that exist."""
        self.routed = routed
        self._tenants = tenants
        self.generation = routed.generation
        self.tenant_ids = np.fromiter(
            (device.tenant.id if device is not None else -1 for device in routed.devices), np.int32, len(routed.devices)
        )
        for number in np.flatnonzero(self.tenant_ids < 0).tolist():
            self.tenant_ids[number] = tenants.get(_tenant_in(self.messages[number].topic), 0)
        self.tenant_names |= {number: name for name, number in tenants.items()}
        for first in np.unique(self.tenant_ids, return_index=True)[1].tolist():
            device = routed.devices[first]
            if device is not None:
                self.tenant_names[device.tenant.id] = device.tenant.name

    def by_tenant(self, amounts: NDArray[np.int64]) -> dict[int, int]:
        """Return the sums of each tenant's messages' amounts, those that are not 0."""
        tenants, index = np.unique(self.tenant_ids, return_inverse=True)
        sums = np.bincount(index, amounts, minlength=len(tenants)).astype(np.int64).tolist()
        return {tenant: amount for tenant, amount in zip(tenants.tolist(), sums, strict=True) if amount}

    def letter(self, rejected: Rejected, now: int) -> Letter:
        """Return a message's dead letter; `now` in microseconds since the epoch."""
        assert self.routed is not None  # noqa: S101 - taken before anything is written
        number, reason, detail = rejected
        message = self.messages[number]
        entry = self._envelopes[self._owners[number]].entry
        device = self.routed.devices[number]
        return Letter(
            message=number,
            origin=entry.origin(int(self._numbers[number])),
            tenant_id=int(self.tenant_ids[number]),
            device=device.name if device is not None else native_route(message.topic)[1],
            topic=message.topic,
            received_at=message.received_at,
            dead_lettered_at=now,
            reason=reason,
            detail=detail[:MAX_DETAIL_CHARACTERS],
            payload=message.payload,
            payload_bytes=len(message.payload),
            replays=entry.replays,
        )

    def record(self, numbers: NDArray[np.int64], outcomes: NDArray[np.uint8]) -> Record:
        """Return what is to be recorded when these messages have these outcomes."""
        owners = self._owners[numbers]
        settlements = list(self._settlements(numbers, owners, outcomes))
        counts: Counter[tuple[int, int, int]] = Counter()
        keys = (self.tenant_ids[numbers].astype(np.int64) << 32) | (self._days[owners] << 8) | outcomes
        for key, amount in zip(*np.unique(keys, return_counts=True), strict=True):
            counts[int(key) >> 32, (int(key) >> 8) & 0xFFFFFF, int(key) & 0xFF] += int(amount)
        received: Counter[tuple[int, int]] = Counter()
        for envelope in (settlement.envelope for settlement in settlements if settlement.after is None):
            day = int(envelope.entry.logged_at // 86_400)
            for name, amount in envelope.entry.received.items():
                received[self._tenants.get(name, 0), day] += amount
            for name, amount in envelope.entry.discarded.items():
                counts[self._tenants.get(name, 0), day, Outcome.DISCARDED] += amount
        rows = [
            Counts(
                tenant_id,
                date.fromordinal(_EPOCH + day),
                received[tenant_id, day],
                *(counts[tenant_id, day, outcome] for outcome in Outcome if outcome is not Outcome.PENDING),
            )
            for tenant_id, day in sorted({*received, *((tenant_id, day) for tenant_id, day, _ in counts)})
        ]
        return Record(rows, settlements)

    def _settlements(
        self, numbers: NDArray[np.int64], owners: NDArray[np.int64], outcomes: NDArray[np.uint8]
    ) -> Iterable[Settlement]:
        everything = len(numbers) == len(self.messages)
        touched = set(owners.tolist())
        for position, envelope in enumerate(self._envelopes):
            if envelope.settled:
                continue
            if everything:
                yield Settlement(envelope, envelope.recorded, envelope.outcomes, None)
                continue
            after = np.frombuffer(envelope.outcomes, np.uint8)
            if position in touched:
                mine = owners == position
                after = after.copy()
                after[self._numbers[numbers[mine]]] = outcomes[mine]
            if Outcome.PENDING not in after:
                yield Settlement(envelope, envelope.recorded, after.tobytes(), None)
            elif position in touched:
                yield Settlement(envelope, envelope.recorded, after.tobytes(), after.tobytes())


class Part:
    """What one transaction writes: rows of some messages of a batch, and the dead letters of others.

    Attributes:
        batch: What it is a part of.
        rows: Of its messages.
        messages: int64, numbers of all its messages.
    """

    def __init__(
        self, batch: Batch, rows: Prepared, messages: Collection[int], rejected: Sequence[Rejected], now: int
    ) -> None:
        """Take the messages whose rows these are, and those that are rejected already."""
        self.batch = batch
        self.rows = rows
        self.rejected = list(rejected)
        self.messages = np.array([*messages, *(each.message for each in rejected)], np.int64)
        self._now = now

    def letters(self, conflicting: Iterable[int]) -> list[Letter]:
        """Return the dead letters, those included of messages of which the database has another value."""
        conflicts = sorted({*self.rows.conflicting, *conflicting})
        rejected = [*self.rejected, *(Rejected(number, Reason.CONFLICTING_VALUE, _CONFLICT) for number in conflicts)]
        return [self.batch.letter(each, self._now) for each in rejected]

    def record(self, new_values: NDArray[np.int64], dead_lettered: Iterable[int], discarded: Iterable[int]) -> Record:
        """Return what is to be recorded; the numbers are those of `letters` as the quotas have left them."""
        outcomes = np.where(new_values > 0, Outcome.STORED, Outcome.DUPLICATE).astype(np.uint8)
        outcomes[list(dead_lettered)] = Outcome.DEAD_LETTERED
        outcomes[list(discarded)] = Outcome.DISCARDED
        return self.batch.record(self.messages, outcomes[self.messages])


def confirm(record: Record) -> None:
    """Take note that a record is committed."""
    for settlement in record.settlements:
        settlement.envelope.outcomes = settlement.outcomes
        settlement.envelope.recorded = settlement.after
        settlement.envelope.settled = settlement.after is None


def count_by_tenant(messages: Iterable[Message]) -> dict[str, int]:
    """Return how many messages each tenant's name has, `UNROUTED` for topics that name none."""
    counts: Counter[str] = Counter()
    for topic, amount in Counter(message.topic for message in messages).items():
        counts[_tenant_in(topic)] += amount
    return dict(counts)


def _tenant_in(topic: str) -> str:
    return native_route(topic)[0] or UNROUTED
