"""From messages to rows: whose they are, what they say, and which numbers the database knows it all by.

What the database has to be asked for (a tenant, a device, a metric that was not seen before) is gathered first and asked for once a
batch; after that a message costs one look-up by its topic, its decoding and one look-up a value.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import InvalidTopicError
from sens_common.names import Route, parse_native_topic
from sens_telemetry_worker.columns import Batch, Device, Kind, NewNames, Refusal, Rejected, Tenant
from sens_telemetry_worker.decoders import Format, Reading
from sens_telemetry_worker.rows import NumberRows, TextRow

MAX_CACHED_TOPICS: Final = 250_000
"""Topics whose device is remembered; when there are more, the cache begins anew."""


@dataclass(slots=True)
class Known:
    """What was learned from the database, as long as nothing of it was deleted there.

    Attributes:
        generation: Grows when devices or metrics are deleted: their ids, here and in `Tenant.metric_ids`, are good for this one only.
        tenants: All of them by name.
        devices: By topic, some.
    """

    generation: int
    tenants: dict[str, Tenant] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)


class Registered(NamedTuple):
    """Devices by tenant's number and name.

    Attributes:
        ids: Their numbers.
        refused: Those that the tenant's limits leave no room for.
    """

    ids: Mapping[tuple[int, str], int]
    refused: Mapping[tuple[int, str], Refusal]


class Registry(Protocol):
    """Tenants, devices and metrics in the database. Its questions raise what is raised when the database can't be asked."""

    async def known(self, tenants: Collection[str] = ()) -> Known:
        """Return what is known; not the same object as before when ids of before are void.

        It asks the database once where one of the names is not known as a tenant's, or limits may have changed.
        """

    async def devices(self, wanted: Iterable[tuple[Tenant, str]]) -> Registered:
        """Return devices, registering those that are new."""

    async def metrics(self, wanted: Sequence[NewNames]) -> Mapping[tuple[int, str, Kind], Refusal]:
        """Fill `Tenant.metric_ids`, registering metrics that are new: those of a message all or none, so that what is refused uses nothing up.

        Returns:
            Why a metric is not registered, by tenant's number, name and kind.
        """


@dataclass(slots=True)
class Routed:
    """A batch that is ready to be stored; message numbers are indices into `messages`.

    Attributes:
        messages: All messages of the batch.
        devices: Each message's device, None where the topic leads to none.
        numbers: Rows of numbers and booleans.
        texts: Rows of text.
        rejected: Messages that are not in the rows.
        generation: Of the ids in the rows, as in `Known`.
    """

    messages: Sequence[Message]
    devices: list[Device | None]
    numbers: NumberRows
    texts: list[TextRow]
    rejected: list[Rejected]
    generation: int


class Router:
    """Makes rows of messages, and remembers what it learned for the next batch."""

    def __init__(self, registry: Registry, payload_format: Format) -> None:
        self._registry = registry
        self._format = payload_format

    async def route(self, messages: Sequence[Message]) -> Routed:
        """Return the batch as rows.

        Raises:
            Exception: What the registry raises when the database can't be asked; the batch can then be routed again.
        """
        topics = _Topics({message.topic for message in messages})
        known = await topics.learn(self._registry)
        devices = [topics.devices.get(message.topic) for message in messages]
        decoded = Batch(messages, devices, self._format)
        rejected = [
            Rejected(number, *topics.refused[messages[number].topic])
            for number, device in enumerate(devices)
            if device is None
        ]
        wanted = decoded.new_metrics()
        refused = await self._registry.metrics(wanted) if wanted else {}
        numbers, texts = decoded.rows(refused)
        return Routed(messages, devices, numbers, texts, rejected + decoded.rejected, known.generation)

    async def tenant_ids(self, names: Collection[str]) -> dict[str, int]:
        """Return the numbers of those of the tenants that exist, by their names; raises as `route`."""
        known = await self._registry.known(names)
        return {name: known.tenants[name].id for name in names if name in known.tenants}

    def readings(self, message: Message) -> list[Reading]:
        """Return the readings of a message that was stored."""
        return self._format.decode(message.payload, message.received_at)


class _Topics:
    """Where the topics of a batch lead; a copy of what is needed, because another lane's batch may begin the cache anew meanwhile.

    Attributes:
        devices: Those of topics that lead to one.
        refused: Why the others do not.
    """

    def __init__(self, topics: set[str]) -> None:
        self._topics = topics
        self.devices: dict[str, Device] = {}
        self.refused: dict[str, Refusal] = {}

    async def learn(self, registry: Registry) -> Known:
        """Fill in what the topics lead to; return what it was learned from."""
        known = await registry.known()
        routes = self._look(known)
        unknown = {route.tenant for route in routes.values()} - known.tenants.keys()
        if unknown and (newer := await registry.known(unknown)) is not known:
            known = newer
            routes = self._look(known)
        wanted: dict[str, tuple[Tenant, str]] = {}
        for topic, route in routes.items():
            tenant = known.tenants.get(route.tenant)
            if tenant is None:
                detail = f"there is no tenant {route.tenant}; create it, then replay"
                self.refused[topic] = Refusal(Reason.UNKNOWN_TENANT, detail)
            else:
                wanted[topic] = (tenant, route.device)
        if wanted:
            registered = await registry.devices(wanted.values())
            for topic, (tenant, name) in wanted.items():
                key = tenant.id, name
                if key in registered.refused:
                    self.refused[topic] = registered.refused[key]
                else:
                    self.devices[topic] = known.devices[topic] = Device(registered.ids[key], name, tenant)
        return known

    def _look(self, known: Known) -> dict[str, Route]:
        """Take the devices that are known; return the routes of topics that may lead to others."""
        if len(known.devices) + len(self._topics) > MAX_CACHED_TOPICS:
            known.devices.clear()
        self.devices = {topic: known.devices[topic] for topic in self._topics & known.devices.keys()}
        routes: dict[str, Route] = {}
        for topic in self._topics - self.devices.keys():
            try:
                routes[topic] = parse_native_topic(topic)
            except InvalidTopicError as error:
                self.refused[topic] = Refusal(error.reason, error.detail)
        return routes
