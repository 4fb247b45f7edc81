"""From messages to rows: whose they are, what they say, and which numbers the database knows it all by.

What the database has to be asked for (a tenant, a device, a metric that was not seen before) is gathered first and asked for once a
batch; after that a message costs one look-up by its topic, its decoding and one look-up a value.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import InvalidTopicError
from sens_common.names import Route, parse_native_topic
from sens_telemetry_worker.columns import Batch, Device, Kind, Rejected, Tenant
from sens_telemetry_worker.decoders import Format, Reading
from sens_telemetry_worker.rows import NumberRows, TextRow

MAX_CACHED_TOPICS: Final = 250_000
"""Topics whose device is remembered; when there are more, the cache begins anew."""


class Registry(Protocol):
    """Tenants, devices and metrics in the database."""

    async def tenant(self, name: str) -> Tenant | None:
        """Return the tenant, None when there is none of this name."""

    async def devices(self, wanted: Iterable[tuple[Tenant, str]]) -> dict[tuple[int, str], int]:
        """Return the numbers of devices by tenant number and name, registering those that are new.

        Those that the tenant's limit does not allow are missing from the answer.
        """

    async def metrics(self, wanted: Iterable[tuple[Tenant, str, Kind]]) -> None:
        """Fill `Tenant.metric_ids`, registering metrics that are new; those that the limit does not allow stay missing."""


@dataclass(slots=True)
class Routed:
    """A batch that is ready to be stored; message numbers are indices into `messages`.

    Attributes:
        messages: All messages of the batch.
        devices: Each message's device, None where the topic leads to none.
        numbers: Rows of numbers and booleans.
        texts: Rows of text.
        rejected: Messages that are not in the rows.
    """

    messages: Sequence[Message]
    devices: list[Device | None]
    numbers: NumberRows
    texts: list[TextRow]
    rejected: list[Rejected]


class Router:
    """Makes rows of messages, and remembers what it learned for the next batch."""

    def __init__(self, registry: Registry, payload_format: Format) -> None:
        self._registry = registry
        self._format = payload_format
        self._devices: dict[str, Device] = {}

    async def route(self, messages: Sequence[Message]) -> Routed:
        """Return the batch as rows.

        Raises:
            Exception: What the registry raises when the database can't be asked; the batch can then be routed again.
        """
        # A copy of what is needed, because another lane's batch may begin the cache anew meanwhile.
        refused, known = await self._learn_devices(messages)
        devices = [known.get(message.topic) for message in messages]
        decoded = Batch(messages, devices, self._format)
        rejected = [
            Rejected(number, *refused[messages[number].topic])
            for number, device in enumerate(devices)
            if device is None
        ]
        wanted = {(tenant.id, name, kind): tenant for tenant, name, kind in decoded.metrics()}
        if wanted:
            await self._registry.metrics((tenant, name, kind) for (_, name, kind), tenant in wanted.items())
        numbers, texts = decoded.rows()
        return Routed(messages, devices, numbers, texts, rejected + decoded.rejected)

    def readings(self, message: Message) -> list[Reading]:
        """Return the readings of a message that was stored."""
        return self._format.decode(message.payload, message.received_at)

    async def _learn_devices(self, messages: Sequence[Message]) -> tuple[dict[str, tuple[str, str]], dict[str, Device]]:
        """Return reason and detail for topics that lead to no device, and the devices of the others."""
        topics = {message.topic for message in messages}
        if len(self._devices) + len(topics) > MAX_CACHED_TOPICS:
            self._devices.clear()
        known = {topic: self._devices[topic] for topic in topics & self._devices.keys()}
        refused: dict[str, tuple[str, str]] = {}
        routes: dict[str, Route] = {}
        for topic in topics - known.keys():
            try:
                routes[topic] = parse_native_topic(topic)
            except InvalidTopicError as error:
                refused[topic] = (error.reason, error.detail)
        tenants = {name: await self._registry.tenant(name) for name in {route.tenant for route in routes.values()}}
        wanted: dict[str, tuple[Tenant, str]] = {}
        for topic, route in routes.items():
            tenant = tenants[route.tenant]
            if tenant is None:
                refused[topic] = (Reason.UNKNOWN_TENANT, f"there is no tenant {route.tenant}; create it, then replay")
            else:
                wanted[topic] = (tenant, route.device)
        if wanted:
            numbers = await self._registry.devices(wanted.values())
            for topic, (tenant, name) in wanted.items():
                number = numbers.get((tenant.id, name))
                if number is None:
                    refused[topic] = (
                        Reason.LIMIT_REACHED,
                        f"tenant {tenant.name} has all the devices its limit allows",
                    )
                else:
                    self._devices[topic] = known[topic] = Device(number, name, tenant)
        return refused, known
