"""Names that are put together: ``{model}[-{channel}]-{id}``.

What stands in braces is a variable of the topic or a member of the message, what stands in brackets is left out when one of those in it
is missing.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(r"\{([^{}\[\]]{1,200})\}|([\[\]])|([^{}\[\]]+)")


class NamePart(NamedTuple):
    """Text and references that are there together.

    Attributes:
        tokens: Texts, and names of what stands in braces (`is_reference`).
        is_optional: It stood in brackets.
    """

    tokens: tuple[tuple[bool, str], ...]
    is_optional: bool


class NameTemplate(NamedTuple):
    """A template that was read."""

    parts: tuple[NamePart, ...]

    @property
    def references(self) -> tuple[str, ...]:
        """What stands in braces, in order."""
        return tuple(text for part in self.parts for is_reference, text in part.tokens if is_reference)

    def filled(self, value_of: Callable[[str], str | None]) -> str:
        """Return the name.

        Args:
            value_of: Returns what a reference stands for, None where it is missing.

        Raises:
            KeyError: What must be there is missing; its argument says what.
        """
        return "".join(_filled(part, value_of) for part in self.parts)


def name_template(text: str) -> NameTemplate:
    """Read a template.

    Raises:
        ValueError: It is not one; its text says why.
    """
    parts: list[NamePart] = []
    tokens: list[tuple[bool, str]] = []
    position, is_optional = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (match[2] == "[" and is_optional) or (match[2] == "]" and not is_optional):
            raise ValueError(
                f"{text!r} can't be read from character {position + 1} on: it is text, {{name}} or [optional {{name}}]"
            )
        position = match.end()
        if match[2]:
            parts.append(NamePart(tuple(tokens), is_optional))
            tokens, is_optional = [], match[2] == "["
        else:
            tokens.append((match[1] is not None, match[1] or match[3]))
    if is_optional:
        raise ValueError(f"{text!r} has a [ without its ]")
    parts.append(NamePart(tuple(tokens), is_optional=False))
    return NameTemplate(tuple(part for part in parts if part.tokens))


def _filled(part: NamePart, value_of: Callable[[str], str | None]) -> str:
    texts = []
    for is_reference, text in part.tokens:
        value = value_of(text) if is_reference else text
        if value is None:
            if part.is_optional:
                return ""
            raise KeyError(text)
        texts.append(value)
    return "".join(texts)
