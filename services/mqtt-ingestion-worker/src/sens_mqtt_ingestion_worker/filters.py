"""Topic filters: which are valid, which overlap, and which a session may have had before (MQTT 5.0, sections 4.7 and 4.8.2)."""

import itertools
import re
from collections.abc import Iterable
from typing import Final

from sens_common.topics import NATIVE_PATTERN

_MAX_TOPIC_BYTES: Final = 65_535  # MQTT 5.0, section 1.5.4
_SHARE: Final = "$share"
_USUAL_GROUP: Final = "sens"  # in the documentation and the chart


def checked(text: str) -> str:
    """Return a topic filter that is valid.

    Raises:
        ValueError: It is not; the text says why.
    """
    levels = text.split("/")
    if levels[0] == _SHARE:
        group, *levels = levels[1:] or [""]
        if not group or not levels or re.search(r"[+#]", group):
            raise ValueError("a shared subscription is $share/GROUP/FILTER")
    if not any(levels) and len(levels) == 1:
        raise ValueError("a topic filter may not be empty")
    if "\0" in text or len(text.encode()) > _MAX_TOPIC_BYTES:
        raise ValueError("a topic filter may not hold NUL nor more than 65,535 bytes")
    for index, level in enumerate(levels):
        if ("#" in level and (level != "#" or index != len(levels) - 1)) or ("+" in level and level != "+"):
            raise ValueError("in a topic filter, + stands for a whole level, # for all remaining ones at the end")
    return text


def apart(filters: list[str]) -> list[str]:
    """Return topic filters of which no two match the same topic: a session gets a message once for each filter that matches.

    Raises:
        ValueError: Two of them do; the text names both.
    """
    for first, second in itertools.combinations(filters, 2):
        if overlap(first, second):
            raise ValueError(
                f"{first} and {second} match the same topics, so that messages would be received twice; take one of them out"
            )
    return filters


def overlap(first: str, second: str) -> bool:
    """Tell whether there is a topic that both filters match.

    >>> overlap("sens/v1/+/+/telemetry", "$share/sens/sens/#"), overlap("a/+", "a/b/c")
    (True, False)
    """
    levels, others = _levels(first), _levels(second)
    wild = {"+", "#"}
    # A wildcard at the beginning does not match topics of the broker itself (MQTT 5.0, section 4.7.2).
    if (levels[0] in wild and others[0].startswith("$")) or (others[0] in wild and levels[0].startswith("$")):
        return False
    for level, other in itertools.zip_longest(levels, others):
        if "#" in {level, other}:  # matches the level above it as well
            return True
        if level is None or other is None or (level != other and "+" not in {level, other}):
            return False
    return True


def earlier_forms(filters: Iterable[str]) -> frozenset[str]:
    """Return what a session may be subscribed to of which nothing is known: the same filters shared or not, and the usual ones."""
    plain = {"/".join(_levels(each)) for each in [*filters, NATIVE_PATTERN.filter]}
    return frozenset(plain | {f"{_SHARE}/{_USUAL_GROUP}/{each}" for each in plain})


def _levels(text: str) -> list[str]:
    levels = text.split("/")
    return levels[2:] if levels[0] == _SHARE else levels
