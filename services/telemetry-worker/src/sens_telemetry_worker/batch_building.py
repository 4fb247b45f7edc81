"""Builds a batch of messages: the device that a topic leads to, the measurements in a payload, and the ids by which the database knows them.

What the database has to be asked for (a tenant, a device, a metric that was not seen before) is gathered first and asked for once a
batch; after that a message costs one look-up by its topic, its decoding and one look-up a value.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from sens_common.control import device_hash
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.topics import NATIVE, Route
from sens_telemetry_worker.batch import Batch, InterpretedMessages, Rejection, UndecidedMessages, names_of_tenants
from sens_telemetry_worker.decoders.columns import ColumnFormat
from sens_telemetry_worker.decoding import decode
from sens_telemetry_worker.layouts import KnownLayouts
from sens_telemetry_worker.row_building import build_rows
from sens_telemetry_worker.tenants import (
    ERASED,
    Device,
    MetricKey,
    NewMetrics,
    Refusal,
    RegisteredDevices,
    RegisteredMetrics,
    Tenant,
)

_ERASED: Final = Refusal(ERASED, "what is stored of the device was erased after this message was received")

MAX_CACHED_TOPICS: Final = 250_000
"""Topics whose device is remembered; when there are more, the cache begins with none."""


@dataclass(slots=True)
class KnownNames:
    """What was learned from the database, as long as nothing of it was deleted there.

    Attributes:
        generation: Grows when devices or metrics are deleted: their ids, here and in `Tenant.metric_ids`, are good for this one only.
        tenants: All of them by name.
        erasures: Until when devices were erased, microseconds since the epoch; by their tenants' ids and hashes of their names.
        devices: By topic, some.
    """

    generation: int
    tenants: dict[str, Tenant] = field(default_factory=dict)
    erasures: dict[tuple[int, bytes], int] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)


class Registry(Protocol):
    """Tenants, devices and metrics in the database. Each method raises `storing.StoreUnavailableError` when the database can't be asked."""

    async def known_names(self, tenants: Collection[str] = ()) -> KnownNames:
        """Return the known names; another object than before when the ids in that one are void.

        It asks the database once where one of the names is not known as a tenant's, or limits may have changed.
        """

    async def register_devices(self, wanted: Iterable[tuple[Tenant, str]]) -> RegisteredDevices:
        """Return devices, registering those that are new."""

    async def register_metrics(self, wanted: Sequence[NewMetrics]) -> RegisteredMetrics:
        """Return metrics, registering those that are new: those of a message all or none, so that a refused message uses no limit up."""


class _Topics(NamedTuple):
    """Where the topics of a batch lead; a copy, because another lane's batch may empty the cache meanwhile.

    Attributes:
        devices: Those of topics that lead to one.
        routes: What the other topics say.
        refusals: Why they lead to none.
        generation: Of the devices' ids.
    """

    devices: dict[str, Device]
    routes: dict[str, Route]
    refusals: dict[str, Refusal]
    generation: int


class BatchBuilder:
    """Makes batches of messages, and remembers what it learned for the next batch."""

    def __init__(
        self, registry: Registry, payload_format: ColumnFormat, *, max_cached_topics: int = MAX_CACHED_TOPICS
    ) -> None:
        self._registry = registry
        self._format = payload_format
        self._layouts = KnownLayouts(payload_format)
        self._max_cached_topics = max_cached_topics

    async def build(self, undecided: UndecidedMessages) -> Batch:
        """Return undecided messages as a batch that can be stored; raises as `interpret`."""
        interpreted = await self.interpret(undecided.messages)
        names = names_of_tenants(undecided, interpreted)
        known = await self._registry.known_names(names)
        return Batch.of(undecided, interpreted, {name: known.tenants[name].id for name in names & known.tenants.keys()})

    async def interpret(self, messages: Sequence[Message]) -> InterpretedMessages:
        """Return messages as rows.

        Raises:
            StoreUnavailableError: The database can't be asked; the messages can be interpreted again.
        """
        topics = await self._resolve_topics(messages)
        devices = [topics.devices.get(message.topic) for message in messages]
        without_device = [
            Rejection(index, *topics.refusals[messages[index].topic])
            for index, device in enumerate(devices)
            if device is None
        ]
        without_device += _leave_out_erased(messages, devices, topics)
        decoded = decode(messages, devices, self._format, self._layouts)
        refusals = await self._register(decoded.new_metrics())
        built = build_rows(decoded, refusals)
        rejections = without_device + decoded.rejections + built.rejections
        return InterpretedMessages(messages, devices, topics.routes, built.rows, rejections, topics.generation)

    async def _register(self, wanted: Sequence[NewMetrics]) -> dict[MetricKey, Refusal]:
        """Register new metrics and remember their ids; return why some are not registered."""
        if not wanted:
            return {}
        registered = await self._registry.register_metrics(wanted)
        tenants = {new.tenant.id: new.tenant for new in wanted}
        for (tenant_id, name, kind), metric_id in registered.ids.items():
            tenants[tenant_id].metric_ids[kind][name] = metric_id
        return registered.refusals

    async def _resolve_topics(self, messages: Sequence[Message]) -> _Topics:
        """Return where the topics of messages lead, and remember it."""
        topics = {message.topic for message in messages}
        known = await self._registry.known_names()
        devices = _known_devices(topics, known, self._max_cached_topics)
        routes = {topic: NATIVE.route(topic) for topic in topics - devices.keys()}
        unknown = {route.tenant for route in routes.values() if route.refusal is None} - known.tenants.keys()
        if unknown and (newer := await self._registry.known_names(unknown)) is not known:
            known = newer
            devices = _known_devices(topics, known, self._max_cached_topics)
            routes = {topic: NATIVE.route(topic) for topic in topics - devices.keys()}
        refusals: dict[str, Refusal] = {}
        erased = _erasures_of_topics(routes, known)
        latest = _latest_receipts(messages, erased)
        wanted: dict[str, tuple[Tenant, str]] = {}
        for topic, route in routes.items():
            tenant = known.tenants.get(route.tenant)
            if route.device is None:
                refusals[topic] = Refusal(Reason.INVALID_TOPIC, route.refusal or "the topic names no device")
            elif tenant is None:
                detail = f"there is no tenant {route.tenant}; create it, then replay"
                refusals[topic] = Refusal(Reason.UNKNOWN_TENANT, detail)
            elif topic in erased and latest[topic] < erased[topic]:  # the device is not registered again
                refusals[topic] = _ERASED
            else:
                wanted[topic] = (tenant, route.device)
        if wanted:
            registered = await self._registry.register_devices(wanted.values())
            for topic, (tenant, name) in wanted.items():
                key = tenant.id, name
                if key in registered.refusals:
                    refusals[topic] = registered.refusals[key]
                else:
                    devices[topic] = known.devices[topic] = Device(
                        registered.ids[key], name, tenant, erased.get(topic, 0)
                    )
        return _Topics(devices, {topic: routes[topic] for topic in refusals}, refusals, known.generation)


def _erasures_of_topics(routes: dict[str, Route], known: KnownNames) -> dict[str, int]:
    """Return until when the devices of some topics were erased."""
    if not known.erasures:
        return {}
    found: dict[str, int] = {}
    for topic, route in routes.items():
        tenant = known.tenants.get(route.tenant)
        if tenant is not None and route.device is not None:
            erased = known.erasures.get((tenant.id, device_hash(route.device)))
            if erased is not None:
                found[topic] = erased
    return found


def _latest_receipts(messages: Sequence[Message], topics: Collection[str]) -> dict[str, int]:
    """Return when the last message of each of the topics was received."""
    latest: dict[str, int] = {}
    if topics:
        for message in messages:
            if message.topic in topics:
                latest[message.topic] = max(message.received_at, latest.get(message.topic, 0))
    return latest


def _leave_out_erased(messages: Sequence[Message], devices: list[Device | None], topics: _Topics) -> list[Rejection]:
    """Take away the device of messages that were received before it was erased; return their rejections."""
    erased = {topic: device.erased_before for topic, device in topics.devices.items() if device.erased_before}
    if not erased:
        return []
    left_out = [index for index, message in enumerate(messages) if message.received_at < erased.get(message.topic, 0)]
    for index in left_out:
        devices[index] = None
        topics.routes[messages[index].topic] = NATIVE.route(messages[index].topic)
    return [Rejection(index, *_ERASED) for index in left_out]


def _known_devices(topics: set[str], known: KnownNames, max_cached: int) -> dict[str, Device]:
    """Return the devices of those topics whose device is remembered."""
    if len(known.devices) + len(topics) > max_cached:
        known.devices.clear()
    return {topic: known.devices[topic] for topic in topics & known.devices.keys()}
