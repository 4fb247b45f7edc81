"""What a decoder makes of a payload."""

from collections.abc import Callable
from typing import Final, NamedTuple

Value = bool | float | str
"""A number is always a float, so that ``bool`` and ``float`` tell the kinds apart."""


EXACT_BELOW: Final = 2**53
"""Smaller integers are exact as 64-bit floats (IEEE 754 binary64)."""
MAX_TEXT_CHARACTERS: Final = 4096


class Reading(NamedTuple):
    """One value of one metric at one time.

    Attributes:
        metric: Name, 1 to 200 characters.
        measured_at: Microseconds since the epoch.
        value: As the device sent it.
    """

    metric: str
    measured_at: int
    value: Value


class Format(NamedTuple):
    """A payload format: two pure functions, no clock, no input or output, the same answer for the same bytes.

    Attributes:
        decode: ``(payload, received_at)`` to the readings of one message, in the order in which they stand there; never none.
            ``received_at`` is when the message was received, microseconds since the epoch: the time of readings that carry none.
            Raises `RejectedMessageError` when the payload can't be decoded, or not without a loss.
        flat: The same arguments to the instant and the values by name of a message that has one time for all of them, or None for
            `decode` to decide. Names are checked. Values are as parsed, and where one of them is not a boolean, a number whose
            magnitude is below `EXACT_BELOW`, or a text that `is_plain_text`, it is also for `decode` to decide. Raises
            `RejectedMessageError` where `decode` would, or leaves that to it.
    """

    decode: Callable[[bytes, int], list[Reading]]
    flat: Callable[[bytes, int], tuple[int, dict[str, object]] | None]


def is_plain_text(value: str) -> bool:
    """Tell whether a text can be stored as it is."""
    return len(value) <= MAX_TEXT_CHARACTERS and "\0" not in value
