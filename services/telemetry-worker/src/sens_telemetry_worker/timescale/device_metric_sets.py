"""The table of each device's metric sets: which it has, and on which days (UTC) the first and the last reading of each may lie.

Whoever deletes readings may leave the days too wide. Who deletes rows of the table, or narrows their days, raises the generation of ids behind
its gate, so that no worker relies on what was there.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Final, NamedTuple

import numpy as np

from sens_common.database import Connection
from sens_common.metric_sets import MAX_SETS_OF_DEVICE, MAX_UNION_RATIO
from sens_telemetry_worker.preparing import PreparedRows
from sens_telemetry_worker.rows import ReadingGroup, joined
from sens_telemetry_worker.tenants import MetricSet, union_of
from sens_telemetry_worker.timescale.metric_sets import MetricSets, SetContents
from sens_telemetry_worker.topic_resolving import MAX_CACHED_TOPICS

MAX_CACHED_DEVICES: Final = MAX_CACHED_TOPICS
_DAY_MICROSECONDS: Final = 86_400_000_000
_EPOCH: Final = date(1970, 1, 1).toordinal()

_LOAD: Final = (
    "SELECT device_id, metric_set_id, first_day, last_day FROM sens.device_metric_sets WHERE device_id = ANY ($1)"
)
_WIDEN: Final = """
    INSERT INTO sens.device_metric_sets AS known (device_id, metric_set_id, first_day, last_day)
    SELECT * FROM unnest($1::int[], $2::int[], $3::date[], $4::date[])
    ON CONFLICT (device_id, metric_set_id) DO UPDATE
    SET first_day = least(known.first_day, excluded.first_day), last_day = greatest(known.last_day, excluded.last_day)
    WHERE known.first_day > excluded.first_day OR known.last_day < excluded.last_day
"""


class Days(NamedTuple):
    """From the first to the last day, days since the epoch."""

    first: int
    last: int

    def contains(self, other: "Days") -> bool:
        """Tell whether these days are the other ones and perhaps more."""
        return self.first <= other.first and other.last <= self.last

    def widened(self, other: "Days | None") -> "Days":
        """Return the days that contain both."""
        return self if other is None else Days(min(self.first, other.first), max(self.last, other.last))


type DaysOfDevices = dict[int, dict[int, Days]]
"""By device and set."""


class Learned(NamedTuple):
    """What a transaction has written of sets, to be remembered when it is committed.

    Attributes:
        set_ids: Of new sets.
        days: By device and set.
    """

    set_ids: dict[MetricSet, int]
    days: dict[tuple[int, int], Days]


class AssignedRows(NamedTuple):
    """Prepared rows in the sets that they are stored in.

    Attributes:
        inserts: As `PreparedRows.inserts`.
        updates: As `PreparedRows.updates`.
        set_ids: Of all their sets.
        learned: What to remember.
    """

    inserts: list[ReadingGroup]
    updates: list[ReadingGroup]
    set_ids: Mapping[MetricSet, int]
    learned: Learned


class DeviceMetricSets:
    """What is remembered of the table, for one generation of ids; see `store.TimescaleStore`."""

    def __init__(self, sets: MetricSets) -> None:
        self._sets = sets
        self._devices: DaysOfDevices = {}

    def forget(self) -> None:
        """Forget everything: devices or metrics were deleted."""
        self._devices.clear()

    def remember(self, learned: Learned) -> None:
        """Remember what a committed transaction has written."""
        self._sets.remember(learned.set_ids)
        for (device_id, set_id), days in learned.days.items():
            known = self._devices.get(device_id)
            if known is not None:  # else the cache has begun again, and would not know the device's other sets
                known[set_id] = days.widened(known.get(set_id))

    async def assign(self, connection: Connection, prepared: PreparedRows) -> AssignedRows:
        """Register the sets of rows, and write that their devices have them on these days; costs nothing where all of it is known."""
        inserts, updates = prepared.inserts, prepared.updates
        set_ids = await self._sets.find(connection, {group.metric_set for group in (*inserts, *updates)})
        if self._is_known(inserts, set_ids) and self._is_known(updates, set_ids):
            return AssignedRows(inserts, updates, set_ids, Learned({}, {}))
        known = await self._load(connection, [*inserts, *updates], set_ids)
        unions = await self._unions(connection, [*inserts, *updates], set_ids, known)
        if unions:
            inserts, updates = _in_unions(inserts, unions), _in_unions(updates, unions)
            set_ids = await self._sets.find(connection, {group.metric_set for group in (*inserts, *updates)})
        wanted = {group.metric_set for group in (*inserts, *updates)} - set_ids.keys()
        registered = await self._sets.register(connection, wanted)
        set_ids |= registered
        days = _new_days([*inserts, *updates], set_ids, known)
        if days:
            await _widen(connection, days)
        return AssignedRows(inserts, updates, set_ids, Learned(registered, days))

    def _is_known(self, groups: Iterable[ReadingGroup], set_ids: Mapping[MetricSet, int]) -> bool:
        for group in groups:
            set_id = set_ids.get(group.metric_set)
            if set_id is None:
                return False
            for device_id, first, last in _runs(group):
                known = self._devices.get(device_id)
                days = known.get(set_id) if known is not None else None
                if days is None or days[0] > first or days[1] < last:
                    return False
        return True

    async def _load(
        self, connection: Connection, groups: Sequence[ReadingGroup], set_ids: Mapping[MetricSet, int]
    ) -> DaysOfDevices:
        """Return what the devices of rows have; of those with a set that is new as it seems, what the database says now.

        Another lane may change what is remembered meanwhile, so that the answer is a copy.
        """
        known: DaysOfDevices = {}
        unknown: set[int] = set()
        for group in groups:
            set_id = set_ids.get(group.metric_set)
            for device_id in _devices(group):
                remembered = self._devices.get(device_id)
                if remembered is None or set_id not in remembered:
                    unknown.add(device_id)
                else:
                    known[device_id] = remembered
        if unknown:
            loaded: DaysOfDevices = {device_id: {} for device_id in unknown}
            for device_id, set_id, first_day, last_day in await connection.fetch(_LOAD, sorted(unknown)):
                loaded[device_id][set_id] = Days(first_day.toordinal() - _EPOCH, last_day.toordinal() - _EPOCH)
            if len(self._devices) + len(loaded) > MAX_CACHED_DEVICES:
                self._devices.clear()
            self._devices |= loaded
            known |= loaded
        return known

    async def _unions(
        self,
        connection: Connection,
        groups: Iterable[ReadingGroup],
        set_ids: Mapping[MetricSet, int],
        known: DaysOfDevices,
    ) -> dict[tuple[int, MetricSet], MetricSet]:
        """Return the sets in whose place a device gets another one, because it would have too many."""
        new: dict[int, set[MetricSet]] = {}
        for group in groups:
            set_id = set_ids.get(group.metric_set)
            for device_id in _devices(group):
                if set_id not in known[device_id]:
                    new.setdefault(device_id, set()).add(group.metric_set)
        crowded = {
            device_id: sets for device_id, sets in new.items() if len(sets) + len(known[device_id]) > MAX_SETS_OF_DEVICE
        }
        contents = await self._sets.contents(
            connection, {set_id for device_id in crowded for set_id in known[device_id]}
        )
        return {
            (device_id, metric_set): union
            for device_id, sets in crowded.items()
            for metric_set, union in _unions_of_device(sets, [contents[set_id] for set_id in known[device_id]]).items()
        }


def _new_days(
    groups: Iterable[ReadingGroup], set_ids: Mapping[MetricSet, int], known: DaysOfDevices
) -> dict[tuple[int, int], Days]:
    """Return the days that are not known to be written, in the order of the table's key."""
    new: dict[tuple[int, int], Days] = {}
    for group in groups:
        set_id = set_ids[group.metric_set]
        for device_id, first, last in _runs(group):
            days = Days(first, last)
            before = known[device_id].get(set_id)
            if before is None or not before.contains(days):
                new[device_id, set_id] = days.widened(new.get((device_id, set_id)))
    return dict(sorted(new.items()))


def _unions_of_device(new: Collection[MetricSet], known: Sequence[SetContents]) -> dict[MetricSet, MetricSet]:
    """Return for each new set the smallest known one that contains it, else the union of all of the device's metrics that exist, if it is due.

    The others stay as they are: each message of a device with a counter in its metric names would make a larger union else.
    """
    usable = sorted(
        (each.whole for each in known if each.whole == each.existing), key=lambda each: len(each.metric_ids)
    )
    known_ids = {metric_id for each in known for metric_id in each.existing.metric_ids}
    found: dict[MetricSet, MetricSet] = {}
    for each in new:
        if known_ids.issuperset(each.metric_ids):  # else none can contain it
            containing = next((candidate for candidate in usable if candidate.contains(each)), None)
            if containing is not None:
                found[each] = containing
    largest = set(usable[-1].metric_ids) if usable else set[int]()
    missing = sum(
        len(set(each.metric_ids) - largest)
        for each in (*(each for each in new if each not in found), *(each.existing for each in known))
    )
    everything = union_of([*new, *(each.existing for each in known)])
    if MAX_UNION_RATIO * missing >= len(everything.metric_ids):
        found |= {each: everything for each in new if each not in found}
    return found


def _in_unions(groups: Iterable[ReadingGroup], unions: Mapping[tuple[int, MetricSet], MetricSet]) -> list[ReadingGroup]:
    """Return the readings with those of some devices and sets in other sets."""
    found: list[ReadingGroup] = []
    for group in groups:
        targets = [unions.get((device_id, group.metric_set)) for device_id in group.device_id.tolist()]
        by_target: dict[MetricSet | None, list[int]] = {}
        for index, target in enumerate(targets):
            by_target.setdefault(target, []).append(index)
        for target, indexes in by_target.items():
            chosen = group.selected(np.array(indexes, np.intp))
            found.append(chosen if target is None else chosen.widened(target))
    return [group.sorted() for group in joined(found)]


def _devices(group: ReadingGroup) -> list[int]:
    devices: list[int] = np.unique(group.device_id).tolist()
    return devices


def _runs(group: ReadingGroup) -> Iterator[tuple[int, int, int]]:
    """Yield each device of a sorted group, with the days of its first and last reading."""
    starts = np.flatnonzero(np.diff(group.device_id, prepend=-1))
    ends = np.append(starts[1:], group.size) - 1
    days = group.measured_at // _DAY_MICROSECONDS
    return zip(group.device_id[starts].tolist(), days[starts].tolist(), days[ends].tolist(), strict=True)


async def _widen(connection: Connection, days: Mapping[tuple[int, int], Days]) -> None:
    await connection.execute(
        _WIDEN,
        [device_id for device_id, _ in days],
        [set_id for _, set_id in days],
        [date.fromordinal(_EPOCH + each.first) for each in days.values()],
        [date.fromordinal(_EPOCH + each.last) for each in days.values()],
    )
