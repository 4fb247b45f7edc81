"""What births say of the metrics that later data name by number alone.

Source: Eclipse Sparkplug 3.0.0, section 6.4.6 "Metric" (names, aliases, datatypes) and 5.4 to 5.6 (births, deaths, rebirths).

An edge node or a device announces its metrics in a birth (NBIRTH, DBIRTH), with name, alias and datatype. Its data (NDATA, DDATA) may have
the alias alone. An edge node's birth begins its session again: births of its devices from before are void, for their aliases may be others now.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

BD_SEQUENCE: Final = "bdSeq"


class Publisher(NamedTuple):
    """Who has metrics: an edge node, or a device of one.

    Attributes:
        group: Its group.
        edge_node: The edge node, unique in its group.
        device: Of the edge node; empty for the edge node itself.
    """

    group: str
    edge_node: str
    device: str


class DefinedMetric(NamedTuple):
    """A metric as its birth defines it; `datatype` is of Sparkplug's enumeration."""

    name: str
    datatype: int


class Birth(Struct, frozen=True, gc=False):
    """A birth of an edge node or a device. It can be stored: all of it are plain values.

    Attributes:
        publisher: Whose.
        born_at: Milliseconds since the epoch, by the edge node's clock; None where it tells none.
        bd_seq: Number of the session; the edge node's death has the same. None in births of devices.
        metrics: By their aliases; empty where it uses none.
        datatypes: By the names of all metrics.
    """

    publisher: Publisher
    born_at: int | None
    bd_seq: int | None
    metrics: Mapping[int, DefinedMetric]
    datatypes: Mapping[str, int]


class Death(NamedTuple):
    """The end of a publisher's session: an edge node or a device has said, or the broker for it, that nothing more comes.

    Attributes:
        publisher: Whose.
        bd_seq: Of edge nodes: the same as in the birth that it ends; None where it tells none, and of devices.
    """

    publisher: Publisher
    bd_seq: int | None


class Births(Protocol):
    """The births that are known at one message: those that precede it in the stream, whenever it is read or read again.

    Whoever implements this keeps to what `KnownBirths` does with the birth of an edge node.
    """

    def of(self, publisher: Publisher) -> Birth | None:
        """Return the publisher's last birth of the session of its edge node, None where none has come."""


class OneBirth(NamedTuple):
    """The birth that explains one message, as `Births`."""

    birth: Birth | None

    def of(self, _publisher: Publisher) -> Birth | None:
        """See `Births.of`."""
        return self.birth


class KnownBirths:
    """Births in memory."""

    def __init__(self) -> None:
        """Begin with none."""
        self._births: dict[tuple[str, str], dict[str, Birth]] = {}

    def learn(self, birth: Birth) -> None:
        """Take a birth in. That of an edge node makes those of its devices void."""
        group, edge_node, device = birth.publisher
        if not device:
            self._births[group, edge_node] = {device: birth}
        else:
            self._births.setdefault((group, edge_node), {})[device] = birth

    def of(self, publisher: Publisher) -> Birth | None:
        """See `Births.of`."""
        return self._births.get(publisher[:2], {}).get(publisher.device)


class _NoBirths:
    def of(self, _publisher: Publisher) -> None:
        return None


NO_BIRTHS: Final[Births] = _NoBirths()
"""None is known: what names its metrics can be read."""
