"""Filters of dead letters, and the conditions in SQL that they stand for."""

import re
from datetime import datetime
from typing import NamedTuple, Self


class Filter(NamedTuple):
    """Selects dead letters: those that pass all of its members that are given.

    Attributes:
        reason: Those with this reason.
        device: Those of this device (canonical name).
        topic: Those whose topic is this one, or is matched by this filter of MQTT (with ``+`` or ``#``).
        since: Those that were dead-lettered at this time or later.
        before: Those that were dead-lettered before this time.
    """

    reason: str | None = None
    device: str | None = None
    topic: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    @property
    def is_everything(self) -> bool:
        """Whether it selects all."""
        return all(member is None for member in self)


class Where:
    """A relation and conditions on it, as SQL."""

    def __init__(self, relation: str) -> None:
        self.relation = relation
        self._conditions = ["true"]
        self.arguments: list[object] = []

    def add(self, condition: str, *values: object) -> None:
        """Add a condition with a value for each ``{}``; no effect where one is None."""
        if None in values:
            return
        first = len(self.arguments) + 1
        self._conditions.append(condition.format(*(f"${first + index}" for index in range(len(values)))))
        self.arguments += values

    def matching(self, wanted: Filter) -> Self:
        """Add the conditions of a filter; return the same object."""
        self.add("reason = {}", wanted.reason)
        self.add("device = {}", wanted.device)
        self.add("dead_lettered_at >= {}", wanted.since)
        self.add("dead_lettered_at < {}", wanted.before)
        if wanted.topic is None:
            return self
        if "+" in wanted.topic or "#" in wanted.topic:
            self.add("topic ~ {}", topic_pattern(wanted.topic))
        else:
            self.add("topic = {}", wanted.topic)
        return self

    def __str__(self) -> str:
        return f"{self.relation} WHERE {' AND '.join(self._conditions)}"


def topic_pattern(topic_filter: str) -> str:
    """Return a topic filter as a regular expression of PostgreSQL (MQTT 5.0, section 4.7).

    A wildcard at the beginning matches no topic that begins with ``$`` (section 4.7.2).

    >>> topic_pattern("sens/v1/+/#")
    '^sens/v1/[^/]*(/.*)?$'
    """
    start = r"^(?!\$)" if topic_filter.startswith(("+", "#")) else "^"
    levels = [
        "[^/]*" if level == "+" else "#" if level == "#" else re.sub(r"([^\w ])", r"\\\1", level)
        for level in topic_filter.split("/")
    ]
    if levels[-1] == "#":
        return start + ("/".join(levels[:-1]) + "(/.*)?" if levels[:-1] else ".*") + "$"
    return f"{start}{'/'.join(levels)}$"
