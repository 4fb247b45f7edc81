"""The text of a message as values: JSON without a loss, and what devices publish that is not JSON: ``ON``, ``+21.5``, ``nan``."""

import re
from typing import Final

import orjson

from sens_common import strict_json
from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_PAYLOAD_BYTES
from sens_common.formats import EXACT_BELOW, MAX_TEXT_CHARACTERS

_ROUNDED: Final = -(10**9)
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?\d+", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def check_size(body: bytes) -> None:
    """Look that a message is not too large.

    Raises:
        RejectedMessageError: It is.
    """
    if len(body) > MAX_PAYLOAD_BYTES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the payload has {len(body)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )


def parse_json(body: bytes) -> object:
    """Return a JSON document, integers of any size being exact.

    Raises:
        RejectedMessageError: It is not JSON, an object has two equal keys, or it is too large or nested too deep.
    """
    check_size(body)
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise strict_json.rejection(body, error) from None
    try:
        is_clear = body.count(b":") == _colons(document) and b"\\u003" not in body
        if not is_clear and (_colons(document) < 0 or strict_json.may_have_duplicate_keys(body, document)):
            return strict_json.parse(body)
    except RecursionError:
        raise RejectedMessageError(Reason.TOO_LARGE, "the nesting is too deep") from None
    return document


def parse_text(body: bytes) -> object:
    """Return what a message is that need not be JSON: a document as `parse_json` gives it, a number, or else a text.

    Raises:
        RejectedMessageError: It is binary data, or looks like JSON and is not.
    """
    try:
        return parse_json(body)
    except RejectedMessageError:
        if body.lstrip()[:1] in {b"{", b"[", b'"'} or len(body) > 4 * MAX_TEXT_CHARACTERS:
            raise
        try:
            text = body.decode().strip()
        except UnicodeDecodeError:
            text = ""
        if not text or _CONTROL.search(text):
            raise
    if _NUMBER.fullmatch(text):
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    return text


def _colons(document: object) -> int:
    """Return how many keys a document has, and colons in its texts; those in its keys are left out.

    It is negative where a number may have been written as an integer beyond 64 bits, which orjson rounds.
    """
    if type(document) is dict:
        count = len(document)
        for value in document.values():
            kind = type(value)
            if kind is float:
                if not -EXACT_BELOW < value < EXACT_BELOW:
                    return _ROUNDED
            elif kind is str:
                count += value.count(":")
            elif kind is dict or kind is list:
                count += _colons(value)
        return count
    if type(document) is list:
        return sum(map(_colons, document))
    if type(document) is float:
        return 0 if -EXACT_BELOW < document < EXACT_BELOW else _ROUNDED
    return document.count(":") if type(document) is str else 0
