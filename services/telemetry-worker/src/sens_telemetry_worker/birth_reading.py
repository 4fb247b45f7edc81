"""Reads births of Sparkplug B: finds what explains the messages of a batch, and what these announce for those that follow.

A message is explained by the births that precede it in the stream (`sparkplug_history`), not by those that a worker happens to have seen.
Births of settled envelopes are in the database, for they are written in the transactions that settle them. Those of envelopes that other lanes
and workers have in hand are read from these envelopes themselves: nobody waits for anybody. What is looked at first is which envelopes are
settled, then what the database has, so that nothing is missed between them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.topics import SOURCES
from sens_payloads.formats.sparkplug_b import announced_in
from sens_payloads.formats.sparkplug_births import Birth, Death, OneBirth, Publisher
from sens_payloads.formats.sparkplug_history import EDGE_NODE, Announcement
from sens_payloads.formats.sparkplug_topics import data_publisher, data_topic, device_name_of
from sens_payloads.uplinks import Received
from sens_telemetry_worker.batch import Envelope, StreamPosition, UndecidedMessages
from sens_telemetry_worker.births import (
    BirthPosition,
    BirthRegister,
    BirthsOfBatch,
    EdgeNode,
    EdgeNodeKey,
    NotedAnnouncement,
    RegisteredEdgeNodes,
    WaitingFor,
)
from sens_telemetry_worker.tenants import Refusal, SourceOfTenant

_LARGEST_SESSION: Final = (1 << 63) - 1
"""The largest ``bdSeq`` that is looked at."""


class SentEarlier(NamedTuple):
    """A message of another envelope, and where it came from first."""

    message: Message
    origin: Origin


class EarlierEnvelopes(Protocol):
    """Envelopes before those of a batch that are not settled: other lanes or workers have them."""

    async def announcements(
        self, own: Sequence[Envelope], until: StreamPosition
    ) -> tuple[list[SentEarlier], StreamPosition]:
        """Return what `may_announce` in them, and the first envelope that is not settled.

        Args:
            own: The batch's envelopes, which are left out.
            until: The envelopes before it, which is none before the batch's last.

        Raises:
            StoreUnavailableError: The database or the stream can't be asked.
        """


def may_announce(topic: str) -> bool:
    """Tell whether a topic can be that of a birth or a death."""
    return "BIRTH/" in topic or "DEATH/" in topic


class Sent(NamedTuple):
    """A message of a source with births."""

    message_index: int
    sender: SourceOfTenant
    received: Received


class _Announced(NamedTuple):
    sent: Sent
    key: EdgeNodeKey
    announcement: Announcement
    birth: Birth | None
    publisher: Publisher


@dataclass(slots=True)
class _OpenedMessages:
    """Messages of a batch: what they announce; and by their indexes whose data they are, with their positions in the stream."""

    announced: list[_Announced] = field(default_factory=list)
    data: dict[int, tuple[EdgeNodeKey, str, Origin]] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)
    device_names: dict[int, str] = field(default_factory=dict)
    senders: dict[tuple[str, str], SourceOfTenant] = field(default_factory=dict)


class BirthReader:
    """Finds what explains the messages of a batch."""

    def __init__(self, register: BirthRegister, earlier: EarlierEnvelopes) -> None:
        self._register = register
        self._earlier = earlier

    async def read(self, sent: Sequence[Sent], undecided: UndecidedMessages) -> BirthsOfBatch:
        """Return what births have to do with messages.

        Args:
            sent: The messages of a batch whose sources have births.
            undecided: All its messages.

        Raises:
            StoreUnavailableError: The database or the stream can't be asked.
        """
        opened = _opened(sent, undecided)
        if not opened.announced and not opened.data:
            return BirthsOfBatch(refused=opened.refused)
        own = [each.envelope for each in undecided.envelopes]
        until = max(envelope.position for envelope in own)
        while True:
            found, farthest = await self._read(opened, own, until)
            if farthest <= until:
                return found
            until = farthest

    async def _read(
        self, opened: _OpenedMessages, own: Sequence[Envelope], until: StreamPosition
    ) -> tuple[BirthsOfBatch, StreamPosition]:
        """Read all that was announced before an envelope; return what it has to do with messages, and where the last birth is that explains one.

        Where that is later, a death before it may have been missed.
        """
        others, keep_from = await self._earlier.announcements(own, until)
        announcing = {each.key for each in opened.announced}
        wanted = announcing | {key for key, _, _ in opened.data.values()}
        registered = await self._register.edge_nodes(wanted, announcing)
        found = BirthsOfBatch(refused=dict(opened.refused), device_names=opened.device_names, keep_from=keep_from)
        announced = _with_room(opened.announced, registered, found)
        announced += _of_others(others, opened.senders, registered.nodes.keys())
        farthest = await self._explain(opened.data, registered.nodes, announced, found)
        return found, farthest

    async def _explain(
        self,
        data: Mapping[int, tuple[EdgeNodeKey, str, Origin]],
        nodes: Mapping[EdgeNodeKey, EdgeNode],
        announced: Iterable[_Announced],
        found: BirthsOfBatch,
    ) -> StreamPosition:
        """Find the birth that explains each message with data; return where the last of these births is."""
        in_hand: dict[EdgeNodeKey, dict[Origin, _Announced]] = {}
        for each in announced:
            in_hand.setdefault(each.key, {}).setdefault(each.announcement.position, each)
        histories = {
            key: node.history.with_others(each.announcement for each in in_hand[key].values())
            if key in in_hand
            else node.history
            for key, node in nodes.items()
        }
        kept: dict[int, BirthPosition] = {}
        farthest = StreamPosition(0, 0)
        for index, (key, device, origin) in data.items():
            node = nodes.get(key)
            if node is None:  # there is no room for it
                continue
            found.waiting_for[index] = WaitingFor(node.id, node.changes)
            explaining = histories[key].explaining(device, origin)
            if explaining is None:
                continue
            farthest = max(farthest, StreamPosition(*explaining.position[:2]))
            known = in_hand.get(key, {}).get(explaining.position)
            if known is not None:
                found.explaining[index] = OneBirth(known.birth)
            else:
                kept[index] = BirthPosition(node.id, device, explaining.position)
        births = await self._register.births(set(kept.values())) if kept else {}
        for index, position in kept.items():
            if position in births:
                found.explaining[index] = OneBirth(births[position])
        return farthest


def _opened(sent: Iterable[Sent], undecided: UndecidedMessages) -> _OpenedMessages:
    """Look what messages announce, and whose data they are."""
    opened = _OpenedMessages()
    for each in sent:
        index, sender, received = each
        origin = undecided.origin(index)
        opened.senders[sender.tenant.name, sender.source.name] = sender
        try:
            announced = _announced(each, origin)
            publisher = announced.publisher if announced is not None else data_publisher(received.topic)
        except RejectedMessageError as error:
            opened.refused[index] = Refusal(error.reason, error.detail)
            continue
        if publisher is not None:
            opened.device_names[index] = device_name_of(publisher)
        if announced is not None:
            opened.announced.append(announced)
        elif publisher is not None:
            opened.data[index] = _key(sender, publisher), _device(publisher), origin
    return opened


def _announced(sent: Sent, origin: Origin) -> _Announced | None:
    """Return what a message announces, None where it announces nothing."""
    if not may_announce(sent.received.topic):
        return None
    said = announced_in(sent.received)
    if said is None:
        return None
    bd_seq = said.bd_seq if said.bd_seq is not None and said.bd_seq <= _LARGEST_SESSION else None
    birth = None if isinstance(said, Death) else said
    announcement = Announcement(origin, _device(said.publisher), birth is not None, bd_seq)
    return _Announced(sent, _key(sent.sender, said.publisher), announcement, birth, said.publisher)


def _of_others(
    others: Iterable[SentEarlier], senders: Mapping[tuple[str, str], SourceOfTenant], keys: Collection[EdgeNodeKey]
) -> Iterator[_Announced]:
    """Yield what other envelopes announce of some edge nodes; what can't be read there announces nothing."""
    for message, origin in others:
        route = SOURCES.route(message.topic)
        sender = senders.get((route.tenant, route.source or "")) if route is not None else None
        if sender is None:
            continue
        topic, _ = SOURCES.message_address(message.topic)
        try:
            announced = _announced(Sent(-1, sender, Received(message.payload, message.received_at, topic)), origin)
        except RejectedMessageError:
            continue
        if announced is not None and announced.key in keys:
            yield announced


def _with_room(
    announced: Iterable[_Announced], registered: RegisteredEdgeNodes, found: BirthsOfBatch
) -> list[_Announced]:
    """Note what is announced; return it without what there is no room for."""
    kept = []
    for each in announced:
        if each.key in registered.refusals:
            found.refused[each.sent.message_index] = registered.refusals[each.key]
            continue
        node = registered.nodes[each.key]
        kept.append(each)
        tenant, source = each.sent.sender.tenant, each.sent.sender.source
        found.noted[each.sent.message_index] = NotedAnnouncement(
            node.id,
            each.announcement,
            each.birth,
            SOURCES.topic(tenant.name, source.name, data_topic(each.publisher)),
            tenant.id,
        )
    return kept


def _key(sender: SourceOfTenant, publisher: Publisher) -> EdgeNodeKey:
    return EdgeNodeKey(sender.source.id, device_name_of(publisher._replace(device="")))


def _device(publisher: Publisher) -> str:
    return device_name_of(publisher) if publisher.device else EDGE_NODE
