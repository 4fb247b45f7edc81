"""Times as people write them, the same in the API and on the command line."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

TIME_FORMS: Final = (
    "a time like 2026-11-29T12:00:00Z or 2026-11-29T13:00:00+01:00, a day like 2026-11-29, today, now,"
    " a time ago like -15m, -1h or -7d, or seconds since 1970"
)
"""What `parse_time` takes, for people."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER = re.compile(r"-?\d{1,19}(?:\.\d{1,9})?")
_AGO = re.compile(r"-(\d{1,9})([smhdw])")
_DATE_AND_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?P<offset>[Zz]|(?P<sign>[+ -])\d{2}:\d{2})?)?"
)
# An epoch's unit shows in its size, as in the payloads: seconds up to 1e11 (the year 5138), then ms, µs, ns.
_UNITS: Final = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (float("inf"), 1e9))


def parse_time(text: str, now: datetime, zone: tzinfo = UTC) -> datetime:
    """Return the time that a text names, in UTC.

    Args:
        text: RFC 3339; a date alone is its midnight; ``now``, ``today``; ``-1h`` (s, m, h, d, w) before now; or an epoch in s, ms, µs or
            ns. A space before an offset is a plus: that is what a bare plus becomes in a URL.
        now: The present.
        zone: In which days begin, and which a time without an offset is in.

    Raises:
        ValueError: It names none, or one before 1900 or after 2200; its text says what is accepted.

    >>> noon = datetime(2026, 11, 29, 12, tzinfo=UTC)
    >>> parse_time("-90m", noon).isoformat(), parse_time("today", noon).isoformat()
    ('2026-11-29T10:30:00+00:00', '2026-11-29T00:00:00+00:00')
    >>> parse_time("2026-11-29T13:00:00 01:00", noon) == noon
    True
    """
    try:
        time: datetime | None = _parse(text.strip(), now, zone)
    except ValueError:
        raise ValueError(f"it is not a time; write {TIME_FORMS}") from None
    except OverflowError:
        time = None
    if time is None or not EARLIEST <= time <= LATEST:
        raise ValueError("a time lies between 1900 and 2200")
    return time


def _parse(text: str, now: datetime, zone: tzinfo) -> datetime:
    word = text.lower()
    if word == "now":
        return now.astimezone(UTC)
    if word == "today":
        return now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
    if (ago := _AGO.fullmatch(word)) is not None:
        return now.astimezone(UTC) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
    if _NUMBER.fullmatch(text):
        number = float(text)
        seconds = next(number / divisor for limit, divisor in _UNITS if abs(number) < limit)
        return EPOCH + timedelta(seconds=seconds)
    match = _DATE_AND_TIME.fullmatch(text)
    if match is None:
        raise ValueError
    if match["sign"] == " ":
        head, _, offset = text.rpartition(" ")
        text = f"{head}+{offset}"
    time = datetime.fromisoformat(text.upper())
    return (time.replace(tzinfo=zone) if time.tzinfo is None else time).astimezone(UTC)


def parse_width(text: str) -> timedelta:
    """Return a length of time such as ``5m``: a number and s, m, h, d or w.

    Raises:
        ValueError: It is none; its text says what is accepted.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,7})([smhdw])", text.strip())
    if match is None:
        raise ValueError(
            "it is not a length of time; write a number and s, m, h, d or w (seconds to weeks), for example 5m or 1h"
        )
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
