"""What a decoder makes of a payload."""

from typing import NamedTuple, Protocol

Value = bool | float | str
"""A number is always a float, so that ``bool`` and ``float`` tell the kinds apart."""


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


class Decoder(Protocol):
    """A payload format. Decoders are pure: no clock, no input or output, the same answer for the same bytes."""

    def __call__(self, payload: bytes, received_at: int) -> list[Reading]:
        """Return the readings of one message, in the order in which they stand there; never none.

        Args:
            payload: As published.
            received_at: When the message was received, microseconds since the epoch; the time of readings that carry none.

        Raises:
            RejectedMessageError: The payload can't be decoded, or not without a loss.
        """
        ...
