"""The bytes of a Sparkplug B payload: Protocol Buffers, read in one pass.

Source: Eclipse Sparkplug 3.0.0, section 6.4.1 "Google Protocol Buffer Schema", and Protocol Buffers, "Encoding". Fields that are not known are
skipped, and so are metadata, properties, and the inside of templates and data sets.

This is not Google's library, because a payload needs a tenth of it: no code in C reads what anybody publishes, every bound is in this file,
and an error names the byte. It costs about what reading one attribute after the other of that library's objects costs.
"""

# ruff: noqa: PLR2004 - keys of fields and borders of bytes, as the format has them
import struct
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_PAYLOAD_BYTES, MAX_VALUES

HISTORICAL: Final = 1
TRANSIENT: Final = 2
NULL: Final = 4

UNREAD: Final = 8
"""The value is bytes, a data set, a template or an extension."""

_double = struct.Struct("<d").unpack_from
_float = struct.Struct("<f").unpack_from
_VARINT: Final = 0
_DELIMITED: Final = 2
_WIDTHS: Final = {1: 8, 5: 4}
_WIRE_TYPES: Final = frozenset({_VARINT, _DELIMITED, *_WIDTHS})
"""Groups (3 and 4) are none that anybody writes."""
_FIRST_KEY: Final = 0x08
"""Of field 1; there is no field 0."""
_SHIFTS: Final = range(7, 64, 7)
_FLAGS: Final = {0x28: HISTORICAL, 0x30: TRANSIENT, 0x38: NULL}
_UNREAD_KEYS: Final = frozenset({0x82, 0x8A, 0x92, 0x9A})
_TIMESTAMP_BYTES: Final = 6
"""Of milliseconds since 1970, until the year 2109."""


type Sent = bool | int | float | str
type Metric = tuple[str | None, int | None, int | None, int, int, Sent | None]
"""One metric of a payload, as sent: name and alias, None where it has none; timestamp in milliseconds since the epoch or None; datatype of
Sparkplug's enumeration, 0 where it has none; flags; and the value: a float of ``float_value`` and ``double_value``, an int, not negative, of
``int_value`` and ``long_value``, a bool, a text, or None."""


class Payload(NamedTuple):
    """A payload: its time, milliseconds since the epoch, and its metrics in their order."""

    timestamp: int | None
    metrics: list[Metric]


class _WireError(Exception):
    """What is wrong, and at which byte."""


def read(body: bytes) -> Payload:
    """Return what a payload says.

    Raises:
        RejectedMessageError: It is none, or cut off, or larger than a message may be.
    """
    if len(body) > MAX_PAYLOAD_BYTES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the message has {len(body)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    try:
        return _payload(body)
    except (IndexError, struct.error):
        problem = f"it ends in the middle, after {len(body)} bytes; was it cut off?"
    except UnicodeDecodeError as error:
        problem = f"a text in it is not UTF-8 ({error.reason})"
    except _WireError as error:
        problem = str(error)
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD, f"the payload is not Sparkplug B, which is Protocol Buffers: {problem}"
    )


def _payload(body: bytes) -> Payload:
    timestamp: int | None = None
    metrics: list[Metric] = []
    position = 0
    end = len(body)
    stamp = (b"", 0)
    while position < end:
        key = body[position]
        position += 1
        if key == 0x12:  # metrics
            length = body[position]
            position += 1
            if length >= 0x80:
                length, position = _varint(body, position - 1)
            if position + length > end:
                raise IndexError
            if len(metrics) == MAX_VALUES:
                raise RejectedMessageError(
                    Reason.TOO_LARGE,
                    f"the payload has more than {MAX_VALUES} metrics, which is what one message may have",
                )
            metric, stamp = _metric(body, position, position + length, stamp)
            metrics.append(metric)
            position += length
        elif key == 0x08:
            start = position
            timestamp, position = _varint(body, position)
            if position - start == _TIMESTAMP_BYTES:
                stamp = (body[start:position], timestamp)
        else:
            key, position = _varint(body, position - 1)
            position = _skipped(body, position, end, key)
    return Payload(timestamp, metrics)


def _metric(  # noqa: C901, PLR0912, PLR0915 - one pass over all fields: a call for each would double its time
    body: bytes, position: int, end: int, stamp: tuple[bytes, int]
) -> tuple[Metric, tuple[bytes, int]]:
    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype = flags = 0
    value: Sent | None = None
    while position < end:
        key = body[position]
        position += 1
        if key >= 0x80:
            key, position = _varint(body, position - 1)
        if key == 0x18:  # timestamp; mostly that of the metric before
            if body[position : position + _TIMESTAMP_BYTES] == stamp[0]:
                timestamp = stamp[1]
                position += _TIMESTAMP_BYTES
            else:
                start = position
                timestamp, position = _varint(body, position)
                if position - start == _TIMESTAMP_BYTES:
                    stamp = (body[start:position], timestamp)
        elif key == 0x10:
            alias = body[position]
            position += 1
            if alias >= 0x80:
                alias, position = _varint(body, position - 1)
        elif key == 0x20:
            datatype = body[position]
            position += 1
            if datatype >= 0x80:
                datatype, position = _varint(body, position - 1)
                datatype &= 0xFFFF_FFFF
        elif key == 0x69:
            (value,) = _double(body, position)
            position += 8
        elif key == 0x65:
            (value,) = _float(body, position)
            position += 4
        elif key == 0x50:
            number, position = _varint(body, position)
            value = number & 0xFFFF_FFFF
        elif key == 0x58:
            value, position = _varint(body, position)
        elif key == 0x70:
            number, position = _varint(body, position)
            value = number != 0
        elif key in {0x0A, 0x7A}:
            length, position = _varint(body, position)
            if position + length > end:
                raise IndexError
            text = body[position : position + length].decode()
            position += length
            if key == 0x0A:
                name = text
            else:
                value = text
        elif key in _FLAGS:
            number, position = _varint(body, position)
            flag = _FLAGS[key]
            flags = flags | flag if number else flags & ~flag
        else:
            if key in _UNREAD_KEYS:
                flags |= UNREAD
                value = None
            position = _skipped(body, position, end, key)
    if position > end:
        raise IndexError
    if flags & UNREAD and value is not None:  # of several values the last one counts
        flags -= UNREAD
    return (name, alias, timestamp, datatype, flags, value), stamp


def _varint(body: bytes, position: int) -> tuple[int, int]:
    """Return a number ("Base 128 Varints"), cut to 64 bits as all readers do, and the position behind it."""
    byte = body[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value = byte & 0x7F
    for shift in _SHIFTS:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise _WireError(f"byte {position - 1} is the end of a number with more than 64 bits")


def _skipped(body: bytes, position: int, end: int, key: int) -> int:
    """Return the position behind a field that is not read."""
    wire_type = key & 7
    if key < _FIRST_KEY or wire_type not in _WIRE_TYPES:
        raise _WireError(f"byte {position - 1} begins no field")
    if wire_type == _VARINT:
        _, position = _varint(body, position)
    elif wire_type == _DELIMITED:
        length, position = _varint(body, position)
        position += length
    else:
        position += _WIDTHS[wire_type]
    if position > end:
        raise IndexError
    return position
