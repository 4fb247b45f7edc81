"""Sources of tenants on one broker: what they subscribe to, whose a message is, and how each source does.

A message of a source gets the topic `sens_common.topics.SOURCES` for it, so that all that follows knows its tenant and its source.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sens_common.health import Problems
from sens_common.source_states import Reason, SourceState, Status, failed, shortened
from sens_common.tenant_limits import MqttSource, TenantLimits
from sens_common.topic_filters import SHARE, checked, matches, overlap
from sens_common.topics import NATIVE_PATTERN, SOURCES
from sens_mqtt_ingestion_worker import metrics

_TOPIC_OVERHEAD: Final = 64
_KEPT_FORMER: Final = 100
MAX_SOURCES: Final = 1000
"""Sources on one broker that a worker subscribes to."""

_NATIVE: Final = NATIVE_PATTERN.root


class _Route(NamedTuple):
    tenant: str
    source: str
    topic_filter: str


class Failure(NamedTuple):
    """Why there is no connection: a word for programs, a sentence for people."""

    reason: Reason
    detail: str


class Answer(NamedTuple):
    """What a broker says of a topic filter (MQTT 5.0, section 3.9.3).

    Attributes:
        refusal: Why it refuses it, None where it grants it.
        at_most_once: Whether it grants QoS 0 only: then it keeps no message until that is acknowledged.
    """

    refusal: str | None = None
    at_most_once: bool = False


@dataclass(slots=True)
class _Traffic:
    """What came for one source; seconds since the epoch, 0 before the first message."""

    messages: int = 0
    last_message_at: float = 0.0


class SourceRoutes:
    """The sources that hold now on the platform's broker.

    Attributes:
        problems: Sources that are not subscribed to, and why.
    """

    _max_topic_characters = 16 << 20
    """Of the topics whose sources are remembered; a topic has up to 65,535."""

    def __init__(self, own_filters: Sequence[str], problems: Problems | None = None) -> None:
        """Take the filters of the settings, which are not sources'."""
        self._own = own_filters
        levels = own_filters[0].split("/") if own_filters else [""]
        self._share = f"{SHARE}/{levels[1]}/" if levels[0] == SHARE else ""
        self._routes: list[_Route] = []
        self._former: deque[_Route] = deque(maxlen=_KEPT_FORMER)
        self._topics: dict[str, tuple[str, _Traffic]] = {}
        self._topic_characters = 0
        self._traffic: dict[tuple[str, str], _Traffic] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._answers: dict[str, Answer] = {}  # by topic filter as it is subscribed to
        self._told: set[str] = set()
        self._changed = asyncio.Event()
        self.problems = problems if problems is not None else Problems("sources")

    @property
    def filters(self) -> frozenset[str]:
        """What the session subscribes to for them."""
        return frozenset(self._subscribed(route) for route in self._routes)

    def follow(self, limits: Mapping[str, TenantLimits]) -> None:
        """Let the sources of these tenants hold that are on the platform's broker."""
        self.set({tenant: [each for each in of.mqtt_sources if each.broker is None] for tenant, of in limits.items()})

    def set(self, sources: Mapping[str, Collection[MqttSource]]) -> None:
        """Let these sources hold, by tenant. Those that held before come first: nobody's new source takes the topics of another one."""
        wanted = {
            _Route(tenant, each.name, each.topic_filter): each
            for tenant, of_tenant in sources.items()
            for each in of_tenant
        }
        routes = [route for route in self._routes if route in wanted]
        refused: dict[tuple[str, str], str] = {}
        for tenant, source in [(route.tenant, wanted[route]) for route in sorted(wanted.keys() - set(routes))]:
            why = self._refusal(source, routes)
            if why is None:
                routes.append(_Route(tenant, source.name, source.topic_filter))
            else:
                refused[tenant, source.name] = why
        self._tell(refused)
        before = self.filters
        if routes != self._routes:
            self._former.extendleft([route for route in self._routes if route not in routes])
            self._routes = routes
            self._forget_topics()
            self._traffic = {name: self._traffic.get(name) or _Traffic() for name in (_name(route) for route in routes)}
            self._tell_answers()
        if self.filters != before:
            self._changed.set()

    def _tell(self, refused: Mapping[tuple[str, str], str]) -> None:
        for name in self._refused.keys() - refused.keys():
            self.problems.clear("/".join(name))
        for name, why in refused.items():
            self.problems.set("/".join(name), f"source {'/'.join(name)} takes no messages", why)
        self._refused = dict(refused)

    async def changed(self) -> None:
        """Wait until the filters are others than when this was called last."""
        await self._changed.wait()
        self._changed.clear()

    def ask_again(self) -> None:
        """Let `changed` return once more."""
        self._changed.set()

    def note_answer(self, topic_filter: str, answer: Answer) -> None:
        """Take note of what the broker says of a topic filter."""
        self._answers[topic_filter] = answer
        self._tell_answers()

    def _tell_answers(self) -> None:
        """Say which topic filters the broker refuses or serves worse than it is asked to."""
        whose = dict.fromkeys(self._own, "devices")
        whose |= {self._subscribed(route): f"source {route.tenant}/{route.source}" for route in self._routes}
        self._answers = {each: answer for each, answer in self._answers.items() if each in whose}
        wrong = {each: answer for each, answer in self._answers.items() if answer != Answer()}
        for topic_filter in self._told - wrong.keys():
            self.problems.clear(f"{topic_filter} at the broker")
        for topic_filter, answer in wrong.items():
            if answer.refusal is not None:
                told = f"{whose[topic_filter]} takes no messages", answer.refusal
            else:
                told = f"messages of {whose[topic_filter]} may be lost", _at_most_once(topic_filter)
            self.problems.set(f"{topic_filter} at the broker", *told)
        self._told = set(wrong)

    @property
    def refused(self) -> frozenset[str]:
        """Topic filters that the broker has refused."""
        return frozenset(each for each, answer in self._answers.items() if answer.refusal is not None)

    @property
    def at_most_once_count(self) -> int:
        """How many topic filters the broker grants QoS 0 only."""
        return sum(answer.at_most_once for answer in self._answers.values())

    def export_metrics(self, others: Callable[[], Iterable["SourceRoutes"]] = tuple) -> None:
        """Let the metrics look here whenever they are asked for, and at the sources on other brokers."""
        metrics.AT_MOST_ONCE.set_function(lambda: sum(each.at_most_once_count for each in (self, *others())))

    def _subscribed(self, route: _Route) -> str:
        """Return the topic filter as it is subscribed to: shared like the filters of the settings, if these are."""
        return f"{self._share}{route.topic_filter}"

    def _refusal(self, source: MqttSource, routes: Sequence[_Route]) -> str | None:
        """Return why a source can't be subscribed to beside the settings' filters and those of others, None where it can."""
        if len(routes) >= MAX_SOURCES:
            return f"there are more than {MAX_SOURCES:,} sources"
        try:
            checked(source.topic_filter)
        except ValueError as error:
            return str(error)
        if source.topic_filter.startswith(f"{SHARE}/"):
            return "its topic filter is a shared subscription; whether it is shared follows from the settings"
        others = [*self._taken, *((route.topic_filter, f"source {route.tenant}/{route.source}") for route in routes)]
        for other, whose in others:
            if overlap(source.topic_filter, other):
                return f"{source.topic_filter} and {other} of {whose} match the same topics"
        return None

    @property
    def _taken(self) -> list[tuple[str, str]]:
        """Filters that no source may overlap, and whose they are."""
        return [*((each, "the settings") for each in self._own), (f"{SOURCES.root}#", "the platform")]

    def topic(self, published: str) -> str:
        """Return the topic under which a message goes on: with its source's tenant and name, or the same where no source has it.

        Messages of a source that is gone may still come, because the session had them: they are its tenant's all the same.
        """
        if published.startswith(_NATIVE) or not (self._routes or self._former):
            return published
        return self._counted(published)

    def _counted(self, published: str) -> str:
        found = self._topics.get(published)
        if found is None:
            route = next(
                (each for each in (*self._routes, *self._former) if matches(each.topic_filter, published)), None
            )
            found = self._unmatched(published) if route is None else self._routed(route, published)
            characters = len(published) + _TOPIC_OVERHEAD
            if self._topic_characters + characters > self._max_topic_characters:
                self._forget_topics()
            self._topic_characters += characters
            self._topics[published] = found
        topic, traffic = found
        traffic.messages += 1
        traffic.last_message_at = time.time()
        return topic

    def _forget_topics(self) -> None:
        self._topics.clear()
        self._topic_characters = 0

    def _routed(self, route: _Route, published: str) -> tuple[str, _Traffic]:
        topic = SOURCES.topic(route.tenant, route.source, published)
        return topic, self._traffic.get(_name(route)) or _Traffic()

    def _unmatched(self, published: str) -> tuple[str, _Traffic]:
        return published, _Traffic()

    def states(
        self, connected_since: float | None, failure: Failure | None = None
    ) -> dict[str, dict[str, SourceState]]:
        """Return how each source does, by tenant and name.

        Args:
            connected_since: Seconds since the epoch, None without a connection.
            failure: Why there is none, where that is known.
        """
        states: dict[str, dict[str, SourceState]] = {}
        for (tenant, source), why in self._refused.items():
            states.setdefault(tenant, {})[source] = failed("not_subscribed", why)
        for route in self._routes:
            states.setdefault(route.tenant, {})[route.source] = self._state(route, connected_since, failure)
        return states

    def _state(self, route: _Route, connected_since: float | None, failure: Failure | None) -> SourceState:
        traffic = self._traffic[_name(route)]
        status, reason, detail = self._found(route, connected_since, failure)
        return SourceState(
            status,
            reason,
            shortened(detail),
            connected_since=None if connected_since is None else int(connected_since * 1e6),
            last_message_at=int(traffic.last_message_at * 1e6) or None,
            messages=traffic.messages,
        )

    def _found(
        self, route: _Route, connected_since: float | None, failure: Failure | None
    ) -> tuple[Status, Reason, str]:
        """Return how a source does, as a word, what is wrong, and that in a sentence."""
        if connected_since is None:
            return ("connecting", "", "") if failure is None else ("failed", *failure)
        topic_filter = self._subscribed(route)
        answer = self._answers.get(topic_filter, Answer())
        if answer.refusal is not None:
            return "failed", "subscription_refused", answer.refusal
        if answer.at_most_once:
            return "connected", "at_most_once", _at_most_once(topic_filter)
        return "connected", "", ""


class TenantRoutes(SourceRoutes):
    """The sources on a broker of their tenant's own: whatever comes from there is the tenant's, under whichever topic."""

    _max_topic_characters = 1 << 20

    def __init__(self, tenant: str, problems: Problems) -> None:
        super().__init__([], problems)
        self._tenant = tenant

    def topic(self, published: str) -> str:
        """Return the topic under which a message goes on: always one of the tenant's sources."""
        return self._counted(published)

    @property
    def _taken(self) -> list[tuple[str, str]]:
        return []

    def _unmatched(self, published: str) -> tuple[str, _Traffic]:
        """Give a message that nobody subscribed to, which a broker may send all the same, to the first source."""
        route = next(iter((*self._routes, *self._former)), None)
        return (
            super()._unmatched(SOURCES.topic(self._tenant, "-", published))
            if route is None
            else self._routed(route, published)
        )


def _name(route: _Route) -> tuple[str, str]:
    return route.tenant, route.source


def _at_most_once(topic_filter: str) -> str:
    return (
        f"the broker grants {topic_filter} QoS 0 only: it keeps nothing, so that messages are lost which come while there is no connection, or"
        " when one breaks"
    )
