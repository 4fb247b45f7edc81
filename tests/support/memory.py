"""The workers' ports in memory: what the pipelines talk to when a test looks at them alone."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sens_common.dead_letters import Origin, Reason
from sens_common.envelope import Message, mark
from sens_common.live import LiveReading
from sens_common.topics import TOPICS
from sens_mqtt_ingestion_worker.pipeline import Delivery, SourceUnavailableError, SupersededError
from sens_mqtt_ingestion_worker.status import Waiting
from sens_telemetry_worker.accounting import AccountsUpdate, WrittenPart, accounts_update
from sens_telemetry_worker.batch import BatchPart, StreamPosition
from sens_telemetry_worker.letters import Letter, Quota, apportion, dead_letters
from sens_telemetry_worker.preparing import Conflict
from sens_telemetry_worker.storing import ProgressMadeElsewhereError, RowsRefusedError, StoreUnavailableError
from sens_telemetry_worker.tenants import MetricKey, NewMetrics, Refusal, RegisteredDevices, RegisteredMetrics, Tenant
from sens_telemetry_worker.topic_resolving import KnownNames
from support.rows import KeyedValue, values_of

type Key = tuple[int, int, int]
"""Device, metric, time."""


class MemoryConnection:
    """A connection that delivers what it was given, then ends or waits."""

    def __init__(self, deliveries: Iterable[Delivery], *, session_present: bool, ends: bool) -> None:
        self._deliveries = list(deliveries)
        self._ends = ends
        self.session_present = session_present
        self.acknowledged: list[Message] = []

    async def receive(self) -> Delivery:
        if self._deliveries:
            return self._deliveries.pop(0)
        if self._ends:
            raise SourceUnavailableError("the connection has ended")
        never: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        return await never

    @property
    def waiting(self) -> Waiting:
        return Waiting(0, 0, reading_paused=False)

    def acknowledge(self, messages: list[Message]) -> None:
        self.acknowledged += messages

    def probe_caught_up(self) -> None:
        """Nothing to do: the deliveries say it."""


class MemorySource:
    """A broker whose connections are written down beforehand; after the last one it can't be reached."""

    def __init__(self, connections: Iterable[MemoryConnection], stop: asyncio.Event) -> None:
        self._connections = list(connections)
        self._stop = stop

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[MemoryConnection]:
        if not self._connections:
            self._stop.set()
            raise SourceUnavailableError("there is no broker")
        yield self._connections.pop(0)


class MemoryRecord:
    """A record of what a session is subscribed to, as `mqtt.source.Record`."""

    def __init__(self, *filters: str) -> None:
        self.filters = frozenset(filters) or None

    async def holds(self, filters: tuple[str, ...]) -> bool:
        """Tell whether it names these filters and no others."""
        return self.filters == frozenset(filters)

    async def load(self) -> frozenset[str] | None:
        return self.filters

    async def save(self, filters: frozenset[str]) -> None:
        self.filters = filters


class MemoryStream:
    """A stream that keeps what is published."""

    def __init__(self, kept: Iterable[Message] = ()) -> None:
        self.kept = list(kept)
        self.known = 0

    async def tail(self, count: int) -> list[Message]:
        self.known = len(self.kept)
        return self.kept[-count:]

    async def publish(self, messages: list[Message], discarded: Mapping[int, str]) -> None:
        await asyncio.sleep(0)
        if self.known != len(self.kept):
            raise SupersededError("somebody else has published")
        self.kept += [mark(message) if index in discarded else message for index, message in enumerate(messages)]
        self.known = len(self.kept)


@dataclass
class MemoryEnvelope:
    """An envelope; what it has received is counted from its messages unless it is said."""

    sequence: int
    messages: list[Message]
    replays: int = 0
    origins: list[Origin] = field(default_factory=list)
    says_received: Mapping[str, int] | None = None
    discarded: Mapping[str, int] = field(default_factory=dict)
    stored_at: float = 1_700_000_000.0
    stream: int = 1
    import_days: int = 0

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.stream, self.sequence)

    @property
    def received(self) -> Mapping[str, int]:
        if self.says_received is not None:
            return self.says_received
        return TOPICS.count_by_tenant([message.topic for message in self.messages])

    def origin(self, index: int) -> Origin:
        return self.origins[index] if self.origins else Origin(*self.position, index)


class MemoryInbox:
    """A log to take from; sets the stop when it is empty."""

    def __init__(self, batches: Iterable[list[MemoryEnvelope]], stop: asyncio.Event) -> None:
        self._batches = list(batches)
        self._stop = stop
        self.acknowledged: list[MemoryEnvelope] = []
        self.rejected_shares: list[float] = []

    async def take(
        self,
        stop: asyncio.Event,
        *,
        rejected_share: float = 0.0,
    ) -> list[MemoryEnvelope]:
        await asyncio.sleep(0)
        self.rejected_shares.append(rejected_share)
        if self._batches and not stop.is_set():
            return self._batches.pop(0)
        self._stop.set()
        return []

    @contextlib.asynccontextmanager
    async def keep_in_progress(self, envelopes: list[MemoryEnvelope]) -> AsyncIterator[None]:  # noqa: ARG002 - same
        yield

    async def acknowledge(self, envelopes: list[MemoryEnvelope]) -> None:
        self.acknowledged += envelopes

    async def postpone(self, envelopes: list[MemoryEnvelope]) -> None:
        self._batches.append(envelopes)


@dataclass
class MemoryRegistry:
    """Tenants that exist from the start, devices and metrics up to a limit."""

    tenants: dict[str, Tenant]
    device_limit: int = 1000
    metric_limit: int = 1000
    device_ids: dict[tuple[int, str], int] = field(default_factory=dict)
    metric_ids: dict[MetricKey, int] = field(default_factory=dict)
    _known: KnownNames | None = None

    async def known_names(
        self,
        tenants: Collection[str] = (),  # noqa: ARG002 - it knows them all
        sources: Collection[tuple[str, str]] = (),  # noqa: ARG002 - and these
    ) -> KnownNames:
        self._known = self._known or KnownNames(1, self.tenants)
        return self._known

    async def register_devices(
        self, wanted: Iterable[tuple[Tenant, str]], known_only: Collection[tuple[int, str]] = ()
    ) -> RegisteredDevices:
        refusals = {}
        for tenant, name in wanted:
            if (tenant.id, name) in known_only:
                continue
            if sum(tenant_id == tenant.id for tenant_id, _ in self.device_ids) < self.device_limit:
                self.device_ids.setdefault((tenant.id, name), len(self.device_ids) + 1)
            elif (tenant.id, name) not in self.device_ids:
                refusals[tenant.id, name] = Refusal(Reason.LIMIT_REACHED, f"{name} is new")
        return RegisteredDevices(dict(self.device_ids), refusals)

    async def note_sources(self, named: Mapping[int, str]) -> None:
        """Note nothing: nobody asks for it."""

    async def register_metrics(self, wanted: Sequence[NewMetrics]) -> RegisteredMetrics:
        ids: dict[MetricKey, int] = {}
        refusals: dict[MetricKey, Refusal] = {}
        for tenant, metrics in wanted:
            new = sorted((name, kind) for name, kind in metrics if (tenant.id, name, kind) not in self.metric_ids)
            if sum(key[0] == tenant.id for key in self.metric_ids) + len(new) > self.metric_limit:
                refusals |= {(tenant.id, *each): Refusal(Reason.LIMIT_REACHED, f"{each[0]} is new") for each in new}
            else:
                for name, kind in new:
                    self.metric_ids[tenant.id, name, kind] = len(self.metric_ids) + 1
                    refusals.pop((tenant.id, name, kind), None)
            keys = {(tenant.id, name, kind) for name, kind in metrics}
            ids |= {key: self.metric_ids[key] for key in keys & self.metric_ids.keys()}
        return RegisteredMetrics(ids, refusals)


class MemoryStore:
    """A database in dictionaries; refuses chosen values, and fails a chosen number of times first.

    Where it names the refused row, it can be made to name another one.

    Attributes:
        values: By device, metric and time.
        letters: Dead letters by origin.
        counts: By tenant (0 where there is none), day and word.
        settled: By position, as `batch.EnvelopeProgress.recorded`.
    """

    def __init__(
        self,
        *,
        poison: Collection[float] = (),
        failures: int = 0,
        suspected: Callable[[int], int | None] = lambda _message: None,
        quota: Quota = Quota(1_000_000, 1 << 40, 0, 0),  # noqa: B008 - immutable
    ) -> None:
        self._poison = poison
        self._suspected = suspected
        self._failures = failures
        self._quota = quota
        self.values: dict[Key, float | str] = {}
        self.letters: dict[Origin, Letter] = {}
        self.counts: Counter[tuple[int, date, str]] = Counter()
        self.settled: dict[StreamPosition, bytes | None] = {}
        self.writes = 0

    def counted(self, word: str) -> dict[int, int]:
        """Return a count of all days by tenant, those that are not 0."""
        totals: Counter[int] = Counter()
        for (tenant, _, each), amount in self.counts.items():
            totals[tenant] += amount if each == word else 0
        return {tenant: amount for tenant, amount in totals.items() if amount}

    async def write(self, part: BatchPart) -> WrittenPart:
        self.writes += 1
        if self._failures:
            self._failures -= 1
            raise StoreUnavailableError("the database is away")
        values = values_of(part.rows)
        refused = [each.message_index for each in values if each.value in self._poison]
        if refused:
            raise RowsRefusedError("the database does not like it", self._suspected(refused[0]))
        new_values, conflicts, added = self._compared(part, values)
        letters = dead_letters(part, conflicts)
        kept, discarded = apportion(letters, dict.fromkeys((letter.tenant_id for letter in letters), self._room()))
        update = accounts_update(
            part, new_values, [each.message_index for each in kept], [each.message_index for each in discarded]
        )
        self._record_settlements(part, update)
        self.values |= added
        for letter in kept:
            before = self.letters.get(letter.origin)
            if before is None or before.replays < letter.replays:
                self.letters[letter.origin] = letter
        return WrittenPart(new_values, kept, discarded, update)

    async def forget_before(self, stream: int, sequence: int) -> None:
        """See `trimming.SettledEnvelopes.forget_before`."""
        first = StreamPosition(stream, sequence)
        self.settled = {
            position: outcomes
            for position, outcomes in self.settled.items()
            if position.stream_created_at == stream and position >= first
        }

    def _compared(
        self, part: BatchPart, values: list[KeyedValue]
    ) -> tuple[NDArray[np.int64], dict[int, Conflict], dict[Key, float | str]]:
        """Judge message by message: each is stored as a whole, or not at all."""
        new_values = np.zeros(len(part.batch.messages), np.int64)
        conflicts: dict[int, Conflict] = {}
        added: dict[Key, float | str] = {}
        for message_index, of_message in groupby(values, key=lambda each: each.message_index):
            own: dict[Key, float | str] = {}
            for each in of_message:
                key = each.device_id, each.metric_id, each.measured_at
                stored = self.values.get(key, added.get(key))
                if stored is None and key not in own:
                    own[key] = each.value
                elif message_index not in conflicts and each.value != (known := own[key] if stored is None else stored):
                    conflicts[message_index] = Conflict(
                        each.metric_id, each.measured_at, known, each.value, within_message=stored is None
                    )
            if message_index not in conflicts:
                new_values[message_index] = len(own)
                added |= own
        return new_values, conflicts, added

    def _record_settlements(self, part: BatchPart, update: AccountsUpdate) -> None:
        missing = object()
        # A database takes no key twice.
        if len({each.progress.envelope.position for each in update.settlements}) < len(update.settlements) or any(
            self.settled.get(each.progress.envelope.position, missing)
            != (missing if each.before is None else each.before)
            for each in update.settlements
        ):
            recorded = {
                position: self.settled[position]
                for position in part.batch.undecided.recorded()
                if position in self.settled
            }
            raise ProgressMadeElsewhereError(recorded)
        for count in update.counts:
            for word in ("received", "stored", "duplicate", "dead_lettered", "discarded"):
                self.counts[count.tenant_id, count.day, word] += getattr(count, word)
        for each in update.settlements:
            self.settled[each.progress.envelope.position] = each.after

    def _room(self) -> Quota:
        sizes = [letter.size for letter in self.letters.values()]
        return self._quota._replace(letter_count=len(sizes), byte_count=sum(sizes))


class MemoryMigratedLetters:
    """Where the dead letters of a version before 0.2 go.

    Attributes:
        letters: By origin.
    """

    def __init__(self, tenants: Mapping[str, int]) -> None:
        self._tenants = tenants
        self._migrated: set[tuple[int, int]] = set()
        self.letters: dict[Origin, Letter] = {}

    async def tenant_ids(self, names: Sequence[str]) -> Mapping[str, int]:
        return {name: self._tenants[name] for name in names if name in self._tenants}

    async def add(self, stream: int, messages: Mapping[int, list[Letter]]) -> int:
        new = {sequence: each for sequence, each in messages.items() if (stream, sequence) not in self._migrated}
        self._migrated |= {(stream, sequence) for sequence in new}
        letters = [letter for each in new.values() for letter in each]
        for letter in letters:
            self.letters.setdefault(letter.origin, letter)
        return len(letters)

    async def finish(self, stream: int) -> None:
        self._migrated = {position for position in self._migrated if position[0] != stream}


class MemoryFeed:
    """A live feed that somebody watches."""

    def __init__(self, watched: set[str]) -> None:
        self._watched = watched
        self.readings: list[tuple[str, LiveReading]] = []

    def watched(self) -> set[str]:
        return self._watched

    async def publish(self, tenant: str, readings: Sequence[LiveReading]) -> None:
        self.readings += [(tenant, reading) for reading in readings]
