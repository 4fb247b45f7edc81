"""Readings on their way to the database, as they were decoded: a row for each device and time of a message."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sens_telemetry_worker.tenants import MetricSet


@dataclass(frozen=True, slots=True)
class ReadingGroup:
    """Readings of one metric set; all columns have the same length n.

    Attributes:
        metric_set: Which values they have, w numbers and v texts.
        message_index: int32, index of the message that a reading came from.
        device_id: int32.
        measured_at: int64, microseconds since the Unix epoch.
        numbers: float64, n times w. NaN is no value: a measured number is finite.
        texts: str, n times v; None is no value.
    """

    metric_set: MetricSet
    message_index: NDArray[np.int32]
    device_id: NDArray[np.int32]
    measured_at: NDArray[np.int64]
    numbers: NDArray[np.float64]
    texts: NDArray[np.object_]

    @property
    def size(self) -> int:
        """How many readings there are."""
        return len(self.message_index)

    def selected(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return the readings of a mask (n booleans), or those at indices, in their order."""
        return type(self)(
            self.metric_set,
            self.message_index[index],
            self.device_id[index],
            self.measured_at[index],
            self.numbers[index],
            self.texts[index],
        )

    def sorted(self) -> Self:
        """Return the readings in the order of device and time."""
        return self.selected(np.lexsort((self.measured_at, self.device_id)))

    def value_counts(self) -> NDArray[np.int64]:
        """Return how many values each reading has, n of int64."""
        counts: NDArray[np.int64] = np.count_nonzero(~np.isnan(self.numbers), axis=1)
        if self.texts.size:
            counts += np.count_nonzero(self.texts != None, axis=1)  # noqa: E711 - of each element
        return counts

    def widened(self, metric_set: MetricSet) -> "ReadingGroup":
        """Return the readings in a set that contains theirs, without values of its other metrics."""
        numbers = np.full((self.size, len(metric_set.number_ids)), np.nan)
        numbers[:, np.searchsorted(metric_set.number_ids, self.metric_set.number_ids)] = self.numbers
        texts = np.full((self.size, len(metric_set.text_ids)), None, np.object_)
        texts[:, np.searchsorted(metric_set.text_ids, self.metric_set.text_ids)] = self.texts
        return ReadingGroup(metric_set, self.message_index, self.device_id, self.measured_at, numbers, texts)


class Reading(NamedTuple):
    """One reading by itself.

    Attributes:
        message_index: Index of the message that it came from.
        device_id: Its device.
        measured_at: Microseconds since the Unix epoch.
        values: By the ids of their metrics; a text is one of a metric of kind text.
    """

    message_index: int
    device_id: int
    measured_at: int
    values: Mapping[int, float | str]


class Rows(NamedTuple):
    """The readings of some messages, as they were decoded; each group has another metric set."""

    groups: list[ReadingGroup]

    def of_messages(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Return the readings of chosen messages: a boolean for each message of the batch."""
        groups = [group.selected(chosen[group.message_index]) for group in self.groups]
        return Rows([group for group in groups if group.size])

    def of_devices(self, device_ids: Iterable[int]) -> "Rows":
        """Return the readings of chosen devices."""
        chosen = np.fromiter(device_ids, np.int32)
        groups = [group.selected(np.isin(group.device_id, chosen)) for group in self.groups]
        return Rows([group for group in groups if group.size])

    @classmethod
    def empty(cls) -> Self:
        """Return no readings."""
        return cls([])

    def measured_at(self) -> NDArray[np.int64]:
        """Return the time of each reading, microseconds since the Unix epoch."""
        return np.concatenate([np.zeros(0, np.int64), *(group.measured_at for group in self.groups)])


def group_of(metric_set: MetricSet, readings: Sequence[Reading]) -> ReadingGroup:
    """Return readings as a group; the set has all their metrics and may have more."""
    numbers = [[reading.values.get(metric_id, np.nan) for metric_id in metric_set.number_ids] for reading in readings]
    texts = [[reading.values.get(metric_id) for metric_id in metric_set.text_ids] for reading in readings]
    return ReadingGroup(
        metric_set,
        np.array([reading.message_index for reading in readings], np.int32),
        np.array([reading.device_id for reading in readings], np.int32),
        np.array([reading.measured_at for reading in readings], np.int64),
        np.array(numbers, np.float64).reshape(len(readings), len(metric_set.number_ids)),
        text_array(texts, len(metric_set.text_ids)),
    )


def text_array(texts: Sequence[Sequence[object]], width: int) -> NDArray[np.object_]:
    """Return texts, n times `width`, as an array."""
    array = np.empty((len(texts), width), np.object_)
    if array.size:
        array[:] = texts
    return array


def joined(groups: Iterable[ReadingGroup]) -> list[ReadingGroup]:
    """Return the readings with one group for each metric set."""
    by_set: dict[MetricSet, list[ReadingGroup]] = {}
    for group in groups:
        if group.size:
            by_set.setdefault(group.metric_set, []).append(group)
    return [parts[0] if len(parts) == 1 else _concatenated(parts) for parts in by_set.values()]


def _concatenated(parts: Sequence[ReadingGroup]) -> ReadingGroup:
    return ReadingGroup(
        parts[0].metric_set,
        np.concatenate([part.message_index for part in parts]),
        np.concatenate([part.device_id for part in parts]),
        np.concatenate([part.measured_at for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.texts for part in parts]),
    )
