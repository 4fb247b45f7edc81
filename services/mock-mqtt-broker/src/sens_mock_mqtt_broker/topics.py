"""Topics, filters and subscriptions (MQTT 5.0, sections 4.7 and 4.8.2)."""

from collections.abc import Hashable, Iterator
from typing import Final, NamedTuple

from sens_mock_mqtt_broker.wire import PacketError, ReasonCode, decode

MOST_LEVELS: Final = 200
"""Levels of a topic or filter, at most; no broker needs more, and each costs work."""

_MOST_KNOWN: Final = 100_000
"""Topics whose subscribers are remembered; beyond it they are looked up again."""


def topic_name(field: bytes) -> str:
    """Return a topic to publish to.

    Args:
        field: The topic as on the wire, its length before it.

    Raises:
        PacketError: It is none (section 4.7).
    """
    topic = decode(field[2:])
    if not topic or "+" in topic or "#" in topic or topic.count("/") >= MOST_LEVELS:
        raise PacketError(
            ReasonCode.TOPIC_NAME_INVALID, f"a topic is empty, holds a wildcard, or has more than {MOST_LEVELS} levels"
        )
    return topic


def is_filter(text: str) -> bool:
    """Tell whether the text is a topic filter (section 4.7.1), without a share's name."""
    levels = text.split("/")
    if not text or len(levels) > MOST_LEVELS:
        return False
    return all(
        level == "+" or (level == "#" and index == len(levels) - 1) or not ("+" in level or "#" in level)
        for index, level in enumerate(levels)
    )


class TopicFilter(NamedTuple):
    """A topic filter.

    Attributes:
        share: Name of the share whose members take turns, None for a subscription of one's own.
        levels: What is matched.
    """

    share: str | None
    levels: tuple[str, ...]


def parse_filter(text: str) -> TopicFilter | None:
    """Return a topic filter's parts, None when it is not valid (sections 4.7.1 and 4.8.2)."""
    share: str | None = None
    inner = text
    if text.startswith("$share/"):
        share, _, inner = text.removeprefix("$share/").partition("/")
        if not share or "+" in share or "#" in share:
            return None
    return TopicFilter(share, tuple(inner.split("/"))) if is_filter(inner) else None


def matches(levels: tuple[str, ...], topic: str) -> bool:
    """Tell whether a filter matches a topic."""
    parts = topic.split("/")
    if topic.startswith("$") and levels[0] in {"+", "#"}:
        return False
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(parts) or level not in {"+", parts[index]}:
            return False
    return len(parts) == len(levels)


class Subscription(NamedTuple):
    """How a session wants its messages (section 3.8.3.1)."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False


class Share[S: Hashable]:
    """Sessions that take turns."""

    def __init__(self) -> None:
        self.members: dict[S, Subscription] = {}
        self._turn = 0

    def in_turn(self) -> Iterator[tuple[S, Subscription]]:
        """Yield each member once, beginning with the one whose turn it is."""
        members = tuple(self.members.items())
        self._turn = turn = (self._turn + 1) % len(members)
        for index in range(len(members)):
            yield members[turn - index]


class Receivers[S: Hashable](NamedTuple):
    """The receivers of a topic's messages."""

    sessions: tuple[tuple[S, Subscription], ...]
    shares: tuple[Share[S], ...]


class _Node[S: Hashable]:
    __slots__ = ("children", "sessions", "shares")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S]] = {}
        self.sessions: dict[S, Subscription] = {}
        self.shares: dict[str, Share[S]] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.children or self.sessions or self.shares)


class SubscriptionTree[S: Hashable]:
    """The subscriptions of all sessions, as a tree of levels."""

    def __init__(self) -> None:
        self._root: _Node[S] = _Node()
        self._known: dict[bytes, Receivers[S]] = {}

    def add(self, topic_filter: TopicFilter, session: S, subscription: Subscription) -> None:
        """Subscribe a session, or change its subscription."""
        self._known.clear()
        node = self._root
        for level in topic_filter.levels:
            node = node.children.setdefault(level, _Node())
        if topic_filter.share is None:
            node.sessions[session] = subscription
        else:
            node.shares.setdefault(topic_filter.share, Share()).members[session] = subscription

    def remove(self, topic_filter: TopicFilter, session: S) -> None:
        """Take back a session's subscription."""
        self._known.clear()
        path = [self._root]
        for level in topic_filter.levels:
            path.append(path[-1].children[level])
        node = path[-1]
        if topic_filter.share is None:
            del node.sessions[session]
        else:
            share = node.shares[topic_filter.share]
            del share.members[session]
            if not share.members:
                del node.shares[topic_filter.share]
        for parent, level, child in zip(path[-2::-1], topic_filter.levels[::-1], path[:0:-1], strict=True):
            if child.is_empty:
                del parent.children[level]

    def receivers(self, field: bytes) -> Receivers[S]:
        """Return the receivers of a topic's messages; the topic is in its form on the wire, its length before it.

        Raises:
            PacketError: It is no topic to publish to.
        """
        known = self._known.get(field)
        if known is None:
            known = self._find(topic_name(field))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[field] = known
        return known

    def _find(self, topic: str) -> Receivers[S]:
        levels = topic.split("/")
        found: list[_Node[S]] = []
        nodes = [self._root]
        for index, level in enumerate(levels):
            wildcards = index > 0 or not topic.startswith("$")
            if wildcards:
                found.extend(node.children["#"] for node in nodes if "#" in node.children)
            names = (level, "+") if wildcards else (level,)
            nodes = [node.children[name] for node in nodes for name in names if name in node.children]
        for node in nodes:
            found.append(node)
            if "#" in node.children:  # "a/#" matches "a" too
                found.append(node.children["#"])
        sessions: dict[S, Subscription] = {}
        for node in found:
            for session, subscription in node.sessions.items():
                # One message for filters that overlap, as Mosquitto does it, with the highest quality of service.
                if session not in sessions or sessions[session].qos < subscription.qos:
                    sessions[session] = subscription
        return Receivers(tuple(sessions.items()), tuple(share for node in found for share in node.shares.values()))
