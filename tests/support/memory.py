"""The workers' ports in memory: what the pipelines talk to when a test looks at them alone."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sens_common.dead_letters import DeadLetter, Origin, Reason
from sens_common.envelope import Message, mark
from sens_common.live import Reading as LiveReading
from sens_mqtt_ingestion_worker.flow import Waiting
from sens_mqtt_ingestion_worker.pipeline import Delivery, SourceUnavailableError, SupersededError
from sens_telemetry_worker.columns import Kind, NewNames, Refusal, Tenant
from sens_telemetry_worker.pipeline import RowsRefusedError, StoreUnavailableError, Written
from sens_telemetry_worker.routing import Known, Registered
from sens_telemetry_worker.rows import Prepared


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

    def ask_for_more(self) -> None:
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


class MemoryLog:
    """A log that keeps what is published."""

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
        self.kept += [mark(message) if place in discarded else message for place, message in enumerate(messages)]
        self.known = len(self.kept)


@dataclass
class MemoryEntry:
    """An envelope."""

    place: str
    messages: list[Message]
    replays: int = 0

    def origin(self, index: int) -> Origin:
        return (self.place, index)


class MemoryInbox:
    """A log to take from; sets the stop when it is empty."""

    def __init__(self, batches: Iterable[list[MemoryEntry]], stop: asyncio.Event) -> None:
        self._batches = list(batches)
        self._stop = stop
        self.acknowledged: list[MemoryEntry] = []
        self.rejected_shares: list[float] = []

    async def take(
        self,
        stop: asyncio.Event,  # noqa: ARG002 - the port's signature
        *,
        rejected_share: float = 0.0,
    ) -> list[MemoryEntry]:
        await asyncio.sleep(0)
        self.rejected_shares.append(rejected_share)
        if self._batches:
            return self._batches.pop(0)
        self._stop.set()
        return []

    @contextlib.asynccontextmanager
    async def holding(self, entries: list[MemoryEntry]) -> AsyncIterator[None]:  # noqa: ARG002 - same
        yield

    async def acknowledge(self, entries: list[MemoryEntry]) -> None:
        self.acknowledged += entries


@dataclass
class MemoryRegistry:
    """Tenants that exist from the start, devices and metrics up to a limit."""

    tenants: dict[str, Tenant]
    device_limit: int = 1000
    metric_limit: int = 1000
    device_ids: dict[tuple[int, str], int] = field(default_factory=dict)
    metric_count: int = 0
    _known: Known | None = None

    async def known(self, tenants: Collection[str] = ()) -> Known:  # noqa: ARG002 - it knows them all
        self._known = self._known or Known(1, self.tenants)
        return self._known

    async def devices(self, wanted: Iterable[tuple[Tenant, str]]) -> Registered:
        refused = {}
        for tenant, name in wanted:
            if len(self.device_ids) < self.device_limit:
                self.device_ids.setdefault((tenant.id, name), len(self.device_ids) + 1)
            elif (tenant.id, name) not in self.device_ids:
                refused[tenant.id, name] = Refusal(Reason.LIMIT_REACHED, f"{name} is new")
        return Registered(dict(self.device_ids), refused)

    async def metrics(self, wanted: Sequence[NewNames]) -> dict[tuple[int, str, Kind], Refusal]:
        refused: dict[tuple[int, str, Kind], Refusal] = {}
        for tenant, names in wanted:
            new = sorted((name, kind) for name, kind in names if name not in tenant.metric_ids[kind])
            if self.metric_count + len(new) > self.metric_limit:
                refused |= {(tenant.id, *each): Refusal(Reason.LIMIT_REACHED, f"{each[0]} is new") for each in new}
                continue
            for name, kind in new:
                self.metric_count += 1
                tenant.metric_ids[kind][name] = self.metric_count
                refused.pop((tenant.id, name, kind), None)
        return refused


class MemoryStore:
    """A database in a dictionary; refuses chosen values, and fails a chosen number of times first.

    Where it names the refused row, it can be made to name another one.
    """

    def __init__(
        self,
        *,
        poison: Collection[float] = (),
        failures: int = 0,
        suspected: Callable[[int], int | None] = lambda _message: None,
    ) -> None:
        self._poison = poison
        self._suspected = suspected
        self._failures = failures
        self.values: dict[tuple[int, int, int], float | str] = {}
        self.stored: Counter[int] = Counter()  # messages by tenant
        self.duplicate: Counter[int] = Counter()
        self.writes = 0

    async def write(self, rows: Prepared, tenants: NDArray[np.int32]) -> Written:
        self.writes += 1
        if self._failures:
            self._failures -= 1
            raise StoreUnavailableError("the database is away")
        numbers = rows.numbers
        keyed: list[tuple[int, tuple[int, int, int], float | str]] = [
            (message, (device, metric, at), value)
            for message, device, metric, at, value in zip(
                numbers.message.tolist(),
                numbers.device_id.tolist(),
                numbers.metric_id.tolist(),
                numbers.measured_at.tolist(),
                numbers.value.tolist(),
                strict=True,
            )
        ]
        keyed += [(row.message, (row.device_id, row.metric_id, row.measured_at), row.value) for row in rows.texts]
        refused = [message for message, _, value in keyed if value in self._poison]
        if refused:
            raise RowsRefusedError("the database does not like it", self._suspected(refused[0]))
        new_values = np.zeros(len(tenants), np.int64)
        conflicting = set(rows.conflicting)
        for message, key, value in keyed:
            if key not in self.values:
                self.values[key] = value
                new_values[message] += 1
            elif self.values[key] != value:
                conflicting.add(message)
        for message, tenant in enumerate(tenants.tolist()):
            if tenant and message not in conflicting:
                (self.stored if new_values[message] else self.duplicate)[tenant] += 1
        return Written(new_values, conflicting - rows.conflicting)


class MemoryDeadLetters:
    """Dead letters in a dictionary, by envelope and number."""

    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}

    async def put(self, letters: Mapping[Origin, DeadLetter]) -> None:
        for origin, letter in letters.items():
            self.letters.setdefault(f"{origin[0]}-{origin[1]}", letter)


class MemoryFeed:
    """A live feed that somebody watches."""

    def __init__(self, watched: set[str]) -> None:
        self._watched = watched
        self.readings: list[tuple[str, LiveReading]] = []

    def watched(self) -> set[str]:
        return self._watched

    async def publish(self, tenant: str, readings: Sequence[LiveReading]) -> None:
        self.readings += [(tenant, reading) for reading in readings]
