"""Payloads that are decoded together: what a format may offer beside its two functions."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sens_common.formats import Format, MetricKind


class Columns(NamedTuple):
    """Payloads of one layout, decoded: n of them.

    Attributes:
        indexes: int64, n: their indexes among the payloads that were given; the others are left to the format's `decode`.
        times: int64, n: microseconds since the epoch.
        numbers: float64, n times the number of metrics that are no texts, in their order; booleans are 0 and 1.
        texts: For each metric of text, n texts.
    """

    indexes: NDArray[np.int64]
    times: NDArray[np.int64]
    numbers: NDArray[np.float64]
    texts: list[list[str]]


class Layout(Protocol):
    """The names and kinds of value that many payloads have alike; equal layouts of a format are one object while it is remembered."""

    @property
    def metrics(self) -> tuple[tuple[str, MetricKind], ...]:
        """Names and kinds of the values."""

    def decode(self, payloads: Sequence[bytes], received_at: NDArray[np.int64]) -> Columns:
        """Decode those payloads that are of this layout beyond doubt, to what the format's `decode` would return as measurements.

        Args:
            payloads: As published.
            received_at: When each was received, microseconds since the epoch.
        """


class ColumnFormat(Format, Protocol):
    """A payload format that knows layouts."""

    def layout_of(self, payload: bytes, /) -> Layout | None:
        """Return the layout of a payload that `decode_if_flat` decodes, None where it has none."""
