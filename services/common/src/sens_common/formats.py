"""Payload formats: the contract between the worker and the formats that it knows.

A process knows any number of formats, by name; the topic says which one a payload has (`sens_common.topics.Route.format`).
"""

from typing import Final, Literal, NamedTuple, Protocol

type Value = bool | float | str
"""A number is always a float, so that ``bool`` and ``float`` tell the kinds apart."""

MetricKind = Literal["number", "boolean", "text"]
"""What the values of a metric are; names with values of several kinds are several metrics."""

KINDS: Final[dict[type, MetricKind]] = {float: "number", int: "number", bool: "boolean", str: "text"}
"""The kind of a value as parsed, by its type."""

type FlatPayload = tuple[int, dict[str, object]]
"""The time of all values, microseconds since the epoch, and the values by the names of their metrics."""

EXACT_BELOW: Final = 2**53
"""Smaller integers are exact as 64-bit floats (IEEE 754 binary64)."""
MAX_TEXT_CHARACTERS: Final = 4096


class Measurement(NamedTuple):
    """One value of one metric at one time.

    Attributes:
        metric: Name, 1 to 200 characters.
        measured_at: Microseconds since the epoch.
        value: As the device sent it.
    """

    metric: str
    measured_at: int
    value: Value


class Format(Protocol):
    """A payload format: two pure functions. They know no clock, read and write nothing, and give the same answer for the same bytes.

    A module with these two functions is a format.
    """

    def decode(self, payload: bytes, received_at: int, /) -> list[Measurement]:
        """Return the measurements of one message, in the order in which the payload has them; at least one.

        Args:
            payload: As published.
            received_at: When the message was received, microseconds since the epoch; the time of measurements that carry none.

        Raises:
            RejectedMessageError: The payload can't be decoded, or not without a loss. No bytes make it raise anything else.
        """

    def decode_if_flat(self, payload: bytes, received_at: int, /) -> FlatPayload | None:
        """Return time and values of a message in which one time is that of all values; None leaves it to `decode`.

        The worker stores such messages column by column, which is several times as fast. Whatever this returns, `decode` would return the same
        as measurements. Names are checked. Values are as parsed: where one of them is not a boolean, a number whose magnitude is below
        `EXACT_BELOW`, or a text that `is_plain_text`, the worker asks `decode` all the same. A format without a fast way returns None always.

        Args:
            payload: As published.
            received_at: As for `decode`.

        Raises:
            RejectedMessageError: `decode` would raise it too; this may also leave that to `decode`.
        """


def is_plain_text(value: str) -> bool:
    """Tell whether a text can be stored as it is."""
    return len(value) <= MAX_TEXT_CHARACTERS and "\0" not in value
