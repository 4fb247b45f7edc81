"""The native payload: a JSON object of metrics, or an array of such objects, which is a backlog.

::

    {"temperature": 21.5, "door_open": false, "firmware": "1.4.2", "battery": {"voltage": 3.6}, "ts": "2026-01-31T12:00:00Z"}

- Values are numbers, booleans and strings; a nested object's members are metrics whose names are joined with ``.``, and so are an array's
  elements, by their positions: ``{"phase": [230.1, 229.8]}`` is ``phase.0`` and ``phase.1``.
- null is no value: the metric has none in this message.
- ``ts``, at the top level only, is the time of all its metrics (`timestamps`). Where it is missing, ``time`` or ``timestamp`` is, and
  without these the time of the receipt.
- In a backlog of two or more readings each has its own time.

Nothing is stored that differs from what was sent: a number that a 64-bit float can't hold exactly when it is written as an
integer, two equal keys in one object, and two keys with the same joined name are refused. Numbers written with a fraction or an exponent
are rounded to the nearest float, as everywhere.
"""

import json
from functools import lru_cache
from typing import Final, NoReturn

import orjson

from sens_common import strict_json
from sens_common.dead_letters import Reason
from sens_common.device_times import measured_at
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_NAME_CHARACTERS, MAX_PAYLOAD_BYTES, MAX_READINGS, MAX_VALUES, flatten, type_words
from sens_common.formats import EXACT_BELOW, KINDS, FlatPayload, Measurement
from sens_telemetry_worker.decoders.native_layout import MAX_LAYOUT_BYTES, NativeLayout, TimeKind, layout

_OTHER_TIMES: Final = ("time", "timestamp")
_ABSENT: Final = object()
_MAX_EXAMPLE_CHARACTERS: Final = 60
_MAX_REMEMBERED_NAMES: Final = 64
_TIME_KINDS: Final[dict[type, TimeKind]] = {int: "epoch", str: "text", object: "receipt"}
_MAX_FLAT_BYTES: Final = MAX_LAYOUT_BYTES
"""Longer payloads are rare, would be parsed twice where they are not flat, and their names would be remembered."""


def decode(payload: bytes, received_at: int) -> list[Measurement]:
    """Return the measurements of a native payload; see `sens_common.formats.Format.decode`."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the payload has {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    try:
        document: object = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise strict_json.rejection(payload, error) from None
    measurements = _measurements(document, received_at)
    if strict_json.may_have_duplicate_keys(payload, document) or any(map(_may_be_rounded, measurements)):
        measurements = _measurements(strict_json.parse(payload), received_at)
    return measurements


def decode_if_flat(payload: bytes, received_at: int) -> FlatPayload | None:
    """Return time and members of an object of metrics without anything unusual about it; see `sens_common.formats.Format.decode_if_flat`.

    Most messages are of this kind, so the worker's speed depends on this function.

    Raises:
        RejectedMessageError: The payload is not JSON, or a number in it is out of range.
    """
    members = _unambiguous_object(payload)
    if members is None or len(members) > _MAX_REMEMBERED_NAMES:
        return None
    try:
        instant = _take_time(members, received_at)
    except RejectedMessageError:
        return None
    if None in members.values():
        members = {name: value for name, value in members.items() if value is not None}
    return (received_at if instant is None else instant, members) if _are_names(tuple(members)) else None


def layout_of(payload: bytes) -> NativeLayout | None:
    """Return the layout of a flat payload; see `columns.ColumnFormat.layout_of`."""
    try:
        members = _unambiguous_object(payload)
    except RejectedMessageError:
        return None
    if members is None or len(members) > _MAX_REMEMBERED_NAMES:
        return None
    timestamp = members.pop("ts", _ABSENT)
    time_kind = _TIME_KINDS.get(type(timestamp))
    metrics = tuple((name, kind) for name, value in members.items() if (kind := KINDS.get(type(value))) is not None)
    if time_kind is None or len(metrics) < len(members) or not _are_names(tuple(members)):
        return None
    if time_kind == "receipt" and not members.keys().isdisjoint(_OTHER_TIMES):
        return None
    return layout(metrics, time_kind)


def _take_time(members: dict[str, object], received_at: int) -> int | None:
    """Remove what tells the time, and return the instant, None where nothing does.

    Raises:
        RejectedMessageError: It can't be understood, or two members tell different times.
    """
    timestamp = members.pop("ts", _ABSENT)
    if timestamp is not _ABSENT:
        return measured_at(timestamp, received_at)
    instants = {}
    for name in _OTHER_TIMES:
        value = members.get(name)
        if value is None or isinstance(value, (dict, list)):  # no metric of this name, but some below it
            continue
        try:
            instants[name] = measured_at(value, received_at, name)
        except RejectedMessageError as error:
            hint = f"without ts, {name} is the time of the measurement: call a metric otherwise, or send ts as well"
            raise RejectedMessageError(error.reason, f"{error.detail} ({hint})") from None
        del members[name]
    if len(set(instants.values())) > 1:
        raise RejectedMessageError(
            Reason.INVALID_TIME, "time and timestamp tell different times; send one of them, or ts as well"
        )
    return next(iter(instants.values()), None)


def _unambiguous_object(payload: bytes) -> dict[str, object] | None:
    # A payload has at least one colon for each key, so the count can only be right when no key is there twice. Colons in texts are
    # told apart where no character is escaped.
    if len(payload) > _MAX_FLAT_BYTES:
        return None
    try:
        members = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise strict_json.rejection(payload, error) from None
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


def _measurements(document: object, received_at: int) -> list[Measurement]:
    """Return the measurements of a parsed payload, or say what is wrong with it."""
    if isinstance(document, dict):
        return _reading(document, received_at, needs_time=False) or _nothing_but_nulls()
    if not isinstance(document, list):
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the payload is {type_words(document)}, not an object or an array of objects; {_wrapped(document)}",
        )
    if not document:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "the payload is an empty array")
    if len(document) > MAX_READINGS:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the backlog has {len(document)} readings; at most {MAX_READINGS} are allowed"
        )
    measurements: list[Measurement] = []
    for position, reading in enumerate(document, 1):
        try:
            measurements += _reading(reading, received_at, needs_time=len(document) > 1)
        except RejectedMessageError as error:
            raise RejectedMessageError(error.reason, f"reading {position} of the backlog: {error.detail}") from None
        if len(measurements) > MAX_VALUES:
            raise RejectedMessageError(
                Reason.TOO_LARGE,
                f"the backlog has more than {MAX_VALUES} values, which is what one message may hold",
            )
    return measurements or _nothing_but_nulls()


def _reading(document: object, received_at: int, *, needs_time: bool) -> list[Measurement]:
    """Return the measurements of one object; none where all of its metrics are null."""
    if not isinstance(document, dict):
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"it is {type_words(document)}, not an object")
    members = dict(document)
    instant = _take_time(members, received_at)
    if instant is None:
        if needs_time:
            raise RejectedMessageError(Reason.INVALID_TIME, "it has no ts, which each reading of a backlog needs")
        instant = received_at
    values = flatten(members, elements="plain")
    if not values and not _has_null(members):
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "the object has no metrics")
    return [Measurement(name, instant, float(value) if type(value) is int else value) for name, value in values.items()]


def _has_null(members: object) -> bool:
    if isinstance(members, dict):
        return any(map(_has_null, members.values()))
    return members is None or (isinstance(members, list) and None in members)


def _nothing_but_nulls() -> NoReturn:
    raise RejectedMessageError(
        Reason.UNSUPPORTED_VALUE,
        "all metrics are null, so there is no value to store; send nothing where no sensor has one",
    )


def _may_be_rounded(measurement: Measurement) -> bool:
    return type(measurement.value) is float and abs(measurement.value) >= EXACT_BELOW


def _wrapped(value: object) -> str:
    """Return what to send in the place of a bare value."""
    text = '{"value": null}' if value is None else f'{{"value": {json.dumps(value, ensure_ascii=False)}}}'
    return f"give the value a name, for example {text if len(text) <= _MAX_EXAMPLE_CHARACTERS else '{"value": 21.5}'}"
