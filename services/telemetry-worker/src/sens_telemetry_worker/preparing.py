"""Prepares readings for the table: one row for each device and time, and a message as a whole or not at all.

Readings of equal device and time become one row with the metrics of all. A message that says of a metric and a time something else than an
earlier message, or than what is stored, conflicts: nothing of it is stored. Messages are judged in their order, each against what is stored
and the earlier ones that do not conflict, so that one pass finds what preparing again without the conflicting messages would find.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sens_telemetry_worker.rows import Reading, ReadingGroup, Rows, group_of, joined
from sens_telemetry_worker.tenants import MetricSet, union_of

type ReadingKey = tuple[int, int]
"""A device's id, and microseconds since the Unix epoch."""


class StoredReading(NamedTuple):
    """What the database has for a device and time, as far as its metrics exist."""

    metric_set: MetricSet
    values: Mapping[int, float | str]


class Conflict(NamedTuple):
    """The first value of a message that is another one than the stored value.

    Attributes:
        metric_id: Of which metric.
        measured_at: At which time, microseconds since the Unix epoch.
        stored: The value that stays, which another message brought; or the same message before.
        refused: The value that is not stored.
        within_message: Whether the message says both.
    """

    metric_id: int
    measured_at: int
    stored: float | str
    refused: float | str
    within_message: bool


@dataclass(frozen=True, slots=True)
class PreparedRows:
    """What becomes of some messages' readings.

    Attributes:
        inserts: Rows for keys that are not stored; each group is sorted by device and time, no key is there twice.
        updates: Rows that take the place of stored ones: these and further values.
        conflicts: Messages that say something else than what is stored, or will be; nothing of them is in the rows.
        new_values: int64, for each message of the batch the number of its values that were not stored before.
    """

    inserts: list[ReadingGroup]
    updates: list[ReadingGroup]
    conflicts: Mapping[int, Conflict]
    new_values: NDArray[np.int64]


_NOTHING: Final[Mapping[ReadingKey, StoredReading]] = {}


def prepare(rows: Rows, message_count: int, stored: Mapping[ReadingKey, StoredReading] = _NOTHING) -> PreparedRows:
    """Unite readings of equal device and time, and find the messages that conflict.

    Args:
        rows: As they were decoded.
        message_count: Of the batch.
        stored: What is stored for keys of the rows.
    """
    shared = _shared(rows.groups, stored)
    if not any(mask.any() for mask in shared):
        return PreparedRows(
            [group.sorted() for group in rows.groups], [], {}, _values_per_message(rows.groups, message_count)
        )
    judged = _judge(_readings(rows.groups, shared), stored)
    stays = np.ones(message_count, np.bool_)
    stays[list(judged.conflicts)] = False
    apart = [
        group.selected(~mask & stays[group.message_index]) for group, mask in zip(rows.groups, shared, strict=True)
    ]
    new_values = _values_per_message(apart, message_count)
    for message_index, count in judged.new_values.items():
        new_values[message_index] += count
    united = [reading for key, reading in judged.rows.items() if key not in stored]
    changed = [reading for key, reading in judged.rows.items() if key in stored]
    return PreparedRows(
        [group.sorted() for group in joined([*apart, *_grouped(united)])],
        [group.sorted() for group in _grouped(changed)],
        judged.conflicts,
        new_values,
    )


def devices_with_additions(rows: Rows, stored: Mapping[ReadingKey, StoredReading]) -> set[int]:
    """Return the devices of stored readings for which some message, conflicting or not, has a metric that has no value there yet."""
    masks = [
        np.fromiter((key in stored for key in zip(*_keys(group), strict=True)), np.bool_, group.size)
        for group in rows.groups
    ]
    return {
        reading.device_id
        for reading, _ in _readings(rows.groups, masks)
        if not reading.values.keys() <= stored[reading.device_id, reading.measured_at].values.keys()
    }


def _keys(group: ReadingGroup) -> tuple[list[int], list[int]]:
    return group.device_id.tolist(), group.measured_at.tolist()


def _shared(groups: Sequence[ReadingGroup], stored: Mapping[ReadingKey, StoredReading]) -> list[NDArray[np.bool_]]:
    """Return, for each group, which readings have a key that is stored or that another reading has too."""
    if not groups:
        return []
    devices = np.concatenate([group.device_id for group in groups])
    times = np.concatenate([group.measured_at for group in groups])
    order = np.lexsort((times, devices))
    equal = (np.diff(devices[order]) == 0) & (np.diff(times[order]) == 0)
    mask = np.zeros(len(order), np.bool_)
    if equal.any():
        mask[order[1:][equal]] = True
        mask[order[:-1][equal]] = True
    if stored:
        keys = zip(devices.tolist(), times.tolist(), strict=True)
        mask |= np.fromiter((key in stored for key in keys), np.bool_, len(order))
    return np.split(mask, np.cumsum([group.size for group in groups])[:-1])


class _KeyedReading(NamedTuple):
    """A reading and the set it will be stored in."""

    reading: Reading
    metric_set: MetricSet


class _Judged(NamedTuple):
    """What was decided of messages one by one.

    Attributes:
        rows: What is to be written, by key; stored rows that stay as they are left out.
        conflicts: By message.
        new_values: By message, of those that do not conflict.
    """

    rows: dict[ReadingKey, _KeyedReading]
    conflicts: dict[int, Conflict]
    new_values: dict[int, int]


def _readings(groups: Sequence[ReadingGroup], masks: Sequence[NDArray[np.bool_]]) -> list[_KeyedReading]:
    """Return the readings of the masks, in the order of their messages."""
    found: list[_KeyedReading] = []
    for group, mask in zip(groups, masks, strict=True):
        chosen = group.selected(mask)
        for message_index, device_id, measured_at, numbers, texts in zip(
            chosen.message_index.tolist(),
            chosen.device_id.tolist(),
            chosen.measured_at.tolist(),
            chosen.numbers.tolist(),
            chosen.texts.tolist(),
            strict=True,
        ):
            values: dict[int, float | str] = {
                metric_id: value
                for metric_id, value in zip(group.metric_set.number_ids, numbers, strict=True)
                if value == value  # noqa: PLR0124 - NaN is no value
            }
            values |= {
                metric_id: text
                for metric_id, text in zip(group.metric_set.text_ids, texts, strict=True)
                if text is not None
            }
            found.append(_KeyedReading(Reading(message_index, device_id, measured_at, values), group.metric_set))
    return sorted(found, key=lambda each: each.reading.message_index)


def _judge(readings: Iterable[_KeyedReading], stored: Mapping[ReadingKey, StoredReading]) -> _Judged:
    """Decide message by message whether it is stored as a whole or conflicts."""
    judged = _Judged({}, {}, {})
    for message_index, of_message in groupby(readings, key=attrgetter("reading.message_index")):
        additions: dict[ReadingKey, dict[int, float | str]] = {}
        sets: dict[ReadingKey, MetricSet] = {}
        conflict: Conflict | None = None
        for reading, metric_set in of_message:
            key = reading.device_id, reading.measured_at
            added = additions.setdefault(key, {})
            row = judged.rows.get(key)
            before = row.reading.values if row is not None else stored[key].values if key in stored else {}
            conflict = conflict or _conflict(reading, before, added)
            added |= {metric_id: value for metric_id, value in reading.values.items() if metric_id not in before}
            sets[key] = union_of((sets[key], metric_set)) if key in sets else metric_set
        if conflict is not None:
            judged.conflicts[message_index] = conflict
            continue
        judged.new_values[message_index] = sum(map(len, additions.values()))
        for key, added in additions.items():
            if added:
                row = judged.rows.get(key) or _stored_row(message_index, key, stored, sets[key])
                values = {**row.reading.values, **added}
                united = union_of((row.metric_set, sets[key]))
                judged.rows[key] = _KeyedReading(row.reading._replace(values=values), united)
    return judged


def _stored_row(
    message_index: int, key: ReadingKey, stored: Mapping[ReadingKey, StoredReading], metric_set: MetricSet
) -> _KeyedReading:
    """Return what is stored for a key as a row to add to; an empty one where nothing is."""
    before = stored.get(key) or StoredReading(metric_set, {})
    return _KeyedReading(Reading(message_index, *key, before.values), before.metric_set)


def _conflict(reading: Reading, before: Mapping[int, float | str], added: Mapping[int, float | str]) -> Conflict | None:
    """Return the first value of a reading that differs from another message's, or from what its own message has said before."""
    for metric_id, value in reading.values.items():
        if before.get(metric_id, value) != value:
            return Conflict(metric_id, reading.measured_at, before[metric_id], value, within_message=False)
        if added.get(metric_id, value) != value:
            return Conflict(metric_id, reading.measured_at, added[metric_id], value, within_message=True)
    return None


def _grouped(readings: Iterable[_KeyedReading]) -> Iterator[ReadingGroup]:
    by_set: dict[MetricSet, list[Reading]] = {}
    for reading, metric_set in readings:
        by_set.setdefault(metric_set, []).append(reading)
    for metric_set, of_set in by_set.items():
        yield group_of(metric_set, of_set)


def _values_per_message(groups: Iterable[ReadingGroup], message_count: int) -> NDArray[np.int64]:
    counts = np.zeros(message_count, np.int64)
    for group in groups:
        counts += np.bincount(group.message_index, group.value_counts(), message_count).astype(np.int64)
    return counts
