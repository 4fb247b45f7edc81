"""Opens messages of sources: the uplinks in them, as columns.

Those of a source are unwrapped together where its format can do so and they are usual ones, all others one by one; the uplinks are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple

from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.formats import Value
from sens_common.topics import SOURCES
from sens_payloads.profiles import Profile
from sens_payloads.uplinks import Received, Uplink, WithoutMeasurements, query_of
from sens_telemetry_worker.batch import Rejection
from sens_telemetry_worker.births import BirthsOfBatch
from sens_telemetry_worker.tenants import DeviceKey, SourceOfTenant
from sens_telemetry_worker.topic_resolving import LONGEST_REMEMBERED_TOPIC

_MAX_ADDRESSES: Final = 16_384
_device: Final = attrgetter("device")
_topic: Final = attrgetter("topic")
_fields: Final = attrgetter("fields")


@dataclass(slots=True)
class OpenedUplinks:
    """The uplinks of a batch's messages, those of a message together: columns of equal length.

    Attributes:
        owners: Indexes of their messages.
        senders: The sources that brought them.
        uplinks: As unwrapped.
        profiles: Of their devices.
        values: Fields; once they are named, values by their metrics' names.
    """

    owners: list[int] = field(default_factory=list)
    senders: list[SourceOfTenant] = field(default_factory=list)
    uplinks: list[Uplink] = field(default_factory=list)
    profiles: list[Profile | None] = field(default_factory=list)
    values: list[Mapping[str, Value | int]] = field(default_factory=list)

    @property
    def columns(
        self,
    ) -> tuple[list[int], list[SourceOfTenant], list[Uplink], list[Profile | None], list[Mapping[str, Value | int]]]:
        """Return the columns, as above."""
        return self.owners, self.senders, self.uplinks, self.profiles, self.values

    def add(self, owners: Sequence[int], sender: SourceOfTenant, uplinks: Sequence[Uplink]) -> None:
        """Add uplinks of messages of one source."""
        source = sender.source
        self.owners += owners
        self.senders += [sender] * len(owners)
        self.uplinks += uplinks
        if sender.assigned or source.profile_rules:
            self.profiles += [sender.profile(uplink.device) for uplink in uplinks]
        else:
            self.profiles += [source.default_profile] * len(owners)
        self.values += [fields or {} for fields in map(_fields, uplinks)]

    def device_keys(self) -> list[DeviceKey]:
        """Return whose uplinks they are."""
        return [(sender.tenant.id, uplink.device) for sender, uplink in zip(self.senders, self.uplinks, strict=True)]

    def only(self, chosen: Sequence[int]) -> "OpenedUplinks":
        """Return those at some positions, in the order of these."""
        if len(chosen) == len(self.owners):
            return self
        return self._at(chosen)

    def ordered(self) -> "OpenedUplinks":
        """Return them in the order of the messages."""
        return self._at(sorted(range(len(self.owners)), key=self.owners.__getitem__))

    def _at(self, positions: Sequence[int]) -> "OpenedUplinks":
        return OpenedUplinks(*([column[position] for position in positions] for column in self.columns))  # type: ignore[arg-type]


class Opened(NamedTuple):
    """What messages hold.

    Attributes:
        uplinks: Of all of them, in the order of the messages.
        without: Indexes of those without measurements.
        names: The devices of those that name one alone, by the messages' indexes.
    """

    uplinks: OpenedUplinks
    without: set[int]
    names: dict[int, str]

    def add(self, owners: Sequence[int], sender: SourceOfTenant, uplinks: Sequence[Uplink]) -> None:
        """Add the uplinks of messages of one source, those of a message together."""
        self.uplinks.add(owners, sender, uplinks)
        named = dict(zip(owners, map(_device, uplinks), strict=True))
        if len(named) < len(owners):  # some messages have several
            several = {owner for owner, uplink in zip(owners, uplinks, strict=True) if uplink.device != named[owner]}
            named = {owner: device for owner, device in named.items() if owner not in several}
        self.names.update(named)


def open_messages(
    messages: Sequence[Message],
    senders: Mapping[str, SourceOfTenant],
    births: BirthsOfBatch,
    rejections: dict[int, Rejection],
) -> Opened:
    """Unwrap messages; note why some can't be.

    Args:
        messages: All messages of a batch.
        senders: The sources by topic.
        births: Those that explain messages.
        rejections: Of messages that are left out; those that can't be unwrapped are added.
    """
    opened = Opened(OpenedUplinks(), set(), {})
    by_sender = _by_sender(messages, senders, rejections)
    for sender, indexes in by_sender:
        received = _received([messages[index] for index in indexes])
        usual = sender.source.unwrap_usual(received)
        if all(usual):
            opened.add(indexes, sender, usual)  # type: ignore[arg-type] # there is no None
            continue
        owners: list[int] = []
        uplinks: list[Uplink] = []
        for index, message, uplink in zip(indexes, received, usual, strict=True):
            found = (
                [uplink]
                if uplink is not None
                else _unwrap(opened, index, sender, message, births=births, rejections=rejections)
            )
            owners += [index] * len(found)
            uplinks += found
        opened.add(owners, sender, uplinks)
    return opened if len(by_sender) <= 1 else opened._replace(uplinks=opened.uplinks.ordered())


def received_of(message: Message) -> Received:
    """Return a message as its source's format takes it."""
    return _received([message])[0]


def _received(messages: Sequence[Message]) -> list[Received]:
    addresses = [
        _address(topic) if len(topic) <= LONGEST_REMEMBERED_TOPIC else _address_of(topic)
        for topic in map(_topic, messages)
    ]
    return [
        Received(message.payload, message.received_at, topic, query)
        for message, (topic, query) in zip(messages, addresses, strict=True)
    ]


def _address_of(topic: str) -> tuple[str, Mapping[str, str]]:
    published, query = SOURCES.message_address(topic)
    return published, query_of(query)


_address: Final = lru_cache(maxsize=_MAX_ADDRESSES)(_address_of)


def _by_sender(
    messages: Sequence[Message], senders: Mapping[str, SourceOfTenant], rejections: Mapping[int, Rejection]
) -> list[tuple[SourceOfTenant, list[int]]]:
    """Return the indexes of messages that are not refused, by their sources."""
    found: dict[int, tuple[SourceOfTenant, list[int]]] = {}
    for index, message in enumerate(messages):
        sender = senders.get(message.topic)
        if sender is None or index in rejections:
            continue
        of_sender = found.get(id(sender))
        if of_sender is None:
            of_sender = found[id(sender)] = sender, []
        of_sender[1].append(index)
    return list(found.values())


def _unwrap(
    opened: Opened,
    index: int,
    sender: SourceOfTenant,
    received: Received,
    *,
    births: BirthsOfBatch,
    rejections: dict[int, Rejection],
) -> list[Uplink]:
    """Return the uplinks of one message; none where it has no measurements or is refused, which is noted."""
    source = sender.source
    try:
        if source.has_births:
            unwrapped = source.unwrap(received, births.of(index))
        else:
            unwrapped = source.format.unwrap(received, source.settings)
    except RejectedMessageError as error:
        rejections[index] = Rejection(index, error.reason, error.detail)
        return []
    if isinstance(unwrapped, WithoutMeasurements):
        opened.without.add(index)
        return []
    return unwrapped
