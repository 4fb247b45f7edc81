"""Messages of one shape: those of a tenant with the same names and kinds of value, whose values are columns.

They come from payloads that a layout decodes together (`layouts`), or are gathered here from payloads that were parsed one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sens_common.formats import EXACT_BELOW, MetricKind, is_plain_text
from sens_telemetry_worker.tenants import Tenant

MIN_MESSAGES: Final = 8
"""Fewer messages of one shape are not worth arrays of their own."""


class Shape(NamedTuple):
    """n decoded messages of one tenant with the same names and kinds of value.

    Attributes:
        tenant: Their tenant.
        metrics: Names and kinds of the values, in the order of the payload.
        message_index: int32, n.
        device_id: int32, n.
        measured_at: int64, n: microseconds since the epoch.
        numbers: float64, n times the number of metrics that are no texts, in their order; booleans are 0 and 1.
        texts: str, n times the number of metrics that are texts.
    """

    tenant: Tenant
    metrics: tuple[tuple[str, MetricKind], ...]
    message_index: NDArray[np.int32]
    device_id: NDArray[np.int32]
    measured_at: NDArray[np.int64]
    numbers: NDArray[np.float64]
    texts: NDArray[np.object_]

    def only(self, chosen: NDArray[np.bool_]) -> "Shape":
        """Return the messages of a mask, n booleans."""
        return Shape(
            self.tenant,
            self.metrics,
            self.message_index[chosen],
            self.device_id[chosen],
            self.measured_at[chosen],
            self.numbers[chosen],
            self.texts[chosen],
        )


@dataclass(slots=True)
class GatheredMessages:
    """Messages of one tenant with the same names and kinds of value, in the same order, as they are gathered.

    Attributes:
        tenant: Their tenant.
        names: Of the metrics, w of them.
        kinds: Of their values, w; None is a kind that is not stored.
        message_indexes: Indexes of the n messages.
        device_ids: Ids of their devices, n.
        times: Microseconds since the epoch, n.
        values: n times w, message by message.
    """

    tenant: Tenant
    names: tuple[str, ...]
    kinds: tuple[MetricKind | None, ...]
    message_indexes: list[int] = field(default_factory=list)
    device_ids: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def decoded(self) -> tuple[Shape | None, Sequence[int]]:
        """Return the messages as columns, and the indexes of those messages of which only the format's `decode` can judge a value."""
        count = len(self.message_indexes)
        metrics = tuple((name, kind) for name, kind in zip(self.names, self.kinds, strict=True) if kind is not None)
        if len(metrics) < len(self.names) or count < MIN_MESSAGES:
            return None, self.message_indexes
        plain = np.ones(count, np.bool_)
        numbers: list[NDArray[np.float64]] = []
        texts: list[list[str]] = []
        for metric_index, kind in enumerate(self.kinds):
            column = self.values[metric_index :: len(self.names)]
            if kind == "text":
                texts.append(column)  # type: ignore[arg-type]
                plain &= np.fromiter(map(is_plain_text, column), np.bool_, count)  # type: ignore[arg-type]
            else:
                numbers.append(np.fromiter(column, np.float64, count))
                if kind == "number":
                    plain &= np.abs(numbers[-1]) < EXACT_BELOW
        if not plain.any():
            return None, self.message_indexes
        message_index = np.array(self.message_indexes, np.int32)
        shape = Shape(
            self.tenant,
            metrics,
            message_index,
            np.array(self.device_ids, np.int32),
            np.array(self.times, np.int64),
            np.stack(numbers, axis=1) if numbers else np.empty((count, 0)),
            text_columns(texts, count),
        )
        return (shape, ()) if plain.all() else (shape.only(plain), message_index[~plain].tolist())


def text_columns(columns: Sequence[Sequence[str]], count: int) -> NDArray[np.object_]:
    """Return columns of `count` texts as an array with a row for each message."""
    array = np.empty((count, len(columns)), np.object_)
    for index, column in enumerate(columns):
        array[:, index] = column
    return array
