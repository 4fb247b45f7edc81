"""What a topic says: whose a message is, which device sent it, and which format its payload has.

This is the one place that knows. A `Grammar` is made of patterns; a topic is given to `Grammar.route`, which answers with a `Route`. Whoever
has to know a message's tenant, for its rate, its counts or its dead letter, asks the grammar too (`Grammar.tenant_of`), so that all of them
agree.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from sens_common.names import DEVICE_RULE, TENANT_RULE, UNROUTED, device_name, is_tenant_name, shown

NATIVE_FORMAT: Final = "native"
"""Name of the payload format of native topics."""
SOURCE_FORMAT: Final = "source"
"""What stands for the format of a message that a source brought."""

_TENANT: Final = "{tenant}"
_DEVICE: Final = "{device}"
_SOURCE_END: Final = re.compile(r"[/?]")
_QUICK_TENANTS: Final = 4
"""The messages of so many tenants are counted in one go each, which costs a quarter of looking at every topic."""


class Route(NamedTuple):
    """Where a message goes, or why it goes nowhere.

    Attributes:
        tenant: Whose the message is, `names.UNROUTED` where the topic names no valid tenant. A refused topic may name one: then the mistake
            is that tenant's.
        device: Canonical name of the device that sent it (`names.device_name`), None where the payload says it, or where the topic is
            refused.
        format: Name of the payload's format, empty where the topic is refused.
        refusal: A sentence for people that says why the topic leads nowhere, None where it leads somewhere. Such a message is dead-lettered
            as `dead_letters.Reason.INVALID_TOPIC`.
        source: Name of the tenant's source that brought it, None for native topics.
    """

    tenant: str
    device: str | None
    format: str
    refusal: str | None = None
    source: str | None = None


def _not_a_tenant(name: str) -> str:
    return f"the topic names the tenant {shown(name)}, but a tenant's name has {TENANT_RULE}"


class Pattern:
    """One kind of topics, for example ``sens/v1/{tenant}/{device}/telemetry``.

    Attributes:
        template: The levels of the topic. ``{tenant}`` is a whole level, and others follow it; ``{device}`` is one too, or is missing where the
            payload names the devices. All other levels stand for themselves.
        format: Name of the payloads' format.
        root: What stands before the tenant, with its slash.
        filter: MQTT topic filter that matches all topics of this kind (MQTT 5.0, section 4.7).
    """

    def __init__(self, template: str, format_name: str) -> None:
        """Take the pattern.

        Raises:
            ValueError: There is no ``{tenant}`` or more than one, it is the last level, or there is more than one ``{device}``.
        """
        levels = template.split("/")
        if levels.count(_TENANT) != 1 or levels[-1] == _TENANT or levels.count(_DEVICE) > 1:
            raise ValueError(
                f"{shown(template)} can't be a pattern of topics: one level before the last one is {_TENANT}, and one at most is {_DEVICE}"
            )
        self.template = template
        self.format = format_name
        self.root = "".join(f"{level}/" for level in levels[: levels.index(_TENANT)])
        self.filter = "/".join("+" if level in {_TENANT, _DEVICE} else level for level in levels)
        groups = {_TENANT: "(?P<tenant>[^/]*)", _DEVICE: "(?P<device>[^/]*)"}
        self._expression = re.compile("/".join(groups.get(level, re.escape(level)) for level in levels))
        self._names_device = _DEVICE in levels

    def topic(self, tenant: str, device: str = "") -> str:
        """Return the topic of a device; its names are not checked, which `Grammar.route` does."""
        return self.template.replace(_TENANT, tenant).replace(_DEVICE, device)

    def route(self, topic: str) -> Route | None:
        """Return where a topic leads, None where it is of another kind."""
        match = self._expression.fullmatch(topic)
        if match is None:
            return None
        tenant = match["tenant"]
        if not is_tenant_name(tenant):
            return Route(UNROUTED, None, "", _not_a_tenant(tenant))
        if not self._names_device:
            return Route(tenant, None, self.format)
        device = device_name(match["device"])
        if device is None:
            detail = f"the topic names the device {shown(match['device'])}, but a device's name has {DEVICE_RULE}; or it is an EUI"
            return Route(tenant, None, "", detail)
        return Route(tenant, device, self.format)


class SourceTopics:
    """The topics of messages that a source brought.

    ``ingest/v1/{tenant}/{source}``, then a slash and the topic as it was published; or, of a message that came by HTTP, a question mark and the
    query of its address, if it had one. Nobody publishes them: who takes such a message writes them.

    Attributes:
        template: For people.
        format: `SOURCE_FORMAT`: the source says which format the payload has.
        root: What stands before the tenant, with its slash.
    """

    template: Final = "ingest/v1/{tenant}/{source}"
    format: Final = SOURCE_FORMAT
    root: Final = "ingest/v1/"

    def topic(self, tenant: str, source: str, published: str | None = None, query: str = "") -> str:
        """Return the topic of a message.

        Args:
            tenant: Whose the source is.
            source: Its name.
            published: The MQTT topic, None for HTTP.
            query: Of the HTTP request's address, without its question mark.

        >>> SOURCES.topic("demo", "house", "tele/kitchen/SENSOR"), SOURCES.topic("demo", "push", query="event=up")
        ('ingest/v1/demo/house/tele/kitchen/SENSOR', 'ingest/v1/demo/push?event=up')
        """
        end = f"/{published}" if published is not None else f"?{query}" if query else ""
        return f"{self.root}{tenant}/{source}{end}"

    def route(self, topic: str) -> Route | None:
        """Return where a topic leads, None where it is of another kind."""
        if not topic.startswith(self.root):
            return None
        tenant, slash, rest = topic[len(self.root) :].partition("/")
        if not slash:
            return None
        if not is_tenant_name(tenant):
            return Route(UNROUTED, None, "", _not_a_tenant(tenant))
        source = _SOURCE_END.split(rest, maxsplit=1)[0]
        if not is_tenant_name(source):
            detail = f"the topic names the source {shown(source)}, but a source's name has {TENANT_RULE}"
            return Route(tenant, None, "", detail)
        return Route(tenant, None, self.format, source=source)

    def message_address(self, topic: str) -> tuple[str, str]:
        """Return the MQTT topic and the HTTP query of a message whose topic `route` leads to a source; each empty where it has none.

        >>> SOURCES.message_address("ingest/v1/demo/house/tele/kitchen/SENSOR"), SOURCES.message_address("ingest/v1/demo/push?event=up")
        (('tele/kitchen/SENSOR', ''), ('', 'event=up'))
        """
        levels = topic.split("/", 4)
        if "?" in levels[3]:  # a slash behind it is the query's
            return "", topic.partition("?")[2]
        return levels[4] if len(levels) > 4 else "", ""  # noqa: PLR2004 - root, version, tenant and source precede it


class Grammar:
    """All topics that the platform takes. Patterns are tried in their order.

    >>> grammar = Grammar(
    ...     [Pattern("sens/v1/{tenant}/{device}/telemetry", "native"), Pattern("sens/v1/{tenant}/uplinks", "json")]
    ... )
    >>> grammar.route("sens/v1/demo/00-04-A3-0B-00-1C-05-30/telemetry")
    Route(tenant='demo', device='0004a30b001c0530', format='native', refusal=None, source=None)
    >>> grammar.route("sens/v1/demo/uplinks")
    Route(tenant='demo', device=None, format='json', refusal=None, source=None)
    """

    def __init__(self, patterns: Iterable[Pattern | SourceTopics]) -> None:
        """Take the patterns.

        Raises:
            ValueError: There are none, or a topic could have two tenants, because one pattern's root begins like that of another one.
        """
        self._patterns = list(patterns)
        self._roots = tuple(dict.fromkeys(pattern.root for pattern in self._patterns))
        if not self._roots:
            raise ValueError("a grammar needs a pattern")
        clashes = [
            (one, other) for one in self._roots for other in self._roots if one != other and other.startswith(one)
        ]
        if clashes:
            raise ValueError(f"a topic could have two tenants, below {clashes[0][0]!r} and below {clashes[0][1]!r}")
        self._tenant_below = functools.lru_cache(1024)(self._find_tenant)

    @property
    def formats(self) -> frozenset[str]:
        """Names of the formats to which topics can lead."""
        return frozenset(pattern.format for pattern in self._patterns)

    def route(self, topic: str) -> Route:
        """Return where a topic leads."""
        for pattern in self._patterns:
            route = pattern.route(topic)
            if route is not None:
                return route
        forms = [pattern.template for pattern in self._patterns if isinstance(pattern, Pattern)]
        rule = f"not of the form {forms[0]}" if len(forms) == 1 else f"of none of the forms {', '.join(forms)}"
        return Route(self.tenant_of(topic), None, "", f"the topic is {rule}")

    def tenant_of(self, topic: str) -> str:
        """Return the tenant that a topic names, whatever follows it; `names.UNROUTED` where it names none. The same as in its `route`.

        >>> NATIVE.tenant_of("sens/v1/demo/Küche/telemetry"), NATIVE.tenant_of("tele/kitchen/SENSOR")
        ('demo', '~')
        """
        return self._tenant_below(self.beginning(topic))

    def beginning(self, topic: str) -> str:
        """Return a topic up to the slash after its tenant, empty where no tenant can stand.

        >>> NATIVE.beginning("sens/v1/demo/kitchen/telemetry"), NATIVE.beginning("sens/v1/demo")
        ('sens/v1/demo/', '')
        """
        for root in self._roots:
            if topic.startswith(root):
                return topic[: topic.find("/", len(root)) + 1]
        return ""

    def beginnings_of(self, tenant: str) -> list[str]:
        """Return what the topics of a tenant begin with."""
        return [f"{root}{tenant}/" for root in self._roots]

    def count_by_tenant(self, topics: list[str]) -> dict[str, int]:
        """Return how many of the topics each tenant has, `names.UNROUTED` included."""
        counts: Counter[str] = Counter()
        for _ in range(_QUICK_TENANTS):
            beginning = self.beginning(topics[0]) if topics else ""
            if not beginning:
                break
            others = [topic for topic in topics if not topic.startswith(beginning)]
            counts[self._tenant_below(beginning)] += len(topics) - len(others)
            topics = others
        for beginning, count in Counter(map(self.beginning, topics)).items():
            counts[self._tenant_below(beginning)] += count
        return dict(counts)

    def _find_tenant(self, beginning: str) -> str:
        name = beginning[:-1].rpartition("/")[2]
        return name if is_tenant_name(name) else UNROUTED


NATIVE_PATTERN: Final = Pattern("sens/v1/{tenant}/{device}/telemetry", NATIVE_FORMAT)
SOURCES: Final = SourceTopics()
NATIVE: Final = Grammar([NATIVE_PATTERN])
"""The native topics alone: what devices may publish to."""
TOPICS: Final = Grammar([NATIVE_PATTERN, SOURCES])
"""The topics of messages in the stream."""
