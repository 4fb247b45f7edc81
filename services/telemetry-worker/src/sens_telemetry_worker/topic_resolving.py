"""Finds the devices and sources that topics lead to, and remembers them: a device that was not seen before is registered."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from sens_common.control import device_hash
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.topics import TOPICS, Route
from sens_telemetry_worker.tenants import ERASED, Device, DeviceKey, Refusal, RegisteredDevices, SourceOfTenant, Tenant

ERASED_BEFORE: Final = Refusal(ERASED, "what is stored of the device was erased after this message was received")
"""Of a message that was received before its device was erased."""
MAX_CACHED_TOPICS: Final = 250_000
"""Topics whose device is remembered; when there are more, the cache begins with none."""
LONGEST_REMEMBERED_TOPIC: Final = 200
"""Characters; longer topics of sources are looked up each time. Those with a network's signed query are all different."""


@dataclass(slots=True)
class KnownNames:
    """What was learned from the database, as long as nothing of it was deleted there.

    Attributes:
        generation: Grows when devices or metrics are deleted: their ids, here and in `Tenant.metric_ids`, are good for this one only.
        tenants: All of them by name.
        erasures: Until when devices were erased, microseconds since the epoch; by their tenants' ids and hashes of their names.
        devices: By topic, some.
        sources: All of them by tenant's name and their own; in the place of one that can't be used, why.
        senders: Those of some topics.
        named_devices: Devices that sources have named, some.
        noted_sources: By the sources' names, those of them of which the database has noted that this source names them.
    """

    generation: int
    tenants: dict[str, Tenant] = field(default_factory=dict)
    erasures: dict[tuple[int, bytes], int] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    sources: Mapping[tuple[str, str], SourceOfTenant | Refusal] = field(default_factory=dict)
    senders: dict[str, SourceOfTenant] = field(default_factory=dict)
    named_devices: dict[DeviceKey, Device] = field(default_factory=dict)
    noted_sources: dict[str, set[DeviceKey]] = field(default_factory=dict)

    def remember_sender(self, topic: str, sender: SourceOfTenant) -> None:
        """Remember the source of a topic, unless the topic is long."""
        if len(topic) <= LONGEST_REMEMBERED_TOPIC:
            self.senders[topic] = sender


class DeviceRegistry(Protocol):
    """Tenants and devices in the database. Each method raises `storing.StoreUnavailableError` when the database can't be asked."""

    async def known_names(self, tenants: Collection[str] = (), sources: Collection[tuple[str, str]] = ()) -> KnownNames:
        """Return the known names; another object than before when the ids in that one are void.

        It asks the database once where one of the names is not known as a tenant's, one of the sources (its tenant's name and its own) can't be
        used as far as is known, or limits may have changed.
        """

    async def register_devices(
        self, wanted: Iterable[tuple[Tenant, str]], known_only: Collection[DeviceKey] = ()
    ) -> RegisteredDevices:
        """Return devices, registering those that are new.

        Args:
            wanted: Tenants, and names of devices.
            known_only: Those that are not registered: what is new among them has neither an id nor a refusal.
        """

    async def note_sources(self, named: Mapping[int, str]) -> None:
        """Note which source named a device, by the device's id: its rules say what profile, and so what units, the device has."""


class ResolvedTopics(NamedTuple):
    """Where the topics of a batch lead; a copy, because another lane's batch may empty the cache meanwhile.

    Attributes:
        devices: Those of topics that lead to one.
        routes: What the other topics say.
        refusals: Why they lead to none.
        generation: Of the devices' ids.
        tenant_ids: By name, of the tenants that were asked for or that the other topics name, those that exist.
        senders: The sources of topics that lead to one.
    """

    devices: dict[str, Device]
    routes: dict[str, Route]
    refusals: dict[str, Refusal]
    generation: int
    tenant_ids: Mapping[str, int]
    senders: dict[str, SourceOfTenant]


class TopicResolver:
    """Resolves topics, and remembers what it learned for the next batch."""

    def __init__(self, registry: DeviceRegistry, *, max_cached_topics: int = MAX_CACHED_TOPICS) -> None:
        self._registry = registry
        self._max_cached_topics = max_cached_topics
        self._source_routes: dict[str, Route] = {}  # of topics that lead to a source: what they say never changes

    async def resolve(self, messages: Sequence[Message], tenants: Collection[str] = ()) -> ResolvedTopics:
        """Return where the topics of messages lead, and the ids of tenants by their names."""
        topics = {message.topic for message in messages}
        known = await self._registry.known_names(tenants)
        devices, senders = _known_senders(topics, known, self._max_cached_topics)
        routes = self._routes(topics - devices.keys())
        unknown = {route.tenant for route in routes.values() if route.refusal is None} - known.tenants.keys()
        sources = {(route.tenant, route.source) for route in routes.values() if route.source is not None}
        if (unknown or sources) and (newer := await self._registry.known_names(unknown, sources)) is not known:
            known = newer
            devices, senders = _known_senders(topics, known, self._max_cached_topics)
            routes = self._routes(topics - devices.keys())
        refusals: dict[str, Refusal] = {}
        erased = _erasures_of_topics(routes, known)
        latest = _latest_receipts(messages, erased)
        wanted: dict[str, tuple[Tenant, str]] = {}
        for topic, route in routes.items():
            if topic in senders:
                continue
            found = _where(route, known)
            if isinstance(found, Refusal):
                refusals[topic] = found
            elif isinstance(found, SourceOfTenant):
                senders[topic] = found
                known.remember_sender(topic, found)
            elif topic in erased and latest[topic] < erased[topic]:  # the device is not registered again
                refusals[topic] = ERASED_BEFORE
            else:
                wanted[topic] = found
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
        names = {*tenants, *(routes[topic].tenant for topic in (*refusals, *senders))} & known.tenants.keys()
        return ResolvedTopics(
            devices,
            {topic: routes[topic] for topic in (*refusals, *senders)},
            refusals,
            known.generation,
            {name: known.tenants[name].id for name in names},
            senders,
        )

    def _routes(self, topics: set[str]) -> dict[str, Route]:
        """Return what topics say."""
        remembered = self._source_routes
        routes = {topic: remembered[topic] for topic in topics & remembered.keys()}
        if len(routes) < len(topics):
            if len(remembered) + len(topics) > self._max_cached_topics:
                remembered.clear()
            for topic in topics - routes.keys():
                route = routes[topic] = TOPICS.route(topic)
                if route.source is not None and len(topic) <= LONGEST_REMEMBERED_TOPIC:
                    remembered[topic] = route
        return routes

    async def named_devices(self, wanted: Mapping[DeviceKey, SourceOfTenant]) -> dict[DeviceKey, Device | Refusal]:
        """Return devices that messages of sources name, or why they are not known.

        Args:
            wanted: Devices by tenant's id and name, and a source that names each.

        Raises:
            StoreUnavailableError: The database can't be asked.
        """
        known = await self._registry.known_names()
        if len(known.named_devices) + len(wanted) > self._max_cached_topics:
            known.named_devices.clear()
            known.noted_sources.clear()
        found: dict[DeviceKey, Device | Refusal] = {}
        missing: dict[DeviceKey, SourceOfTenant] = {}
        unnoted: list[tuple[DeviceKey, str]] = []
        noted = known.noted_sources
        for key, sender in wanted.items():
            if (device := known.named_devices.get(key)) is None:
                missing[key] = sender
            else:
                found[key] = device
            name = sender.source.name
            if key not in noted.get(name, ()):
                unnoted.append((key, name))
        if missing:
            found |= await self._registered(missing, known)
        of_devices = {each.id: name for key, name in unnoted if isinstance(each := found[key], Device)}
        if of_devices:
            await self._registry.note_sources(of_devices)
            for key, name in unnoted:
                if isinstance(found[key], Device):
                    noted.setdefault(name, set()).add(key)
        return found

    async def _registered(
        self, missing: Mapping[DeviceKey, SourceOfTenant], known: KnownNames
    ) -> dict[DeviceKey, Device | Refusal]:
        """Return devices that are not remembered, and remember them."""
        found: dict[DeviceKey, Device | Refusal] = {}
        known_only = {key for key, sender in missing.items() if not sender.source.registers_devices}
        registered = await self._registry.register_devices(
            [(sender.tenant, name) for (_, name), sender in missing.items()], known_only
        )
        for key, sender in missing.items():
            if key in registered.ids:
                erased_before = known.erasures.get((key[0], device_hash(key[1])), 0)
                found[key] = known.named_devices[key] = Device(
                    registered.ids[key], key[1], sender.tenant, erased_before
                )
            else:
                found[key] = registered.refusals.get(key) or _not_registered(sender, key[1])
        return found


def _where(route: Route, known: KnownNames) -> tuple[Tenant, str] | SourceOfTenant | Refusal:
    """Return the tenant and the device's name that a topic names, or the source; or why it names none."""
    if route.refusal is not None or (route.device is None and route.source is None):
        return Refusal(Reason.INVALID_TOPIC, route.refusal or "the topic names no device")
    tenant = known.tenants.get(route.tenant)
    if tenant is None:
        return Refusal(Reason.UNKNOWN_TENANT, f"there is no tenant {route.tenant}; create it, then replay")
    if route.source is not None:
        return known.sources.get((tenant.name, route.source)) or _no_source(tenant, route.source)
    return tenant, route.device or ""


def _no_source(tenant: Tenant, source: str) -> Refusal:
    return Refusal(
        Reason.UNKNOWN_SOURCE,
        f"tenant {tenant.name} has no source {source}; create it (sens sources create), then replay",
    )


def _not_registered(sender: SourceOfTenant, device: str) -> Refusal:
    return Refusal(
        Reason.UNKNOWN_DEVICE,
        f"source {sender.source.name} may not register devices, and there is no device {device}; create it, or let the source register devices,"
        " then replay",
    )


def _known_senders(
    topics: set[str], known: KnownNames, max_cached: int
) -> tuple[dict[str, Device], dict[str, SourceOfTenant]]:
    """Return the devices and the sources of those topics whose device or source is remembered."""
    if len(known.devices) + len(known.senders) + len(topics) > max_cached:
        known.devices.clear()
        known.senders.clear()
    devices = {topic: known.devices[topic] for topic in topics & known.devices.keys()}
    senders = {topic: known.senders[topic] for topic in topics & known.senders.keys()} if known.senders else {}
    return devices, senders


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
