"""What was measured of formats, and of tenants beside each other, as it is written to JSON and read again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """What a message of a format costs to be decoded and made rows, and one of SENS' own measured next to it.

    Attributes:
        messages: How many of each.
        microseconds: CPU time of a message, of the process and its children.
        native_microseconds: The same of SENS' own.
    """

    messages: int
    microseconds: float
    native_microseconds: float


@dataclass(frozen=True)
class Beside:
    """How long messages of a tenant took while another tenant's codec decoded, and while it never ended.

    Attributes:
        milliseconds: Percentiles of the time from publish to visible, beside a codec that ends.
        endless_milliseconds: The same beside one that does not.
    """

    milliseconds: dict[str, float]
    endless_milliseconds: dict[str, float]


@dataclass(frozen=True)
class Fairness:
    """Two tenants, of whom one has a codec that never ends.

    Attributes:
        rate: Messages a second of the tenant whose messages are looked at.
        other_rate: Those of the other one, all decoded by its codec.
        seconds: Length of a run.
        runs: Each with both codecs, one after the other.
    """

    rate: float
    other_rate: float
    seconds: float
    runs: list[Beside]
