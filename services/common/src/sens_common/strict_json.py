"""A second parser for two things that orjson does not tell: duplicate keys, and integers that it rounded.

RFC 8259 leaves both open (section 4: names "SHOULD be unique"; section 6: numbers beyond IEEE 754 binary64). orjson takes the last
of several equal keys and turns integers beyond 64 bits into floats. Here neither passes unseen. This second parser costs several
times what orjson costs, so it runs only where a cheap test says that there may be something to find.
"""

import json
from typing import Final, NoReturn

from sens_common import foreign_payloads
from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError

_MAX_INTEGER_DIGITS: Final = 400
"""Longer integers are beyond the largest 64-bit float (309 digits) in any case."""

_OUT_OF_RANGE: Final = "number is infinity when parsed as double"  # orjson's words


def parse(payload: bytes) -> object:
    """Return the document, integers of any size being exact.

    Args:
        payload: Valid JSON.

    Raises:
        RejectedMessageError: An object has two equal keys, or something below such a pair is too deep.
    """
    try:
        document: object = json.loads(payload.decode(), object_pairs_hook=_unique)
    except RecursionError:
        raise RejectedMessageError(Reason.TOO_LARGE, "the nesting is too deep") from None
    return document


def colons(document: object) -> int:
    """Return how many colons a payload without duplicate keys has: one behind each key and those inside strings.

    Args:
        document: A tree of objects and arrays, not deeper than Python's stack.
    """
    if type(document) is str:
        return document.count(":")
    if isinstance(document, dict):
        return len(document) + "".join(document).count(":") + sum(map(colons, document.values()))
    if isinstance(document, list):
        return sum(map(colons, document))
    return 0


def may_have_duplicate_keys(payload: bytes, document: object) -> bool:
    """Tell whether the payload has more colons than what was parsed of it; an escaped colon in a string could hide one."""
    return b"\\u003" in payload or payload.count(b":") != colons(document)


def rejection(payload: bytes, error: json.JSONDecodeError) -> RejectedMessageError:
    """Return the error for a payload that orjson refuses: a number out of range is an unsupported value, all else is malformed.

    Args:
        payload: What orjson refused.
        error: What orjson said, with line and column.
    """
    too_large: list[str] = []

    def number(text: str) -> float:
        if len(text) > _MAX_INTEGER_DIGITS or abs(value := float(text)) == float("inf"):
            too_large.append(text)
            return 0.0
        return value

    if error.msg == _OUT_OF_RANGE:
        try:
            json.loads(payload.decode(), parse_float=number, parse_int=number, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            too_large.clear()
    if too_large:
        return RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, f"the number {too_large[0]:.40} is beyond what a 64-bit float can hold"
        )
    return RejectedMessageError(
        Reason.MALFORMED_PAYLOAD, foreign_payloads.describe(payload, error) or f"the payload is not JSON: {error}"
    )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the key {duplicate!r:.80} is there twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
