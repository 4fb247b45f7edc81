"""The topics of Sparkplug B, and the names of its edge nodes and devices.

Source: Eclipse Sparkplug 3.0.0, section 4.1.
"""

import re
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.names import device_name, shown
from sens_payloads.formats.sparkplug_births import Publisher

_NAMESPACE: Final = "spBv1.0"
_STATE: Final = "STATE"
BIRTHS: Final = frozenset({"NBIRTH", "DBIRTH"})
DATA: Final = frozenset({"NDATA", "DDATA"})
DEATHS: Final = frozenset({"NDEATH", "DDEATH"})
COMMANDS: Final = frozenset({"NCMD", "DCMD"})
_KINDS: Final = BIRTHS | DATA | DEATHS | COMMANDS

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9_.-]", re.ASCII)
_LONGEST_DEVICE: Final = 63
_HASH_DIGITS: Final = 12
_LONGEST_REMEMBERED: Final = 512
"""Characters of names and topics that are remembered."""


class SparkplugTopic(NamedTuple):
    """What a topic says: the kind of message, who sends it, and the device's name."""

    kind: str
    publisher: Publisher
    device: str


def data_publisher(topic: str) -> Publisher | None:
    """Return whose data a message of a topic is, None where it is none.

    Raises:
        RejectedMessageError: The topic is not one of Sparkplug B.
    """
    found = topic_of(topic)
    return found.publisher if found is not None and found.kind in DATA else None


def data_topic(publisher: Publisher) -> str:
    """Return the topic of a publisher's data.

    >>> data_topic(Publisher("plant", "line1", "press7")), data_topic(Publisher("plant", "line1", ""))
    ('spBv1.0/plant/DDATA/line1/press7', 'spBv1.0/plant/NDATA/line1')
    """
    group, edge_node, device = publisher
    return "/".join(
        (_NAMESPACE, group, "DDATA", edge_node, device) if device else (_NAMESPACE, group, "NDATA", edge_node)
    )


def device_name_of(publisher: Publisher) -> str:
    """Return the device's name of an edge node or its device: ``group.edge_node`` or ``group.edge_node.device``.

    Sparkplug's names may have any characters but ``+``, ``/`` and ``#`` (section 4.1). Where one has others than letters, digits, ``_`` and
    ``-``, or all are longer than 63 characters, others are replaced by ``_`` and a part of the names' SHA-256 is added, so that two
    publishers never share a name.

    >>> device_name_of(Publisher("plant", "line1", "press7")), device_name_of(Publisher("Werk 1", "L", ""))
    ('plant.line1.press7', 'Werk_1.L-c7e46e512e97')
    """
    return _remembered_name(publisher) if sum(map(len, publisher)) <= _LONGEST_REMEMBERED else _name_of(publisher)


def _name_of(publisher: Publisher) -> str:
    parts = [part for part in publisher if part]
    joined = ".".join(parts)
    if len(joined) <= _LONGEST_DEVICE and all(map(_PLAIN.fullmatch, parts)) and device_name(joined) == joined:
        return joined
    digest = sha256("/".join(publisher).encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    replaced = _NOT_PLAIN.sub("_", joined).lstrip("._-") or "x"
    return f"{replaced[: _LONGEST_DEVICE - _HASH_DIGITS - 1]}-{digest}"


def topic_of(topic: str) -> SparkplugTopic | None:
    """Return what a topic says, None for the state of a host.

    Raises:
        RejectedMessageError: It is none of Sparkplug B.
    """
    return _remembered_topic(topic) if len(topic) <= _LONGEST_REMEMBERED else _read_topic(topic)


def _read_topic(topic: str) -> SparkplugTopic | None:
    levels = topic.split("/", 5)
    if levels[0] == _STATE or levels[:2] == [_NAMESPACE, _STATE]:
        return None
    if len(levels) in {4, 5} and levels[0] == _NAMESPACE and all(levels[1:]) and levels[2] in _KINDS:
        _, group, kind, edge_node, *rest = levels
        if bool(rest) == kind.startswith("D"):
            publisher = Publisher(group, edge_node, rest[0] if rest else "")
            return SparkplugTopic(kind, publisher, device_name_of(publisher))
    raise RejectedMessageError(
        Reason.INVALID_TOPIC,
        f"the topic {shown(topic)} is none of Sparkplug B, such as spBv1.0/<group>/NDATA/<edge node> or"
        " spBv1.0/<group>/DDATA/<edge node>/<device>",
    )


_remembered_name = lru_cache(maxsize=16_384)(_name_of)
_remembered_topic = lru_cache(maxsize=16_384)(_read_topic)
