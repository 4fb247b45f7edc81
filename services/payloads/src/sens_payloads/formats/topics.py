"""Topics as templates: ``zigbee2mqtt/{device...}/availability`` says what the levels of a topic mean.

``{name}`` is one level, ``{name...}`` one or more; ``+`` and ``#`` mean what they mean in an MQTT filter (MQTT 5.0, section 4.7.1).
"""

import re
from typing import Final, NamedTuple

_VARIABLE: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})(\.\.\.)?\}")
_MAX_LEVELS: Final = 32


class TopicTemplate(NamedTuple):
    """A template that was read.

    Attributes:
        pattern: Matches the topics; its groups are the variables.
        variables: Their names.
        filter: The narrowest MQTT filter that has all those topics.
    """

    pattern: re.Pattern[str]
    variables: frozenset[str]
    filter: str


def topic_template(text: str) -> TopicTemplate:
    """Read a template.

    Raises:
        ValueError: It is not one; its text says why.
    """
    levels = text.split("/")
    if len(levels) > _MAX_LEVELS:
        raise ValueError(f"a topic has at most {_MAX_LEVELS} levels")
    parts, narrowest = zip(*map(_level, levels), strict=True)
    if "#" in levels[:-1]:
        raise ValueError("# is the last level")
    if len([level for level in levels if level.endswith("...}")]) > 1:
        raise ValueError("one {name...} is allowed in a topic")
    variables = _VARIABLE.findall(text)
    names = frozenset(name for name, _ in variables)
    if len(names) < len(variables):
        raise ValueError("a name in braces is there twice")
    end = narrowest.index("#") + 1 if "#" in narrowest else len(narrowest)
    # A filter a/# has the topic a as well (MQTT 5.0, section 4.7.1.2).
    pattern = "/".join(parts[:-1]) + "(?:/.*)?" if levels[-1] == "#" and len(levels) > 1 else "/".join(parts)
    return TopicTemplate(re.compile(pattern, re.DOTALL), names, "/".join(narrowest[:end]))


def _level(level: str) -> tuple[str, str]:
    """Return a level as a regular expression, and as an MQTT filter."""
    match = _VARIABLE.fullmatch(level)
    if match is not None:
        name, several = match.groups()
        return (f"(?P<{name}>.+?)", "#") if several else (f"(?P<{name}>[^/]+)", "+")
    if level == "#":
        return ".*", "#"
    if level == "+":
        return "[^/]*", "+"
    if any(character in level for character in "{}+#"):
        raise ValueError(
            f"the level {level!r} is neither a text, nor {{name}}, {{name...}}, + or #; a name is of small letters, digits and _"
        )
    return re.escape(level), level
