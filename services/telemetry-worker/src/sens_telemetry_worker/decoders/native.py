"""The native payload: a JSON object of metrics, or an array of such objects, which is a backlog.

::

    {"temperature": 21.5, "door_open": false, "firmware": "1.4.2", "battery": {"voltage": 3.6}, "ts": "2026-01-31T12:00:00Z"}

- Values are numbers, booleans and strings; a nested object's members are metrics whose names are joined with ``.``.
- ``ts``, at the top level only, is the time of all its metrics (`timestamps`); without it that is the time of the receipt.
- In a backlog of two or more entries each entry has its own ``ts``.

Nothing is stored that differs from what was sent: a number that a 64-bit float can't hold exactly when it is written as an
integer, a key that stands twice, two keys with the same joined name are refused. Numbers written with a fraction or an exponent
are rounded to the nearest float, as everywhere.
"""

import re
from functools import lru_cache
from typing import Final

import orjson

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_telemetry_worker.decoders import strict_json
from sens_telemetry_worker.decoders.reading import EXACT_BELOW, MAX_TEXT_CHARACTERS, Reading, Value
from sens_telemetry_worker.decoders.timestamps import measured_at

MAX_PAYLOAD_BYTES: Final = 262_144
MAX_NAME_CHARACTERS: Final = 200
MAX_NESTING: Final = 8
"""How many objects deep a metric may lie, the outermost included."""
MAX_METRICS: Final = 1000
MAX_ENTRIES: Final = 1000
MAX_READINGS: Final = 10_000

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_SHOWN_CHARACTERS: Final = 80
_ABSENT: Final = object()
_MAX_REMEMBERED_NAMES: Final = 64
_MAX_FLAT_BYTES: Final = 8192
"""Longer payloads are rare, would be parsed twice where they are not flat, and their names would be remembered."""


def decode(payload: bytes, received_at: int) -> list[Reading]:
    """Return the readings of a native payload; see `reading.Format.decode`."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the payload has {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    try:
        document: object = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise strict_json.refusal(payload, error) from None
    readings = _readings(document, received_at)
    if strict_json.may_have_duplicate_keys(payload, document) or any(map(_may_be_rounded, readings)):
        readings = _readings(strict_json.parse(payload), received_at)
    return readings


def flat(payload: bytes, received_at: int) -> tuple[int, dict[str, object]] | None:
    """Return time and members of an object of metrics without anything unusual about it; see `reading.Format.flat`.

    Most messages are of this kind, so the worker's speed depends on this function.

    Raises:
        RejectedMessageError: The payload is not JSON, or a number in it is out of range.
    """
    members = _unambiguous_object(payload)
    if members is None or len(members) > _MAX_REMEMBERED_NAMES:
        return None
    timestamp = members.pop("ts", _ABSENT)
    try:
        instant = received_at if timestamp is _ABSENT else measured_at(timestamp, received_at)
    except RejectedMessageError:
        return None
    return (instant, members) if _are_names(tuple(members)) else None


def _unambiguous_object(payload: bytes) -> dict[str, object] | None:
    # A payload has at least one colon for each key, so the count can only be right when no key stands twice. Colons in texts are
    # told apart where no character is escaped.
    if len(payload) > _MAX_FLAT_BYTES:
        return None
    try:
        members = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise strict_json.refusal(payload, error) from None
    if type(members) is not dict:
        return None
    colons = payload.count(b":")
    if colons != len(members):
        in_texts = sum(value.count(":") for value in members.values() if type(value) is str)
        if b"\\" in payload or colons != len(members) + in_texts:
            return None
    return members


@lru_cache(maxsize=1024)
def _are_names(names: tuple[str, ...]) -> bool:
    return bool(names) and all(1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable() for name in names)


def _readings(document: object, received_at: int) -> list[Reading]:
    """Return the readings of a parsed payload, or say what is wrong with it."""
    if isinstance(document, dict):
        return _entry(document, received_at, needs_time=False)
    if not isinstance(document, list):
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, f"the payload is {_kind(document)}, not an object or an array of objects"
        )
    if not document:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "the payload is an empty array")
    if len(document) > MAX_ENTRIES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the backlog has {len(document)} entries; at most {MAX_ENTRIES} are allowed"
        )
    readings: list[Reading] = []
    for position, entry in enumerate(document, 1):
        try:
            readings += _entry(entry, received_at, needs_time=len(document) > 1)
        except RejectedMessageError as error:
            raise RejectedMessageError(error.reason, f"backlog entry {position}: {error.detail}") from None
        if len(readings) > MAX_READINGS:
            raise RejectedMessageError(
                Reason.TOO_LARGE,
                f"the backlog has more than {MAX_READINGS} readings, which is what one message may hold",
            )
    return readings


def _entry(members: object, received_at: int, *, needs_time: bool) -> list[Reading]:
    if not isinstance(members, dict):
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"it is {_kind(members)}, not an object")
    values: dict[str, Value] = {}
    _collect({key: value for key, value in members.items() if key != "ts"}, "", 1, values)
    if not values:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "the object has no metrics")
    if "ts" in members:
        instant = measured_at(members["ts"], received_at)
    elif needs_time:
        raise RejectedMessageError(Reason.INVALID_TIME, "it has no ts, which each entry of a backlog needs")
    else:
        instant = received_at
    return [Reading(name, instant, value) for name, value in values.items()]


def _collect(members: dict[str, object], prefix: str, depth: int, values: dict[str, Value]) -> None:
    """Add an object's metrics to the values."""
    for key, value in members.items():
        name = prefix + key
        if isinstance(value, dict):
            if depth == MAX_NESTING:
                raise RejectedMessageError(
                    Reason.TOO_LARGE, f"{_quoted(name)} is an object more than {MAX_NESTING} levels deep"
                )
            _collect(value, f"{name}.", depth + 1, values)
            continue
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise RejectedMessageError(
                Reason.INVALID_METRIC,
                f"the metric's name {_quoted(name)} has {len(name)} characters; 1 to {MAX_NAME_CHARACTERS} are allowed",
            )
        if not name.isprintable() and _CONTROL.search(name):
            raise RejectedMessageError(
                Reason.INVALID_METRIC, f"the metric's name {_quoted(name)} has a control character"
            )
        if name in values:
            raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"two metrics have the joined name {_quoted(name)}")
        if len(values) == MAX_METRICS:
            raise RejectedMessageError(Reason.TOO_LARGE, f"one object has more than {MAX_METRICS} metrics")
        values[name] = _value(name, value)


def _value(name: str, value: object) -> Value:
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        try:
            number = float(value)
        except OverflowError:  # beyond 1.8e308
            number = 0.0
        if number != value:
            raise RejectedMessageError(
                Reason.UNSUPPORTED_VALUE,
                f"{_quoted(name)}: a 64-bit float can't hold the integer {value!s:.40} exactly",
            )
        return number
    if not isinstance(value, str):
        raise RejectedMessageError(Reason.UNSUPPORTED_VALUE, f"{_quoted(name)} is {_kind(value)}, which is not stored")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise RejectedMessageError(
            Reason.TOO_LARGE,
            f"{_quoted(name)}: the text has {len(value)} characters; at most {MAX_TEXT_CHARACTERS} are allowed",
        )
    if "\0" in value:
        raise RejectedMessageError(Reason.UNSUPPORTED_VALUE, f"{_quoted(name)}: the text has a NUL character")
    return value


def _may_be_rounded(reading: Reading) -> bool:
    return type(reading.value) is float and abs(reading.value) >= EXACT_BELOW


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names[type(value)]


def _quoted(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "…")
