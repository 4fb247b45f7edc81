"""Finds the devices that topics lead to, and remembers them: a device that was not seen before is registered."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from sens_common.control import device_hash
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.topics import NATIVE, Route
from sens_telemetry_worker.tenants import ERASED, Device, Refusal, RegisteredDevices, Tenant

ERASED_BEFORE: Final = Refusal(ERASED, "what is stored of the device was erased after this message was received")
"""Of a message that was received before its device was erased."""
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


class DeviceRegistry(Protocol):
    """Tenants and devices in the database. Each method raises `storing.StoreUnavailableError` when the database can't be asked."""

    async def known_names(self, tenants: Collection[str] = ()) -> KnownNames:
        """Return the known names; another object than before when the ids in that one are void.

        It asks the database once where one of the names is not known as a tenant's, or limits may have changed.
        """

    async def register_devices(self, wanted: Iterable[tuple[Tenant, str]]) -> RegisteredDevices:
        """Return devices, registering those that are new."""


class ResolvedTopics(NamedTuple):
    """Where the topics of a batch lead; a copy, because another lane's batch may empty the cache meanwhile.

    Attributes:
        devices: Those of topics that lead to one.
        routes: What the other topics say.
        refusals: Why they lead to none.
        generation: Of the devices' ids.
        tenant_ids: By name, of the tenants that were asked for or that the other topics name, those that exist.
    """

    devices: dict[str, Device]
    routes: dict[str, Route]
    refusals: dict[str, Refusal]
    generation: int
    tenant_ids: Mapping[str, int]


class TopicResolver:
    """Resolves topics, and remembers what it learned for the next batch."""

    def __init__(self, registry: DeviceRegistry, *, max_cached_topics: int = MAX_CACHED_TOPICS) -> None:
        self._registry = registry
        self._max_cached_topics = max_cached_topics

    async def resolve(self, messages: Sequence[Message], tenants: Collection[str] = ()) -> ResolvedTopics:
        """Return where the topics of messages lead, and the ids of tenants by their names."""
        topics = {message.topic for message in messages}
        known = await self._registry.known_names(tenants)
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
                refusals[topic] = ERASED_BEFORE
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
        names = {*tenants, *(routes[topic].tenant for topic in refusals)} & known.tenants.keys()
        return ResolvedTopics(
            devices,
            {topic: routes[topic] for topic in refusals},
            refusals,
            known.generation,
            {name: known.tenants[name].id for name in names},
        )


def _known_devices(topics: set[str], known: KnownNames, max_cached: int) -> dict[str, Device]:
    """Return the devices of those topics whose device is remembered."""
    if len(known.devices) + len(topics) > max_cached:
        known.devices.clear()
    return {topic: known.devices[topic] for topic in topics & known.devices.keys()}


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
