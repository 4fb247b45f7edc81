"""The wire contract of live data: what a telemetry worker has newly stored, for whoever watches just now.

Published on core NATS below ``sens.live.<tenant token>``; the body is MessagePack, an array of arrays
``[device, metric, measured_at, value]`` with ``measured_at`` in microseconds since the epoch.
"""

import msgspec

from sens_common.names import LIVE_SUBJECT, subject_token

INTEREST_SECONDS = 15
"""A worker publishes a tenant's readings for this long after somebody said to be interested."""

Value = bool | float | str


class Reading(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One measured value."""

    device: str
    metric: str
    measured_at: int
    value: Value


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Reading])


def encode(readings: list[Reading]) -> bytes:
    """Return the body of a live message."""
    return _encoder.encode(readings)


def decode(body: bytes) -> list[Reading]:
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
