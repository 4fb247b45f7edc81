"""What `lorawan` does for one message, done for many with few steps for each.

Whatever is not usual is None; `lorawan` says what is wrong with it, or reads it with more care.
"""

import binascii
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from operator import sub
from typing import Final

import msgspec

from sens_common.device_times import EARLIEST, MAX_AHEAD
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_PAYLOAD_BYTES, flatten, usual_numbers
from sens_common.formats import Value
from sens_payloads.formats.lorawan import known_device
from sens_payloads.uplinks import Received

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def documents[T](decoder: msgspec.json.Decoder[T], received: Sequence[Received]) -> list[T | None]:
    """Return messages as their decoder's type."""
    bodies = [each.body for each in received]
    if max(map(len, bodies), default=0) <= MAX_PAYLOAD_BYTES:
        try:
            return list(map(decoder.decode, bodies))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    return [_document(decoder, body) for body in bodies]


def _document[T](decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    if len(body) > MAX_PAYLOAD_BYTES:
        return None
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def devices(texts: Sequence[str | None]) -> list[str | None]:
    """Return the canonical names of devices."""
    return [None if text is None else known_device(text) for text in texts]


def instants(texts: Sequence[str | None], received: Sequence[Received]) -> list[int | None]:
    """Return times, microseconds since the epoch, of messages."""
    try:
        elapsed: list[timedelta | None] = list(map(sub, map(datetime.fromisoformat, texts), repeat(_EPOCH)))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        elapsed = list(map(_elapsed, texts))
    return [
        moment
        if since is not None
        and EARLIEST
        <= (moment := since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds)
        <= each.received_at + MAX_AHEAD
        else None
        for since, each in zip(elapsed, received, strict=True)
    ]


def _elapsed(text: str | None) -> timedelta | None:
    try:
        return datetime.fromisoformat(text) - _EPOCH  # type: ignore[arg-type] # None is a TypeError
    except (ValueError, TypeError):
        return None


def frames(texts: Sequence[str | None]) -> list[bytes | None]:
    """Return the bytes that hexadecimal digits stand for."""
    try:
        return list(map(binascii.a2b_hex, texts))  # type: ignore[arg-type] # None is a TypeError
    except (ValueError, TypeError):
        return list(map(_frame, texts))


def _frame(text: str | None) -> bytes | None:
    try:
        return binascii.a2b_hex(text)  # type: ignore[arg-type] # None is a TypeError
    except (ValueError, TypeError):
        return None


def fields(objects: Sequence[dict[str, object] | None]) -> list[dict[str, Value | int] | None]:
    """Return the values of objects by name; None also for an object that is empty."""
    there = list(filter(None, objects))
    if usual_numbers(there):
        return [members or None for members in objects]  # type: ignore[misc] # they are numbers
    return [_fields(members) for members in objects]


def _fields(members: dict[str, object] | None) -> dict[str, Value | int] | None:
    try:
        return flatten(members) if members else None
    except RejectedMessageError:
        return None
