"""The API's ports in memory: the data of tenants, and what each of them sees of it."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sens_common.tenant_limits import MqttSource, TenantLimits
from sens_mock_mqtt_broker.topics import matches
from sens_platform_api.audit.repository import ADMINISTRATOR, StoredEvent
from sens_platform_api.caller import Caller
from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.repository import StoredDeadLetter, Summary
from sens_platform_api.devices.repository import Device, Kind, Latest, LatestOfDevice, Series, Value
from sens_platform_api.errors import NotFoundError
from sens_platform_api.measurements.query import QueriedSeries
from sens_platform_api.overview.repository import Overview
from sens_platform_api.registry.repository import DeletionStep, Metric
from support.letters import LetterRow, stored_dead_letter
from support.memory_measurements import MemoryMeasurements
from support.stored_rows import Row
from support.tenant_data import TENANTS

_LIMIT = 1000


@dataclass
class MemoryDeletion:
    """A deletion whose measurements are not all gone: those of a device, or those of metrics."""

    id: int
    device_id: int | None
    metric_ids: frozenset[int] = frozenset()

    def concerns(self, device_id: int, metric_id: int) -> bool:
        return device_id == self.device_id or metric_id in self.metric_ids


@dataclass
class MemoryDatabase:
    """What tenants share.

    Attributes:
        measurements: By the ids of device and metric, and the time.
        deletions: The one that was left alone for longest comes first.
        audit: Events of tenants, and those of none.
        letters: With the name of the tenant that each belongs to.
        ids: Gives the next id.
    """

    measurements: dict[tuple[int, int, datetime], Value] = field(default_factory=dict)
    deletions: list[MemoryDeletion] = field(default_factory=list)
    audit: list[StoredEvent] = field(default_factory=list)
    letters: dict[int, tuple[str | None, StoredDeadLetter]] = field(default_factory=dict)
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def record(self, tenant: str | None, actor: str, action: str, subject: str, **details: object) -> None:
        self.audit.append(
            StoredEvent(next(self.ids), datetime.now(UTC), tenant, actor, action, subject, details, None, None),
        )


@dataclass
class MemoryTenant:
    """A tenant's devices, metrics, counts and limit.

    Attributes:
        metrics: With their ids.
        counts: Messages by the words of the conservation.
    """

    database: MemoryDatabase
    name: str
    id: int
    devices: dict[str, Device] = field(default_factory=dict)
    metrics: dict[tuple[str, Kind], tuple[int, Metric]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    messages_per_second: int | None = None
    mqtt_sources: dict[str, str] = field(default_factory=dict)
    is_deleted: bool = False

    def register(self, device: str, metric: str, kind: Kind) -> tuple[int, int]:
        """Return the ids of a device and a metric, which are new or not."""
        ids, now = self.database.ids, datetime.now(UTC)
        if device not in self.devices:
            self.devices[device] = Device(next(ids), device, now)
        if (metric, kind) not in self.metrics:
            self.metrics[metric, kind] = next(ids), Metric(metric, kind, now)
        return self.devices[device].id, self.metrics[metric, kind][0]


class MemoryDevices:
    """The devices of one tenant, as `devices.service.Devices`."""

    def __init__(self, tenant: MemoryTenant) -> None:
        self._tenant = tenant

    def with_calibration(self, setting: str) -> "MemoryDevices":  # noqa: ARG002 - nothing is calibrated here
        return self

    async def by_name(self, *, after: str, prefix: str, limit: int) -> list[Device]:
        names = sorted(name for name in self._tenant.devices if name > after and name.startswith(prefix))
        return [self._tenant.devices[name] for name in names[:limit]]

    async def latest(self, name: str) -> LatestOfDevice | None:
        device = self._tenant.devices.get(name)
        if device is None:
            return None
        found = []
        for (metric, kind), (metric_id, _) in sorted(self._tenant.metrics.items()):
            values = {
                key[2]: value
                for key, value in self._tenant.database.measurements.items()
                if key[:2] == (device.id, metric_id)
            }
            if values:
                last = max(values)
                found.append(Latest(Series(metric_id, metric, kind), last, values[last]))
        return LatestOfDevice(device, found)

    async def latest_by_name(self, *, after: str, prefix: str, limit: int, value_limit: int) -> list[LatestOfDevice]:
        page: list[LatestOfDevice] = []
        for device in await self.by_name(after=after, prefix=prefix, limit=limit):
            found = await self.latest(device.name)
            assert found is not None
            value_limit -= len(found.latest)
            if page and value_limit < 0:
                break
            page.append(found)
        return page


class MemoryNames:
    """The names of one tenant and their deletion, as `registry.service.Names`."""

    def __init__(self, tenant: MemoryTenant, caller: Caller) -> None:
        self._tenant = tenant
        self._caller = caller

    async def metrics(self, *, after: tuple[str, str], prefix: str, limit: int) -> list[Metric]:
        keys = sorted(key for key in self._tenant.metrics if key > after and key[0].startswith(prefix))
        return [self._tenant.metrics[key][1] for key in keys[:limit]]

    async def delete_device(self, name: str) -> bool:
        device = self._tenant.devices.pop(name, None)
        if device is None:
            return False
        database = self._tenant.database
        database.deletions.append(MemoryDeletion(next(database.ids), device.id))
        database.record(self._tenant.name, self._caller.actor, "device.deleted", name)
        return True

    async def delete_metric(self, name: str, kind: Kind | None) -> list[Kind]:
        gone = sorted(key for key in self._tenant.metrics if key[0] == name and kind in {None, key[1]})
        if gone:
            database = self._tenant.database
            ids = frozenset(self._tenant.metrics.pop(key)[0] for key in gone)
            database.deletions.append(MemoryDeletion(next(database.ids), None, ids))
            database.record(self._tenant.name, self._caller.actor, "metric.deleted", name)
        return [kind for _, kind in gone]


class MemoryDeletions:
    """The deletions of all tenants, as `registry.service.Deletions`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def step(self, most: int) -> DeletionStep | None:
        if not self._database.deletions:
            return None
        deletion = self._database.deletions.pop(0)
        measurements = self._database.measurements
        keys = list(itertools.islice((key for key in measurements if deletion.concerns(*key[:2])), most))
        for key in keys:
            del measurements[key]
        finished = len(keys) < most
        if not finished:
            self._database.deletions.append(deletion)
        return DeletionStep(deletion.id, len(keys), finished)


class MemoryEvents:
    """The events of one tenant, as `audit.service.Events`."""

    def __init__(self, tenant: MemoryTenant) -> None:
        self._tenant = tenant

    async def newest(self, *, before: int | None, limit: int) -> list[StoredEvent]:
        found = [
            event
            for event in reversed(self._tenant.database.audit)
            if event.tenant == self._tenant.name and (before is None or event.id < before)
        ]
        return found[:limit]


class MemoryNumbers:
    """The numbers of one tenant, as `overview.service.Numbers`."""

    def __init__(self, tenant: MemoryTenant) -> None:
        self._tenant = tenant

    async def overview(self) -> Overview | None:
        tenant = self._tenant
        if tenant.is_deleted:
            return None
        letters = [letter for name, letter in tenant.database.letters.values() if name == tenant.name]
        size = sum(
            len(letter.payload) + len(letter.summary.topic.encode()) + len(letter.summary.detail.encode())
            for letter in letters
        )
        words = ("received", "stored", "duplicate", "dead_lettered", "discarded", "without_measurements")
        counts = {word: tenant.counts[word] for word in words}
        return Overview(
            len(tenant.devices),
            _LIMIT,
            len(tenant.metrics),
            _LIMIT,
            len(letters),
            _LIMIT,
            size,
            _LIMIT,
            0,
            None,
            None,
            **counts,
        )


class MemoryLetters:
    """The dead letters of one tenant, as `dead_letters.service.Letters`."""

    def __init__(self, database: MemoryDatabase, tenant: str) -> None:
        self._database = database
        self._letters = database.letters
        self._tenant = tenant

    async def page(self, wanted: Filter, *, below: int | None, limit: int) -> list[Summary]:
        found = self._matching(wanted, until=None if below is None else below - 1)
        return [letter.summary for letter in found[::-1][:limit]]

    async def get(self, letter_id: int) -> StoredDeadLetter:
        found = [letter for letter in self._matching(Filter()) if letter.summary.id == letter_id]
        if not found:
            raise NotFoundError(f"there is no dead letter {letter_id}; it may have been replayed or deleted meanwhile")
        return found[0]

    async def oldest(
        self, wanted: Filter, *, above: int, until: int, limit: int, max_bytes: int
    ) -> list[StoredDeadLetter]:
        found = self._matching(wanted, above=above, until=until)[:limit]
        sizes = itertools.accumulate(len(letter.payload) for letter in found)
        fitting = sum(size <= max_bytes for size in sizes)
        return found[: max(1, fitting)]

    async def last_id(self) -> int:
        return max((letter.summary.id for letter in self._matching(Filter())), default=0)

    async def count(self, wanted: Filter, *, above: int = 0, until: int | None = None) -> int:
        return len(self._matching(wanted, above=above, until=until))

    async def delete_replayed(self, letters: Sequence[tuple[int, int]]) -> int:
        return self._delete(
            [each for each in self._matching(Filter()) if (each.summary.id, each.summary.replays) in letters]
        )

    async def delete_many(self, wanted: Filter, *, limit: int) -> int:
        deleted = self._delete(self._matching(wanted)[:limit])
        if deleted:
            self._database.record(
                self._tenant, "key 1 (unnamed)", "dead_letters.deleted", "dead letters", deleted=deleted
            )
        return deleted

    def _matching(self, wanted: Filter, *, above: int = 0, until: int | None = None) -> list[StoredDeadLetter]:
        """Return the tenant's dead letters that pass the filter, the oldest first."""
        return [
            letter
            for letter_id, (tenant, letter) in sorted(self._letters.items())
            if tenant == self._tenant
            and letter_id > above
            and (until is None or letter_id <= until)
            and _passes(letter.summary, wanted)
        ]

    def _delete(self, letters: list[StoredDeadLetter]) -> int:
        for letter in letters:
            del self._letters[letter.summary.id]
        return len(letters)


def _passes(summary: Summary, wanted: Filter) -> bool:
    return (
        wanted.reason in {None, summary.reason}
        and wanted.device in {None, summary.device}
        and (wanted.topic is None or matches(tuple(wanted.topic.split("/")), summary.topic))
        and (wanted.since is None or summary.dead_lettered_at >= wanted.since)
        and (wanted.before is None or summary.dead_lettered_at < wanted.before)
    )


class MemoryTenantData:
    """The tenants' data in memory, as `tenant_data.TenantData`."""

    def __init__(self) -> None:
        self._database = MemoryDatabase()
        self._tenants = {name: MemoryTenant(self._database, name, next(self._database.ids)) for name in TENANTS}
        self.deletions = MemoryDeletions(self._database)

    def devices(self, tenant: str) -> MemoryDevices:
        return MemoryDevices(self._tenants[tenant])

    def names(self, tenant: str) -> MemoryNames:
        return MemoryNames(self._tenants[tenant], Caller(1, self._tenants[tenant].id, tenant))

    def events(self, tenant: str) -> MemoryEvents:
        return MemoryEvents(self._tenants[tenant])

    def numbers(self, tenant: str) -> MemoryNumbers:
        return MemoryNumbers(self._tenants[tenant])

    def letters(self, tenant: str) -> MemoryLetters:
        return MemoryLetters(self._database, tenant)

    def measurements(self, tenant: str) -> MemoryMeasurements:
        devices = self._tenants[tenant].devices
        metrics = self._tenants[tenant].metrics

        def series() -> list[QueriedSeries]:
            stored = {key[:2] for key in self._database.measurements}
            return [
                QueriedSeries(device.id, device.name, metric_id, name, kind)
                for device in devices.values()
                for (name, kind), (metric_id, _) in sorted(metrics.items())
                if (device.id, metric_id) in stored
            ]

        return MemoryMeasurements(series, devices, self._database.measurements)

    @property
    def limits(self) -> "MemoryLimits":
        return MemoryLimits(self._tenants)

    async def store(self, tenant: str, rows: Sequence[Row]) -> None:
        for device, metric, time, value in rows:
            kind: Kind = "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"
            self._database.measurements[*self._tenants[tenant].register(device, metric, kind), time] = value

    async def count(self, tenant: str, word: str, messages: int) -> None:
        self._tenants[tenant].counts[word] += messages

    async def keep(self, letters: Sequence[LetterRow]) -> list[int]:
        return [self._keep(letter) for letter in letters]

    def _keep(self, letter: LetterRow) -> int:
        letter_id = next(self._database.ids)
        self._database.letters[letter_id] = (letter.tenant, stored_dead_letter(letter, letter_id))
        return letter_id

    async def record(self, tenant: str | None, action: str) -> None:
        self._database.record(tenant, ADMINISTRATOR, action, "it")

    async def limit_rate(self, tenant: str, messages_per_second: int | None) -> None:
        self._tenants[tenant].messages_per_second = messages_per_second

    async def add_source(self, tenant: str, name: str, topic_filter: str | None) -> None:
        if topic_filter is not None:
            self._tenants[tenant].mqtt_sources[name] = topic_filter

    async def remove(self, tenant: str) -> None:
        self._tenants[tenant].is_deleted = True

    async def measurement_count(self) -> int:
        return len(self._database.measurements)


@dataclass
class MemoryLimits:
    """What ingestion workers have to know, as `tenants.service.StoredLimits`."""

    tenants: dict[str, MemoryTenant]

    async def limits(self) -> dict[str, TenantLimits]:
        """Return what holds for each tenant that has a rate or a source."""
        return {
            name: TenantLimits(
                tenant.messages_per_second, tuple(MqttSource(*each) for each in sorted(tenant.mqtt_sources.items()))
            )
            for name, tenant in self.tenants.items()
            if tenant.messages_per_second is not None or tenant.mqtt_sources
        }
