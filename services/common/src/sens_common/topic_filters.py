"""MQTT topic filters: which are valid, which topics one matches, and which overlap (MQTT 5.0, sections 4.7 and 4.8.2)."""

import itertools
import re
from typing import Final

SHARE: Final = "$share"
_MAX_TOPIC_BYTES: Final = 65_535  # MQTT 5.0, section 1.5.4


def checked(text: str) -> str:
    """Return a topic filter that is valid.

    Raises:
        ValueError: It is not; the text says why.
    """
    levels = text.split("/")
    if levels[0] == SHARE:
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


def overlap(first: str, second: str) -> bool:
    """Tell whether there is a topic that both filters match.

    >>> overlap("sens/v1/+/+/telemetry", "$share/sens/sens/#"), overlap("a/+", "a/b/c")
    (True, False)
    """
    levels, others = levels_of(first), levels_of(second)
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


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a filter matches a topic.

    >>> matches("tele/+/SENSOR", "tele/kitchen/SENSOR"), matches("$share/sens/tele/#", "tele"), matches("#", "$SYS/uptime")
    (True, True, False)
    """
    levels, names = levels_of(topic_filter), topic.split("/")
    if levels[0] in {"+", "#"} and topic.startswith("$"):
        return False
    for level, name in itertools.zip_longest(levels, names):
        if level == "#":
            return True
        if level is None or name is None or level not in {"+", name}:
            return False
    return True


def levels_of(topic_filter: str) -> list[str]:
    """Return the levels of a filter, without those of a shared subscription.

    >>> levels_of("$share/sens/a/+")
    ['a', '+']
    """
    levels = topic_filter.split("/")
    return levels[2:] if levels[0] == SHARE else levels
