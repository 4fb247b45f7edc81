"""Judges what a child says of a call. Nothing that comes from a child is believed before it has been looked at."""

import json
import re
from functools import lru_cache
from math import isfinite
from typing import Final

import orjson

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import EXACT_BELOW, MAX_TEXT_CHARACTERS, Value
from sens_common.names import shown
from sens_payloads.codecs.calls import MAX_NAME_CHARACTERS, MAX_VALUES, Decoded, Outcome
from sens_payloads.codecs.sandbox.child_limits import CALL_SECONDS, CONTEXT_BYTES

_NUMBERS: Final = frozenset({int, float, bool})
_PLAIN: Final = _NUMBERS | {str}
_REASONS: Final = {"e": Reason.CODEC_ERROR, "l": Reason.CODEC_LIMIT, "t": Reason.TOO_LARGE}
_LINE: Final = re.compile(r"\(?<input>:(\d{1,6}):\d{1,6}\)?")
_INTEGER_DIGITS: Final = 18
"""Of integers that are surely below 2**63."""
_MAX_WARNINGS: Final = 32
_MAX_REMEMBERED_NAMES: Final = 64
_MAX_WORDS: Final = 500
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc


class NonsenseError(Exception):
    """A child wrote something that no child of ours writes."""


def parse(results: bytes, expected: int, source_lines: int) -> list[Outcome]:
    """Return what became of the next calls.

    Args:
        results: Body of a `RESULTS` answer.
        expected: How many calls are still without an answer.
        source_lines: Number of lines of the codec.

    Raises:
        NonsenseError: The answer is not what a child writes.
    """
    try:
        document: object = orjson.loads(results)
    except orjson.JSONDecodeError:
        document = _parse_unpaired_surrogates(results)
    if not isinstance(document, list) or not 1 <= len(document) <= expected:
        raise NonsenseError
    return [_outcome(result, source_lines) for result in document]


def _parse_unpaired_surrogates(results: bytes) -> object:
    """Parse what orjson refuses because a text has half of a surrogate pair: one message's fault, not that of the others in the answer."""
    try:
        return json.loads(results, parse_float=_finite, parse_int=_integer, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise NonsenseError from None


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(digits)
    return number


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _INTEGER_DIGITS else _finite(digits)


def _outcome(result: object, source_lines: int) -> Outcome:
    warnings: tuple[str, ...] = ()
    if type(result) is list:
        match result:
            case ["w", dict() as fields, list() as said] if all(isinstance(words, str) for words in said):
                warnings = tuple(_clean(words) for words in said[:_MAX_WARNINGS])
                result = fields
            case [str() as kind, str() as words, str() as stack] if kind in _REASONS:
                return failure(kind, words, stack, source_lines)
            case _:
                raise NonsenseError
    if type(result) is not dict:
        raise NonsenseError
    return _decoded(result, warnings)


def _decoded(fields: dict[str, Value | int], warnings: tuple[str, ...]) -> Outcome:
    kinds = set(map(type, fields.values()))
    if not fields or len(fields) > MAX_VALUES or not kinds <= _PLAIN:
        raise NonsenseError
    are_names = _are_names if len(fields) <= _MAX_REMEMBERED_NAMES else _are_names.__wrapped__
    if not are_names(tuple(fields)) and (rejected := _rejected_name(fields)) is not None:
        return rejected
    if str in kinds:
        for name, value in fields.items():
            if type(value) is str and (error := _rejected_text(name, value)) is not None:
                return error
    if int in kinds:
        for name, value in fields.items():
            # Every number of JavaScript is a 64-bit float, whatever its digits look like.
            if type(value) is int and abs(value) >= EXACT_BELOW:
                fields[name] = float(value)
    return Decoded(fields, warnings)


@lru_cache(maxsize=1024)
def _are_names(names: tuple[str, ...]) -> bool:
    return all(1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable() for name in names)


def _rejected_name(fields: dict[str, Value | int]) -> RejectedMessageError | None:
    for name in fields:
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            return RejectedMessageError(
                Reason.INVALID_METRIC,
                f"the name {shown(name)} has {len(name)} characters; 1 to {MAX_NAME_CHARACTERS} are allowed",
            )
        if _CONTROL.search(name) or not _is_unicode(name):
            return RejectedMessageError(
                Reason.INVALID_METRIC, f"the name {shown(name)} has a control character or half a character"
            )
    return None


def _rejected_text(name: str, value: str) -> RejectedMessageError | None:
    if len(value) > MAX_TEXT_CHARACTERS:
        return RejectedMessageError(
            Reason.TOO_LARGE,
            f"{shown(name)}: the text has {len(value)} characters; at most {MAX_TEXT_CHARACTERS} are allowed",
        )
    if "\0" in value:
        return RejectedMessageError(Reason.UNSUPPORTED_VALUE, f"{shown(name)}: the text has a NUL character")
    if not _is_unicode(value):
        return RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, f"{shown(name)}: the text has half of a surrogate pair, which is no character"
        )
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def failure(kind: str, words: str, stack: str, source_lines: int) -> RejectedMessageError:
    """Return the error of a call, with its line in the codec.

    Args:
        kind: `e` for the codec's failure, `l` for a limit of the sandbox, `t` for what is too large.
        words: Of the codec or the engine.
        stack: The engine's, empty where there is none.
        source_lines: Number of lines of the codec; lines beyond are those of what is around it.
    """
    if kind == "l":
        return limit(words)
    lines = [int(line) for line in _LINE.findall(stack)]
    line = next((line for line in lines if 1 <= line <= source_lines + 1), None)
    detail = _clean(words)
    if line is not None:
        detail = f"line {min(line, source_lines)}: {detail}"
    return RejectedMessageError(_REASONS[kind], detail)


def limit(words: str) -> RejectedMessageError:
    """Return the error of a call that the engine ended."""
    if "interrupted" in words:
        detail = f"the codec took more than {CALL_SECONDS * 1000:.0f} ms for this message"
    elif words == "memory" or "out of memory" in words:
        detail = f"the codec took more than {CONTEXT_BYTES >> 20} MB of memory"
    else:
        detail = f"the codec was ended: {_clean(words)}"
    return RejectedMessageError(Reason.CODEC_LIMIT, detail)


def _clean(words: str) -> str:
    """Return words of a codec as one short line without control characters."""
    plain = words[: 2 * _MAX_WORDS].encode("utf-8", "replace").decode()
    return _CONTROL.sub(" ", plain).strip()[:_MAX_WORDS] or "no words"
