"""The time of a reading: RFC 3339, or the time since the epoch in s, ms, µs or ns.

The unit of an epoch time follows from its magnitude ``|t|``:

=============== ===================  =======================================
unit            magnitude            instants
=============== ===================  =======================================
seconds         below 10^11          up to 5138-11-16
milliseconds    10^11 to below 10^14 1973-03-03 to 5138-11-16
microseconds    10^14 to below 10^17 1973-03-03 to 5138-11-16
nanoseconds     10^17 to below 10^20 1973-03-03 to 5138-11-16
=============== ===================  =======================================

The units are a factor of 1000 apart and so are the limits, which is why every instant from 1973-03-03 to 5138-11-16 has one
reading only. Epoch times count as POSIX does: every day has 86,400 s (IEEE Std 1003.1, "Seconds Since the Epoch").
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError

EARLIEST: Final = 946_684_800_000_000
"""2000-01-01T00:00:00Z, microseconds since the epoch: a device whose clock was never set counts from 1970 or 1980."""
MAX_AHEAD: Final = 86_400_000_000
"""How far a device's clock may be ahead of the receipt, microseconds."""

SECONDS_BELOW: Final = 10**11
MILLISECONDS_BELOW: Final = 10**14
MICROSECONDS_BELOW: Final = 10**17
NANOSECONDS_BELOW: Final = 10**20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# RFC 3339, section 5.6: "T" and "Z" in either case, and a space in the place of "T".
_RFC_3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d):([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_WITHOUT_ZONE: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?", re.ASCII)
_OFFSET_WITHOUT_COLON: Final = re.compile(_WITHOUT_ZONE.pattern + r"[+-]\d{2}(?:\d{2})?", re.ASCII)
_EPOCH_TEXT: Final = re.compile(r"-?\d{1,19}(?:\.\d+)?", re.ASCII)


def measured_at(timestamp: object, received_at: int, name: str = "ts") -> int:
    """Return the instant that a payload's time means, microseconds since the epoch. What is finer is cut off.

    Args:
        timestamp: As parsed from JSON.
        received_at: When the message was received, microseconds since the epoch.
        name: The member's name, for the text of an error.

    Raises:
        RejectedMessageError: The time can't be read, or lies before `EARLIEST` or more than `MAX_AHEAD` after the receipt.
    """
    if type(timestamp) is int and SECONDS_BELOW <= timestamp < MILLISECONDS_BELOW:
        instant = timestamp * 1000  # what most devices send, and the fastest to read
    elif type(timestamp) is int or type(timestamp) is float:
        epoch = _from_epoch(timestamp)
        if epoch is None:
            raise _invalid(timestamp, name)
        instant = epoch
    elif type(timestamp) is str:
        moment = _from_rfc_3339(timestamp)
        if moment is None:
            raise _invalid(timestamp, name)
        instant = moment
    else:
        raise _invalid(timestamp, name)
    if EARLIEST <= instant <= received_at + MAX_AHEAD:
        return instant
    raise _implausible(instant, received_at, name, f"{timestamp!r:.60}")


def check_plausible(instant: int, received_at: int, name: str, text: str) -> None:
    """Look that a device can have measured at this instant.

    Args:
        instant: Microseconds since the epoch.
        received_at: When the message was received, microseconds since the epoch.
        name: The time's name, for the text of an error.
        text: The time as it was sent, for the same.

    Raises:
        RejectedMessageError: It lies before `EARLIEST` or more than `MAX_AHEAD` after the receipt.
    """
    if not EARLIEST <= instant <= received_at + MAX_AHEAD:
        raise _implausible(instant, received_at, name, text)


def _implausible(instant: int, received_at: int, name: str, text: str) -> RejectedMessageError:
    problem = "before 2000" if instant < EARLIEST else f"more than a day after the receipt at {time_text(received_at)}"
    return RejectedMessageError(
        Reason.IMPLAUSIBLE_TIME, f"{name} {text} is {time_text(instant)}, {problem}: is the device's clock set?"
    )


def _from_epoch(timestamp: float) -> int | None:
    magnitude = abs(timestamp)
    # A float stands for the shortest decimal number that reads as this float (which Python's repr gives): what was sent, for
    # everything up to microseconds.
    exact = timestamp if type(timestamp) is int else Decimal(repr(timestamp))
    if magnitude < SECONDS_BELOW:
        return int(exact * 1_000_000)
    if magnitude < MILLISECONDS_BELOW:
        return int(exact * 1_000)
    if magnitude < MICROSECONDS_BELOW:
        return int(exact)
    if magnitude < NANOSECONDS_BELOW:
        return int(exact // 1_000)
    return None


def _from_rfc_3339(text: str) -> int | None:
    match = _RFC_3339.fullmatch(text)
    if match is None:
        return None
    date, minute, second, fraction, offset = match.groups()
    is_leap_second = second == "60"
    try:
        moment = datetime.fromisoformat(
            f"{date}T{minute}:{'59' if is_leap_second else second}{fraction or ''}{offset.upper()}"
        )
    except ValueError:
        return None
    elapsed = moment - _EPOCH
    instant = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
    if not is_leap_second:
        return instant
    # RFC 3339, section 5.7: a leap second ends a month of UTC. POSIX counts it as the first second of the next month.
    instant += 1_000_000
    return instant if _starts_a_month(instant // 1_000_000) else None


def _starts_a_month(second: int) -> bool:
    try:
        moment = _EPOCH + timedelta(seconds=second)
    except OverflowError:  # the year 10000
        return False
    return (moment.day, moment.hour, moment.minute, moment.second) == (1, 0, 0, 0)


def _invalid(timestamp: object, name: str) -> RejectedMessageError:
    """Say what is wrong with the nearest notation, and what to write."""
    if timestamp is None:
        problem = "is null; leave it out, and the time of receipt counts"
    elif type(timestamp) is str and _EPOCH_TEXT.fullmatch(timestamp):
        problem = "is a number in quotes; send it without them"
    elif type(timestamp) is str and _WITHOUT_ZONE.fullmatch(timestamp):
        problem = "has no time zone; end it with Z for UTC, or with an offset such as +01:00"
    elif type(timestamp) is str and _DATE.fullmatch(timestamp):
        problem = "is a date without a time of day; write it as 2026-01-31T12:00:00Z"
    elif type(timestamp) is str and _OFFSET_WITHOUT_COLON.fullmatch(timestamp):
        problem = "has an offset without a colon; write it as +01:00"
    else:
        problem = "is not a time: RFC 3339 (2026-01-31T12:00:00Z) or epoch s, ms, µs or ns are understood"
    return RejectedMessageError(Reason.INVALID_TIME, f"{name} {timestamp!r:.60} {problem}")


def time_text(instant: int) -> str:
    """Return an instant, microseconds since the epoch, as RFC 3339 in UTC."""
    try:
        return (_EPOCH + timedelta(microseconds=instant)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{instant} µs from 1970"
