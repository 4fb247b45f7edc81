"""The nouns of births of Sparkplug B: what explains the messages of a batch, and what these announce for those that follow."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sens_common.dead_letters import Origin
from sens_payloads.formats.sparkplug_births import NO_BIRTHS, Birth, Births
from sens_payloads.formats.sparkplug_history import Announcement, History
from sens_telemetry_worker.tenants import Refusal


class EdgeNodeKey(NamedTuple):
    """An edge node: its source's id, and its own name, which is that of its device."""

    source_id: int
    name: str


class EdgeNode(NamedTuple):
    """What the database knows of an edge node.

    Attributes:
        id: Its id.
        changes: How often its births have changed; see `WaitingFor`.
        history: Its births and deaths.
    """

    id: int
    changes: int
    history: History


class BirthPosition(NamedTuple):
    """A birth that is kept: whose, and where it stands in the stream."""

    edge_node_id: int
    device: str
    position: Origin


class NotedAnnouncement(NamedTuple):
    """A birth or a death to be kept.

    Attributes:
        edge_node_id: Whose, or whose device's.
        announcement: What it is.
        birth: What it says, None for a death.
        data_topic: Topic of the messages that a birth explains, as it stands in the stream.
        tenant_id: Whose they are.
    """

    edge_node_id: int
    announcement: Announcement
    birth: Birth | None
    data_topic: str
    tenant_id: int


class WaitingFor(NamedTuple):
    """A message that no birth explains: its dead letter is right as long as the edge node has no other births.

    Attributes:
        edge_node_id: Whose births are missing.
        changes: How often they had changed when they were read.
    """

    edge_node_id: int
    changes: int


@dataclass(slots=True)
class BirthsOfBatch:
    """What births have to do with a batch.

    Attributes:
        explaining: By the messages' indexes: what explains them.
        noted: What they announce.
        waiting_for: Of messages with data.
        refused: Why some are not, by the messages' indexes: they can't be read, or there is no room.
        device_names: The devices that messages announce, or whose data they are, by the messages' indexes.
        keep_from: All that was announced since this envelope is kept, for earlier messages may still come: when the stream was created, and
            the envelope's sequence.
    """

    explaining: dict[int, Births] = field(default_factory=dict)
    noted: dict[int, NotedAnnouncement] = field(default_factory=dict)
    waiting_for: dict[int, WaitingFor] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)
    device_names: dict[int, str] = field(default_factory=dict)
    keep_from: tuple[int, int] = (0, 0)

    def of(self, message_index: int) -> Births:
        """Return the births that explain a message."""
        return self.explaining.get(message_index, NO_BIRTHS)


class RegisteredEdgeNodes(NamedTuple):
    """What became of edge nodes that were asked for.

    Attributes:
        nodes: Those that are registered.
        refusals: Those that may announce nothing: there is no room for it.
    """

    nodes: dict[EdgeNodeKey, EdgeNode]
    refusals: dict[EdgeNodeKey, Refusal]


class BirthRegister(Protocol):
    """The births in the database. Each method raises `storing.StoreUnavailableError` when it can't be asked."""

    async def edge_nodes(
        self, wanted: Collection[EdgeNodeKey], announcing: Collection[EdgeNodeKey]
    ) -> RegisteredEdgeNodes:
        """Return edge nodes, registering those that are new.

        Args:
            wanted: Those whose births are asked for.
            announcing: Those of them that announce something.
        """

    async def births(self, positions: Collection[BirthPosition]) -> dict[BirthPosition, Birth]:
        """Return what births say; one that is gone meanwhile is missing."""
