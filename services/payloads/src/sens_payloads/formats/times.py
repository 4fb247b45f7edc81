"""The time of a reading in formats whose devices can't be changed: more notations than the native payload has, and no guess among them."""

import re
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from sens_common.dead_letters import Reason
from sens_common.device_times import check_plausible, measured_at
from sens_common.errors import RejectedMessageError

type TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
"""`auto`: RFC 3339, or the time since the epoch whose unit follows from its magnitude (`sens_common.device_times`)."""

_FACTORS: Final = {"s": Decimal(1_000_000), "ms": Decimal(1000), "us": Decimal(1), "ns": Decimal("0.001")}
_NUMBER: Final = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?", re.ASCII)
_WITHOUT_ZONE: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,12})?", re.ASCII)
_WITHOUT_COLON: Final = re.compile(_WITHOUT_ZONE.pattern + r"[+-]\d{4}", re.ASCII)
_MAX_MAGNITUDE: Final = Decimal(10) ** 20


def instant(value: object, received_at: int, *, unit: TimeUnit, offset: str, member: str) -> int:
    """Return the instant that a time means, microseconds since the epoch. What is finer is cut off.

    Args:
        value: As parsed; a number may be in quotes.
        received_at: When the message was received, microseconds since the epoch.
        unit: Of a number.
        offset: From UTC of a text without a zone, such as ``+01:00`` or ``Z``; empty: such a text is refused.
        member: Its name, for the text of an error.

    Raises:
        RejectedMessageError: The time can't be read, or is not plausible.
    """
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return _of_number(Decimal(value), received_at, unit, member)
        if _WITHOUT_COLON.fullmatch(value):
            value = f"{value[:-2]}:{value[-2:]}"
        elif offset and _WITHOUT_ZONE.fullmatch(value):
            value += offset
    elif unit != "auto" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _of_number(_decimal(value), received_at, unit, member)
    return measured_at(value, received_at, member)


def _of_number(value: Decimal, received_at: int, unit: TimeUnit, member: str) -> int:
    if unit == "auto":
        exact = int(value) if value == value.to_integral_value() else float(value)
        return measured_at(exact, received_at, member)
    if not abs(value) < _MAX_MAGNITUDE:  # NaN, too
        raise RejectedMessageError(Reason.INVALID_TIME, f"{member} is not a time in {unit}: it is far too large")
    found = int(value * _FACTORS[unit])
    check_plausible(found, received_at, member, f"{value:f}{unit}")
    return found


def _decimal(value: float) -> Decimal:
    try:
        # The shortest decimal number that reads as this float: what was sent.
        return Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    except (InvalidOperation, ValueError):
        return Decimal("NaN")
