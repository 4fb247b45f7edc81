"""Cursors of measurements: where the next page of an answer begins."""

from datetime import timedelta
from typing import Final

from sens_platform_api.measurements.query import Position
from sens_platform_api.measurements.spans import Span
from sens_platform_api.parameters import EPOCH, bad_cursor, cursor_number, decode_cursor, encode_cursor

_MICROSECOND: Final = timedelta(microseconds=1)
_WIDEST: Final = timedelta(days=10_000)
"""No bucket is as wide; those of points are the widest."""
_CURSOR_BIAS = 10**16
"""Makes the times in cursors, µs since the epoch, positive; the earliest is in 1900."""


def render_position(position: Position) -> str:
    """Return the cursor of a position."""
    times = (position.time, *position.span)
    return encode_cursor(*(str((time - EPOCH) // _MICROSECOND + _CURSOR_BIAS) for time in times), *position.series)


def read_position(cursor: str) -> Position:
    """Return the position of a cursor.

    Raises:
        InvalidRequestError: It is none that an answer gave.
    """
    *times, device, name, kind = decode_cursor(cursor, 6)
    try:
        time, start, end = (EPOCH + (cursor_number(text) - _CURSOR_BIAS) * _MICROSECOND for text in times)
    except OverflowError:
        raise bad_cursor() from None
    if not start - _WIDEST < time <= end:  # a bucket may begin before the range does
        raise bad_cursor()
    return Position(time, (device, name, kind), Span(start, end))
