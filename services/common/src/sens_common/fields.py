"""What nested values become: one flat mapping of metrics' names to values, within bounds.

- A nested object's members are metrics whose names are joined with ``.``, and so are an array's elements, by their positions:
  ``{"phase": [230.1, 229.8]}`` is ``phase.0`` and ``phase.1``.
- null is no value: it is left out.
- Nothing differs from what was sent: a number that a 64-bit float can't hold exactly when it is written as an integer, and two values with
  the same joined name are refused.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from math import hypot
from typing import Final, Literal

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import EXACT_BELOW, MAX_TEXT_CHARACTERS, Value, is_plain_text
from sens_common.names import shown

MAX_PAYLOAD_BYTES: Final = 262_144
MAX_NAME_CHARACTERS: Final = 200
MAX_NESTING: Final = 8
"""How many objects deep a metric may lie, the outermost included."""
MAX_METRICS: Final = 1000
"""Of one object."""
MAX_READINGS: Final = 1000
"""Readings of one message."""
MAX_VALUES: Final = 10_000
"""Values of one message."""
MAX_ELEMENTS: Final = 64
"""Elements of an array."""

type ArrayElements = Literal["plain", "any"]
"""What arrays may hold: numbers, booleans, texts and null alone; or objects and arrays as well."""

_MAX_REMEMBERED_NAMES: Final = 64
_POSITIONS: Final = tuple(map(str, range(MAX_ELEMENTS)))
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_LARGEST: Final = sys.float_info.max
_ABOVE: Final = -float(EXACT_BELOW)
_BELOW: Final = float(EXACT_BELOW)
_NUMBER_TYPES: Final = frozenset({float, int, bool})
_TYPE_WORDS: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    bytes: "bytes",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def flatten(members: Mapping[str, object], elements: ArrayElements = "any", prefix: str = "") -> dict[str, Value | int]:
    """Return an object's values by joined name, in its order; integers are smaller than `sens_common.formats.EXACT_BELOW`.

    It may be the object itself.

    Args:
        members: As parsed: numbers, booleans, texts, None, and dicts with text keys or lists of these.
        elements: What arrays may hold.
        prefix: What the names begin with.

    Raises:
        RejectedMessageError: A name or value can't be stored, two joined names are equal, or something is over its bound.
    """
    values: dict[str, Value | int] = {}
    if not prefix and are_usual_numbers(members):
        return members if type(members) is dict else dict(members)  # type: ignore[arg-type] # they are numbers
    if elements == "any" and _add_usual(values, members, prefix, 1) and len(values) <= MAX_METRICS:
        return values
    values = {}
    _add(values, members, prefix, 1, elements)
    return values


def usual_numbers(objects: Sequence[Mapping[str, object]]) -> bool:
    """Tell whether `are_usual_numbers` is true of every one of some objects, with few steps for each."""
    values = list(chain.from_iterable([members.values() for members in objects]))
    if not _NUMBER_TYPES.issuperset(map(type, values)):
        return False
    try:
        length = hypot(*values)  # type: ignore[arg-type] # they are numbers
    except OverflowError:  # an integer that no float can hold
        return False
    if not length < _BELOW / 2:  # no value is larger than that of all as a vector, rounding aside; a NaN is not less
        return False
    lengths = set(map(len, objects))
    if not 0 < min(lengths, default=1) <= max(lengths, default=1) <= _MAX_REMEMBERED_NAMES:
        return False
    return all(_is_usual_name(name) for name in set(chain.from_iterable(objects)))


def are_usual_numbers(members: Mapping[str, object]) -> bool:
    """Tell whether all values are numbers and booleans that can be stored as they are, and their names usual."""
    for value in members.values():
        kind = type(value)
        if kind is float or kind is int:
            if not _ABOVE < value < _BELOW:  # type: ignore[operator] # a number
                return False
        elif kind is not bool:
            return False
    return 0 < len(members) <= _MAX_REMEMBERED_NAMES and _usual_names("", tuple(members)) is not None


def check_name(name: str) -> None:
    """Look that a metric can have this name.

    Raises:
        RejectedMessageError: It can't.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise RejectedMessageError(
            Reason.INVALID_METRIC,
            f"the metric's name {shown(name)} has {len(name)} characters; 1 to {MAX_NAME_CHARACTERS} are allowed",
        )
    if not name.isprintable() and _CONTROL.search(name):
        raise RejectedMessageError(Reason.INVALID_METRIC, f"the metric's name {shown(name)} has a control character")


def checked_value(name: str, value: object) -> Value | int:
    """Return a single value as it is stored; an integer that is `EXACT_BELOW` or larger is a float.

    Args:
        name: Of the metric, for the text of an error.
        value: As parsed.

    Raises:
        RejectedMessageError: It can't be stored as it is.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        if -_LARGEST <= value <= _LARGEST:
            return value
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, f"{shown(name)} is {value}, which is not a number; leave out what has no value"
        )
    if isinstance(value, int):
        if -EXACT_BELOW < value < EXACT_BELOW:
            return value
        return _large_integer(name, value)
    if not isinstance(value, str):
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, f"{shown(name)} is {type_words(value)}, not a number, boolean or text"
        )
    if len(value) > MAX_TEXT_CHARACTERS:
        raise RejectedMessageError(
            Reason.TOO_LARGE,
            f"{shown(name)}: the text has {len(value)} characters; at most {MAX_TEXT_CHARACTERS} are allowed",
        )
    if "\0" in value:
        raise RejectedMessageError(Reason.UNSUPPORTED_VALUE, f"{shown(name)}: the text has a NUL character")
    return value


def type_words(value: object) -> str:
    """Return what a parsed value is, for people.

    >>> type_words([1]), type_words(None)
    ('an array', 'null')
    """
    return _TYPE_WORDS.get(type(value), type(value).__name__)


def _add_usual(values: dict[str, Value | int], members: Mapping[str, object], prefix: str, depth: int) -> bool:
    """Add what `_add` would; False leaves all to that, because something is unusual.

    Devices send the same names again and again, so these are joined and looked at once.
    """
    names = _usual_names(prefix, tuple(members)) if len(members) <= _MAX_REMEMBERED_NAMES else None
    if names is None or depth > MAX_NESTING + 1:
        return False
    for name, value in zip(names, members.values(), strict=False):
        kind = type(value)
        if kind is float or kind is int:
            is_usual = _ABOVE < value < _BELOW  # type: ignore[operator] # a number
        elif kind is str:
            is_usual = is_plain_text(value)  # type: ignore[arg-type] # a text
        elif value is None or (kind is not bool and _add_usual_nested(values, value, f"{name}.", depth)):
            continue
        else:
            is_usual = kind is bool
        if not is_usual or name in values:
            return False
        values[name] = value  # type: ignore[assignment] # one of the above
    return True


def _add_usual_nested(values: dict[str, Value | int], nested: object, prefix: str, depth: int) -> bool:
    if type(nested) is dict:
        return depth < MAX_NESTING and _add_usual(values, nested, prefix, depth + 1)
    if type(nested) is list and len(nested) <= MAX_ELEMENTS:
        return _add_usual(values, dict(zip(_POSITIONS, nested, strict=False)), prefix, depth + 1)
    return False


@lru_cache(maxsize=4096)
def _usual_names(prefix: str, keys: tuple[str, ...]) -> tuple[str, ...] | None:
    names = tuple([prefix + key for key in keys])
    return names if all(map(_is_usual_name, names)) else None


def _is_usual_name(name: str) -> bool:
    return name.isprintable() and 1 <= len(name) <= MAX_NAME_CHARACTERS


def _add(
    values: dict[str, Value | int], members: Mapping[str, object], prefix: str, depth: int, elements: ArrayElements
) -> None:
    for key, value in members.items():
        name = prefix + key
        if isinstance(value, (dict, list)):
            _add_nested(values, name, value, depth, elements)
        elif value is not None:
            if not (name.isprintable() and 1 <= len(name) <= MAX_NAME_CHARACTERS):
                check_name(name)
            if name in values:
                raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"two metrics have the joined name {shown(name)}")
            if len(values) == MAX_METRICS:
                raise RejectedMessageError(Reason.TOO_LARGE, f"one object has more than {MAX_METRICS} metrics")
            values[name] = checked_value(name, value)


def _add_nested(
    values: dict[str, Value | int],
    name: str,
    nested: dict[str, object] | list[object],
    depth: int,
    elements: ArrayElements,
) -> None:
    # The elements of the innermost object's arrays are values; they may hold nothing.
    if isinstance(nested, dict):
        if depth >= MAX_NESTING:
            raise RejectedMessageError(
                Reason.TOO_LARGE, f"{shown(name)} is an object more than {MAX_NESTING} levels deep"
            )
        _add(values, nested, f"{name}.", depth + 1, elements)
        return
    if depth > MAX_NESTING:
        raise RejectedMessageError(Reason.TOO_LARGE, f"{shown(name)} is an array more than {MAX_NESTING} levels deep")
    _add(values, _elements(name, nested, elements), f"{name}.", depth + 1, elements)


def _elements(name: str, array: list[object], elements: ArrayElements) -> dict[str, object]:
    """Return an array's elements by their positions.

    Raises:
        RejectedMessageError: There are more than `MAX_ELEMENTS`, or one of them is not what an array may hold.
    """
    if len(array) > MAX_ELEMENTS:
        raise RejectedMessageError(
            Reason.TOO_LARGE,
            f"{shown(name)} is an array of {len(array)} elements; at most {MAX_ELEMENTS} are stored, as {shown(f'{name}.0')} and so on."
            " Values over time go into a backlog: an array of objects, each with its ts",
        )
    if elements == "plain":
        for position, element in enumerate(array):
            if isinstance(element, (dict, list)):
                raise RejectedMessageError(
                    Reason.UNSUPPORTED_VALUE,
                    f"{shown(name)} is an array whose element {position} is {type_words(element)}; an array holds numbers, booleans and texts."
                    " Give nested values names, as in an object",
                )
    return {str(position): element for position, element in enumerate(array)}


def _large_integer(name: str, value: int) -> float:
    try:
        number = float(value)
    except OverflowError:  # beyond 1.8e308
        number = 0.0
    if number != value:
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE,
            f"{shown(name)}: a 64-bit float can't hold the integer {_digits(value)} exactly",
        )
    return number


def _digits(value: int) -> str:
    try:
        return f"{value!s:.40}"
    except ValueError:  # more digits than Python writes (sys.get_int_max_str_digits)
        return f"of {value.bit_length()} bits"
