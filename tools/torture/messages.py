"""The messages of the torture: message number n follows from the number alone, so that whatever arrives can be compared with what was sent."""

import json
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

TENANTS: Final = ("north", "south", "west")
DEVICES: Final = 20
"""Of each tenant."""
POISON: Final = -6.66e66
"""A number that the database is told to refuse."""
FIRST_TIME_MILLISECONDS: Final = 1_760_000_000_000
MALFORMED_EVERY: Final = 997
POISON_EVERY: Final = 2003


class Kind(StrEnum):
    """What a message is like."""

    TIMED = "device time"
    COUNTED = "frame counter"
    BARE = "neither"
    MALFORMED = "malformed"
    POISON = "poison"


class Message(NamedTuple):
    """A message.

    Attributes:
        number: Unique; stored as the metric ``n``.
        kind: What it is like.
        tenant: Whose it is.
        device: Name.
        topic: Where it is published.
        payload: Bytes.
        time_milliseconds: The device's time, None without one.
    """

    number: int
    kind: Kind
    tenant: str
    device: str
    topic: str
    payload: bytes
    time_milliseconds: int | None


class Messages(Protocol):
    """Messages by number, from 1 on."""

    def message(self, number: int) -> Message:
        """Return a message."""

    def number_of(self, payload: bytes) -> int:
        """Return the number of the message with this payload; -1 when it is none."""


class NativeMessages:
    """Messages in SENS' own format."""

    def message(self, number: int) -> Message:
        """Return a message."""
        tenant, device = TENANTS[number % 3], f"d{number // 3 % DEVICES}"
        kind = (Kind.TIMED, Kind.COUNTED, Kind.BARE)[number // 3 % 3]
        body = values(number)
        time_milliseconds = FIRST_TIME_MILLISECONDS + number if kind is Kind.TIMED else None
        if time_milliseconds is not None:
            body["ts"] = time_milliseconds
        elif kind is Kind.COUNTED:
            body["fcnt"] = number
        payload = json.dumps(body).encode()
        if number % MALFORMED_EVERY == 0:
            kind, payload = Kind.MALFORMED, payload[:-1]
        elif number % POISON_EVERY == 0:
            kind, payload = Kind.POISON, json.dumps(body | {"poison": POISON}).encode()
        return Message(number, kind, tenant, device, f"sens/v1/{tenant}/{device}/telemetry", payload, time_milliseconds)

    def number_of(self, payload: bytes) -> int:
        """Return the number of the message with this payload; -1 when it is none."""
        start = payload.find(b'"n": ')
        number = int(payload[start + 5 : payload.index(b",", start)]) if start >= 0 else -1
        return number if number > 0 and self.message(number).payload == payload else -1


def values(number: int) -> dict[str, object]:
    """Return what is stored of a message, by metric."""
    return {"n": number, "half": number / 2, "even": number % 2 == 0, "name": f"message {number}"}
