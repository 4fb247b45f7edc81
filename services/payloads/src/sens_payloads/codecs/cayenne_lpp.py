"""Cayenne LPP: a frame of (channel, type, value) with big-endian values of fixed width for each type.

Types, widths and resolutions: myDevices, "Cayenne Low Power Payload" (types 0 to 3, 101 to 104, 113, 115, 134, 136), and the additions that
ChirpStack v4 and The Things Stack read as well (100, 116 to 118, 120, 121, 125, 128, 130 to 133, 135, 142; IPSO Smart Object identifiers
minus 3200). The port of the frame does not matter.

A value's name is that of its type and its channel: ``temperature_3``; a value of several parts has them behind a dot: ``gps_1.latitude``.
Units: °C, % (of humidity and percentage), g, hPa, °/s, degrees, m, V, A, Hz, ppm, W, kWh, lx; a time is in seconds since 1970.

Voltage, current and power are unsigned, as ChirpStack v4 has them; some early encoders wrote them as signed numbers.
"""

import struct
from collections.abc import Callable, Sequence
from operator import truediv
from typing import Any, Final, NamedTuple, NoReturn

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import Value


class _Type(NamedTuple):
    name: str
    layout: str
    divisors: tuple[int, ...]
    parts: tuple[str, ...] = ("",)


_AXES: Final = (".x", ".y", ".z")

_TYPES: Final[dict[int, _Type]] = {
    0: _Type("digital_in", "B", (1,)),
    1: _Type("digital_out", "B", (1,)),
    2: _Type("analog_in", "h", (100,)),
    3: _Type("analog_out", "h", (100,)),
    100: _Type("generic", "I", (1,)),
    101: _Type("luminosity", "H", (1,)),
    102: _Type("presence", "B", (1,)),
    103: _Type("temperature", "h", (10,)),
    104: _Type("relative_humidity", "B", (2,)),
    113: _Type("accelerometer", "hhh", (1000, 1000, 1000), _AXES),
    115: _Type("barometric_pressure", "H", (10,)),
    116: _Type("voltage", "H", (100,)),
    117: _Type("current", "H", (1000,)),
    118: _Type("frequency", "I", (1,)),
    120: _Type("percentage", "B", (1,)),
    121: _Type("altitude", "h", (1,)),
    125: _Type("concentration", "H", (1,)),
    128: _Type("power", "H", (1,)),
    130: _Type("distance", "I", (1000,)),
    131: _Type("energy", "I", (1000,)),
    132: _Type("direction", "H", (1,)),
    133: _Type("unix_time", "I", (1,)),
    134: _Type("gyrometer", "hhh", (100, 100, 100), _AXES),
    135: _Type("colour", "BBB", (1, 1, 1), (".r", ".g", ".b")),
    136: _Type("gps", "bHbHbH", (10_000, 10_000, 100), (".latitude", ".longitude", ".altitude")),  # 24 bits each
    142: _Type("switch", "B", (1,)),
}

_GPS: Final = 136
_HEAD_BYTES: Final = 2
"""Channel and type."""
_ADVICE: Final = "does the device send Cayenne LPP?"


class _Value(NamedTuple):
    """How the value behind a head is read."""

    size: int
    read: Callable[[bytes, int], tuple[int, ...]]
    names: tuple[str, ...]
    divisors: tuple[int, ...]
    name: str | None
    """Of a value of one part."""
    divisor: int


_values: Final[dict[bytes, _Value]] = {}
"""By channel and type, as they are first seen: at most 256 of each type."""


class _Layout(NamedTuple):
    """A frame whose values have one part each.

    Attributes:
        unpack: Gives head and number of each value, in turn.
        heads: Channel and type of each value.
        names: Theirs.
        divisors: Theirs.
        numbers: The numbers alone.
    """

    unpack: Callable[[bytes], tuple[Any, ...]]
    heads: tuple[bytes, ...]
    names: tuple[str, ...]
    divisors: tuple[int, ...]
    numbers: struct.Struct


_MAX_LAYOUTS: Final = 1024
_LONGEST_REMEMBERED: Final = 256
_layouts: Final[dict[tuple[int, bytes], _Layout]] = {}
"""By length and first head; others of the same length and head are decoded value by value."""


def decode(frame: bytes, _f_port: int) -> dict[str, Value]:
    """Return the values of a frame by name, in its order.

    Args:
        frame: As the device sent it.

    Raises:
        RejectedMessageError: It is empty or cut off, has a type that is not known, whose width is not known either, or has one type of a
            channel twice: these would be two values of one metric at one time.
    """
    layout = _layouts.get((len(frame), frame[:_HEAD_BYTES]))
    if layout is not None:
        parts = layout.unpack(frame)
        if parts[::2] == layout.heads:
            return dict(zip(layout.names, map(truediv, parts[1::2], layout.divisors), strict=True))
    values: dict[str, Value] = {}
    position = 0
    end = len(frame)
    while position < end:
        head = frame[position : position + _HEAD_BYTES]
        size, read, names, divisors, name, divisor = _values.get(head) or _value(head, position)
        try:
            numbers = read(frame, position + _HEAD_BYTES)
        except struct.error:
            _refuse_cut_off(frame, position, size)
        if names[0] in values:
            _refuse_twice(frame, position)
        if name is not None:
            values[name] = numbers[0] / divisor
        else:
            values.update(zip(names, map(truediv, numbers, divisors), strict=True))
        position += size
    if not values:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "the frame is empty; Cayenne LPP has at least one value")
    if layout is None:
        _remember(frame, tuple(values))
    return values


def decode_alike(frames: Sequence[bytes]) -> list[dict[str, Value]] | None:
    """Return the values of frames as `decode` does, where they are laid out alike as one that was decoded before; None otherwise."""
    size = len(frames[0])
    layout = _layouts.get((size, frames[0][:_HEAD_BYTES]))
    if layout is None or set(map(len, frames)) != {size}:
        return None
    together = b"".join(frames)
    at = 0
    for head in layout.heads:
        for offset, byte in enumerate(head):
            if together[at + offset :: size].strip(bytes([byte])):
                return None
        at += _values[head].size
    template: dict[str, Value] = dict.fromkeys(layout.names, 0.0)
    decoded = [template.copy() for _ in frames]  # cheaper than to make each of names and values
    columns = zip(*layout.numbers.iter_unpack(together), strict=True)
    for name, divisor, numbers in zip(layout.names, layout.divisors, columns, strict=True):
        for values, number in zip(decoded, numbers, strict=True):
            values[name] = number / divisor
    return decoded


def _remember(frame: bytes, names: tuple[str, ...]) -> None:
    """Remember how a frame that was decoded is laid out, where all of its values have one part: most devices send but one layout."""
    if len(_layouts) >= _MAX_LAYOUTS or len(frame) > _LONGEST_REMEMBERED:
        return
    heads: list[bytes] = []
    kinds: list[_Type] = []
    position = 0
    while position < len(frame):
        head = frame[position : position + _HEAD_BYTES]
        heads.append(head)
        kinds.append(_TYPES[head[1]])
        position += _values[head].size
    if len(names) == len(heads):
        layout = struct.Struct(">" + "".join(f"{_HEAD_BYTES}s{kind.layout}" for kind in kinds))
        numbers = struct.Struct(">" + "".join(f"{_HEAD_BYTES}x{kind.layout}" for kind in kinds))
        divisors = tuple(kind.divisors[0] for kind in kinds)
        _layouts[len(frame), heads[0]] = _Layout(layout.unpack, tuple(heads), names, divisors, numbers)


def _value(head: bytes, position: int) -> _Value:
    if len(head) < _HEAD_BYTES:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"byte {position} of the frame: a channel ({head[0]}) without type and value; {_ADVICE}",
        )
    channel, number = head
    kind = _TYPES.get(number)
    if kind is None:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"byte {position + 1} of the frame: the type {number} is not one of Cayenne LPP, and nothing behind it can be read; {_ADVICE}",
        )
    layout = struct.Struct(">" + kind.layout)
    names = tuple(f"{kind.name}_{channel}{part}" for part in kind.parts)
    read = _signed_24(layout) if number == _GPS else layout.unpack_from
    name = names[0] if len(names) == 1 else None
    value = _values[head] = _Value(_HEAD_BYTES + layout.size, read, names, kind.divisors, name, kind.divisors[0])
    return value


def _signed_24(layout: struct.Struct) -> Callable[[bytes, int], tuple[int, ...]]:
    def read(frame: bytes, position: int) -> tuple[int, ...]:
        numbers = layout.unpack_from(frame, position)
        return tuple(high * 65_536 + low for high, low in zip(numbers[::2], numbers[1::2], strict=True))

    return read


def _refuse_cut_off(frame: bytes, position: int, size: int) -> NoReturn:
    name = _TYPES[frame[position + 1]].name
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD,
        f"byte {position + 2} of the frame: {name} of channel {frame[position]} has {len(frame) - position - 2} of its {size - 2} bytes;"
        " was the frame cut off?",
    )


def _refuse_twice(frame: bytes, position: int) -> NoReturn:
    name = _TYPES[frame[position + 1]].name
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD,
        f"byte {position} of the frame: {name} of channel {frame[position]} is there twice; give each sensor a channel of its own",
    )
