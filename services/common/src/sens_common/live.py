"""The wire contract of live data: the readings that a telemetry worker has just stored, for those who watch.

Published on core NATS below ``sens.live.<tenant token>``; the body is MessagePack, an array of arrays
``[device, metric, measured_at, value]`` with ``measured_at`` in microseconds since the epoch. The header `DROPPED_HEADER` says how many
readings are missing before these, because they could not be sent; such a message may hold none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from sens_common.names import LIVE_SUBJECT, subject_token

INTEREST_SECONDS = 15
"""A worker publishes a tenant's readings for this long after somebody said to be interested."""

DROPPED_HEADER: Final = "Sens-Dropped"
"""How many readings of the tenant were left out since the message before: a number in decimal; absent means none."""

_MAX_DROPPED_DIGITS = 15

Value = bool | float | str


class LiveReading(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One measured value."""

    device: str
    metric: str
    measured_at: int
    value: Value


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[LiveReading])


def encode(readings: list[LiveReading]) -> bytes:
    """Return the body of a live message."""
    return _encoder.encode(readings)


def encode_parts(readings: Sequence[LiveReading], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield bodies of at most so many bytes, each with the number of its readings; one that is larger alone is left out."""
    if not readings:
        return
    body = _encoder.encode(readings)
    if len(body) <= max_bytes:
        yield body, len(readings)
    elif len(readings) > 1:
        middle = len(readings) // 2
        yield from encode_parts(readings[:middle], max_bytes)
        yield from encode_parts(readings[middle:], max_bytes)


def dropped(headers: Mapping[str, str] | None) -> int:
    """Return how many readings a message says are missing, 0 where it says nothing that can be read."""
    text = (headers or {}).get(DROPPED_HEADER, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DROPPED_DIGITS else 0


def decode(body: bytes) -> list[LiveReading]:
    """Return the readings of a live message.

    Raises:
        ValueError: The body is not a live message.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a live message: {error}") from error


def subject(tenant: str) -> str:
    """Return the subject of a tenant's live data."""
    return f"{LIVE_SUBJECT}.{subject_token(tenant)}"
