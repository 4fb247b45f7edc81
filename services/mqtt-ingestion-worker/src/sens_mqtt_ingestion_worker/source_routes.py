"""Sources of tenants on the platform's own broker: what they subscribe to, and whose a message is.

A message of a source gets the topic `sens_common.topics.SOURCES` for it, so that all that follows knows its tenant and its source.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.health import Problems
from sens_common.tenant_limits import MqttSource, TenantLimits
from sens_common.topic_filters import SHARE, checked, matches, overlap
from sens_common.topics import NATIVE_PATTERN, SOURCES

_MAX_TOPICS: Final = 100_000
_KEPT_FORMER: Final = 100
MAX_SOURCES: Final = 1000
"""Sources on one broker that a worker subscribes to."""

_NATIVE: Final = NATIVE_PATTERN.root


class _Route(NamedTuple):
    tenant: str
    source: str
    topic_filter: str


class SourceRoutes:
    """The sources that hold now.

    Attributes:
        problems: Sources that are not subscribed to, and why.
    """

    def __init__(self, own_filters: Sequence[str]) -> None:
        """Take the filters of the settings, which are not sources'."""
        self._own = own_filters
        levels = own_filters[0].split("/") if own_filters else [""]
        self._share = f"{SHARE}/{levels[1]}/" if levels[0] == SHARE else ""
        self._routes: list[_Route] = []
        self._former: deque[_Route] = deque(maxlen=_KEPT_FORMER)
        self._topics: dict[str, str] = {}
        self._refused: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self.problems = Problems("sources")

    @property
    def filters(self) -> frozenset[str]:
        """What the session subscribes to for them; shared like the filters of the settings, if these are."""
        return frozenset(f"{self._share}{route.topic_filter}" for route in self._routes)

    def follow(self, limits: Mapping[str, TenantLimits]) -> None:
        """Let the sources of these tenants hold."""
        self.set({tenant: each.mqtt_sources for tenant, each in limits.items()})

    def set(self, sources: Mapping[str, Collection[MqttSource]]) -> None:
        """Let these sources hold, by tenant. Those that held before come first: nobody's new source takes the topics of another one."""
        wanted = {
            _Route(tenant, each.name, each.topic_filter): each
            for tenant, of_tenant in sources.items()
            for each in of_tenant
        }
        routes = [route for route in self._routes if route in wanted and wanted[route].broker is None]
        refused: dict[str, str] = {}
        for tenant, source in [(route.tenant, wanted[route]) for route in sorted(wanted.keys() - set(routes))]:
            why = self._refusal(source, routes)
            if why is None:
                routes.append(_Route(tenant, source.name, source.topic_filter))
            else:
                refused[f"{tenant}/{source.name}"] = why
        self._tell(refused)
        before = self.filters
        if routes != self._routes:
            gone = [route for route in self._routes if route not in routes]
            for route in gone:
                self.problems.clear(_at_broker(route))
            self._former.extendleft(gone)
            self._routes = routes
            self._topics.clear()
        if self.filters != before:
            self._changed.set()

    def _tell(self, refused: Mapping[str, str]) -> None:
        for key in self._refused - refused.keys():
            self.problems.clear(key)
        for key, why in refused.items():
            self.problems.set(key, f"source {key} takes no messages", why)
        self._refused = frozenset(refused)

    async def changed(self) -> None:
        """Wait until the filters are others than when this was called last."""
        await self._changed.wait()
        self._changed.clear()

    def ask_again(self) -> None:
        """Let `changed` return once more."""
        self._changed.set()

    def note_answer(self, topic_filter: str, refusal: str | None) -> None:
        """Take note of what the broker says of a filter: why it refuses it, None when it does not."""
        for route in self._routes:
            if f"{self._share}{route.topic_filter}" == topic_filter:
                if refusal is None:
                    self.problems.clear(_at_broker(route))
                else:
                    self.problems.set(
                        _at_broker(route), f"source {route.tenant}/{route.source} takes no messages", refusal
                    )

    def _refusal(self, source: MqttSource, routes: Sequence[_Route]) -> str | None:
        """Return why a source can't be subscribed to beside the settings' filters and those of others, None where it can."""
        if source.broker is not None:
            return "a source with a broker of its own is not supported by this version"
        if len(routes) >= MAX_SOURCES:
            return f"there are more than {MAX_SOURCES:,} sources"
        try:
            checked(source.topic_filter)
        except ValueError as error:
            return str(error)
        if source.topic_filter.startswith(f"{SHARE}/"):
            return "its topic filter is a shared subscription; whether it is shared follows from the settings"
        others = [(each, "the settings") for each in self._own] + [(f"{SOURCES.root}#", "the platform")]
        others += [(route.topic_filter, f"source {route.tenant}/{route.source}") for route in routes]
        for other, whose in others:
            if overlap(source.topic_filter, other):
                return f"{source.topic_filter} and {other} of {whose} match the same topics"
        return None

    def topic(self, published: str) -> str:
        """Return the topic under which a message goes on: with its source's tenant and name, or the same where no source has it.

        Messages of a source that is gone may still come, because the session had them: they are its tenant's all the same.
        """
        if published.startswith(_NATIVE) or not (self._routes or self._former):
            return published
        found = self._topics.get(published)
        if found is None:
            found = next(
                (
                    SOURCES.topic(route.tenant, route.source, published)
                    for route in (*self._routes, *self._former)
                    if matches(route.topic_filter, published)
                ),
                published,
            )
            if len(self._topics) >= _MAX_TOPICS:
                self._topics.clear()
            self._topics[published] = found
        return found


def _at_broker(route: _Route) -> str:
    """Return the key of what the broker says of a source."""
    return f"{route.tenant}/{route.source} at the broker"
