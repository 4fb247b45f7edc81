"""The nouns of a batch: envelopes taken from the stream, their undecided messages, what these lead to, and the parts that are stored.

``Envelope`` → ``EnvelopeProgress`` → ``UndecidedMessages`` → ``InterpretedMessages`` → ``Batch`` → ``BatchPart``. A message is named by its index in
the batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.names import UNROUTED
from sens_common.topics import Route
from sens_telemetry_worker.births import BirthsOfBatch
from sens_telemetry_worker.rows import Rows
from sens_telemetry_worker.tenants import Device, KeptMessage, SourceOfTenant, Tenant, UplinkReading

_DAY_MICROSECONDS: Final = 86_400_000_000


class MessageOutcome(IntEnum):
    """What became of a message; a byte each in ``sens.settled.outcomes``."""

    UNDECIDED = 0
    STORED = 1
    DUPLICATE = 2
    DEAD_LETTERED = 3
    DISCARDED = 4
    WITHOUT_MEASUREMENTS = 5


class StreamPosition(NamedTuple):
    """Which envelope: when its stream was created, microseconds since the epoch, and its sequence there."""

    stream_created_at: int
    sequence: int


class Envelope(Protocol):
    """An envelope taken from the stream.

    Attributes:
        position: Which one it is.
        stored_at: When the stream took it, seconds since the epoch.
        messages: Its messages.
        replays: How often its messages came from the dead letters.
        received: For how many messages of each tenant's name it accounts, those included that were discarded.
        discarded: How many of those were discarded before.
        import_days: How many days back the lines of an import may lie; 0 where its messages are none.
    """

    @property
    def position(self) -> StreamPosition: ...
    @property
    def stored_at(self) -> float: ...
    @property
    def messages(self) -> list[Message]: ...
    @property
    def replays(self) -> int: ...
    @property
    def received(self) -> Mapping[str, int]: ...
    @property
    def discarded(self) -> Mapping[str, int]: ...
    @property
    def import_days(self) -> int: ...

    def origin(self, index: int) -> Origin:
        """Return where a message came from first, which names its dead letter."""


@dataclass(slots=True)
class EnvelopeProgress:
    """An envelope and what is known of its messages.

    Attributes:
        envelope: As it was taken.
        outcomes: An `MessageOutcome` for each message.
        recorded: The same as the database has it, None where it has nothing.
        settled: Whether there is nothing left to do.
    """

    envelope: Envelope
    outcomes: bytes
    recorded: bytes | None = None
    settled: bool = False

    @classmethod
    def of(cls, envelope: Envelope) -> Self:
        """Return an envelope of which nothing is known."""
        return cls(envelope, bytes(len(envelope.messages)))

    def adopt_recorded(self, recorded: bytes | None) -> None:
        """Take over what the database knows: the outcomes of some of its messages, None where it is settled."""
        self.recorded = recorded
        if recorded is None:
            self.settled = True
        elif len(recorded) == len(self.outcomes):
            self.outcomes = recorded

    @property
    def day(self) -> int:
        """The day on which the stream took it, days since the epoch."""
        return int(self.envelope.stored_at // 86_400)


class Rejection(NamedTuple):
    """A message that is not stored, and why: a dead letter's reason and detail."""

    message_index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class UndecidedMessages:
    """The messages of some envelopes whose outcome is not known yet.

    Attributes:
        envelopes: Those that are not settled.
        messages: Their undecided messages in order, n of them.
        envelope_indexes: int64, n: for each message the index of its envelope in `envelopes`.
        indexes_in_envelope: int64, n: for each message its index among all messages of its envelope.
    """

    envelopes: list[EnvelopeProgress]
    messages: list[Message]
    envelope_indexes: NDArray[np.int64]
    indexes_in_envelope: NDArray[np.int64]

    @classmethod
    def of(cls, progress: Iterable[EnvelopeProgress]) -> Self:
        """Gather the undecided messages."""
        envelopes = [each for each in progress if not each.settled]
        messages: list[Message] = []
        envelope_indexes = [np.zeros(0, np.int64)]
        indexes_in_envelope = [np.zeros(0, np.int64)]
        for envelope_index, each in enumerate(envelopes):
            undecided = np.flatnonzero(np.frombuffer(each.outcomes, np.uint8) == MessageOutcome.UNDECIDED)
            everything = each.envelope.messages
            messages += everything if len(undecided) == len(everything) else [everything[n] for n in undecided.tolist()]
            envelope_indexes.append(np.full(len(undecided), envelope_index, np.int64))
            indexes_in_envelope.append(undecided)
        return cls(envelopes, messages, np.concatenate(envelope_indexes), np.concatenate(indexes_in_envelope))

    @property
    def all_envelopes_settled(self) -> bool:
        """Whether nothing is left to do for any envelope."""
        return all(each.settled for each in self.envelopes)

    def origin(self, message_index: int) -> Origin:
        """Return where a message came from first."""
        envelope = self.envelopes[int(self.envelope_indexes[message_index])].envelope
        return envelope.origin(int(self.indexes_in_envelope[message_index]))

    def imported(self) -> dict[int, int]:
        """Return how far back the messages may lie that are lines of imports, in microseconds, by their indexes."""
        found: dict[int, int] = {}
        for index, each in enumerate(self.envelopes):
            if each.envelope.import_days:
                lines = np.flatnonzero(self.envelope_indexes == index).tolist()
                found |= dict.fromkeys(lines, each.envelope.import_days * _DAY_MICROSECONDS)
        return found

    def tenant_names(self) -> set[str]:
        """Return the names of tenants for which the envelopes account."""
        return {name for each in self.envelopes for name in (*each.envelope.received, *each.envelope.discarded)} - {
            UNROUTED
        }

    def recorded(self) -> dict[StreamPosition, bytes | None]:
        """Return what the database is thought to have of each envelope; see `EnvelopeProgress.recorded`."""
        return {each.envelope.position: each.recorded for each in self.envelopes if not each.settled}


@dataclass(frozen=True, slots=True)
class InterpretedMessages:
    """Messages with the devices and rows that they lead to.

    Attributes:
        messages: All of them.
        devices: Each message's device, None where its topic leads to none, or to a source.
        routes: What the topics say that lead to no device.
        rows: Of those messages that can be stored.
        rejections: The other messages.
        generation: Of the ids in the rows; see `topic_resolving.KnownNames`.
        tenant_ids: By name, of the tenants for which the envelopes account or that topics name which lead to no device, those that exist.
        senders: The sources that brought messages, by topic.
        without_measurements: Indexes of messages that carry none by their nature.
        uplink_readings: What the sources' messages say, in their order, also of some that are rejected.
        device_names: The devices of sources' messages that name one alone, by the messages' indexes.
        births: What births have to do with them.
        kept: The messages of sources that keep them, by their indexes.
    """

    messages: Sequence[Message]
    devices: list[Device | None]
    routes: Mapping[str, Route]
    rows: Rows
    rejections: list[Rejection]
    generation: int
    tenant_ids: Mapping[str, int]
    senders: Mapping[str, SourceOfTenant] = field(default_factory=dict)
    without_measurements: frozenset[int] = frozenset()
    uplink_readings: Sequence[UplinkReading] = ()
    device_names: Mapping[int, str] = field(default_factory=dict)
    births: BirthsOfBatch = field(default_factory=BirthsOfBatch)
    kept: Mapping[int, KeptMessage] = field(default_factory=dict)

    def tenant(self, message_index: int) -> Tenant | None:
        """Return the tenant whose device or source has sent a message, None where its topic leads to neither."""
        device = self.devices[message_index]
        if device is not None:
            return device.tenant
        sender = self.senders.get(self.messages[message_index].topic)
        return sender.tenant if sender is not None else None

    def tenant_name(self, message_index: int) -> str:
        """Return the tenant's name in a message's topic, `UNROUTED` where there is none."""
        device = self.devices[message_index]
        return device.tenant.name if device is not None else self.routes[self.messages[message_index].topic].tenant

    def device_name(self, message_index: int) -> str | None:
        """Return the device's name in a message's topic or in a source's message, None where there is no valid one, or several."""
        device = self.devices[message_index]
        if device is not None:
            return device.name
        return self.device_names.get(message_index) or self.routes[self.messages[message_index].topic].device


@dataclass(frozen=True, slots=True)
class Batch:
    """Undecided messages that are ready to be stored.

    Attributes:
        undecided: The messages, and the envelopes that brought them.
        interpreted: What they lead to.
        tenant_ids: int32, each message's tenant, 0 where its topic names none that exists.
        tenant_ids_by_name: Ids of the tenants that envelopes or topics name, those that exist.
        tenant_names: Names of tenants by id; that of 0 stands for all topics that name no tenant that exists.
    """

    undecided: UndecidedMessages
    interpreted: InterpretedMessages
    tenant_ids: NDArray[np.int32]
    tenant_ids_by_name: Mapping[str, int]
    tenant_names: Mapping[int, str]

    @classmethod
    def of(cls, undecided: UndecidedMessages, interpreted: InterpretedMessages) -> Self:
        """Join messages and rows."""
        tenant_ids_by_name = interpreted.tenant_ids
        devices = interpreted.devices
        tenant_ids = np.fromiter(
            (device.tenant.id if device is not None else -1 for device in devices), np.int32, len(devices)
        )
        for index in np.flatnonzero(tenant_ids < 0).tolist():
            tenant_ids[index] = tenant_ids_by_name.get(interpreted.tenant_name(index), 0)
        names = {0: UNROUTED} | {tenant_id: name for name, tenant_id in tenant_ids_by_name.items()}
        for first in np.unique(tenant_ids, return_index=True)[1].tolist():
            device = devices[first]
            if device is not None:
                names[device.tenant.id] = device.tenant.name
        return cls(undecided, interpreted, tenant_ids, tenant_ids_by_name, names)

    @property
    def messages(self) -> list[Message]:
        """Its messages."""
        return self.undecided.messages

    def envelope(self, message_index: int) -> Envelope:
        """Return the envelope that brought a message."""
        return self.undecided.envelopes[int(self.undecided.envelope_indexes[message_index])].envelope

    def origin(self, message_index: int) -> Origin:
        """Return where a message came from first."""
        return self.undecided.origin(message_index)


@dataclass(frozen=True, slots=True)
class BatchPart:
    """What one transaction writes: rows of some messages of a batch, and the dead letters of others.

    Attributes:
        batch: What it is a part of.
        rows: Of its messages.
        message_indexes: int64, all its messages.
        rejections: Those of its messages that have no rows.
        dead_lettered_at: The time of its dead letters, microseconds since the epoch.
    """

    batch: Batch
    rows: Rows
    message_indexes: NDArray[np.int64]
    rejections: Sequence[Rejection]
    dead_lettered_at: int
