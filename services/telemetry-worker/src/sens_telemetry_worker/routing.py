"""From messages to rows: whose they are, what they say, and which numbers the database knows it all by.

What the database has to be asked for (a tenant, a device, a metric that was not seen before) is gathered first and asked for once a
batch; after that a message costs one look-up by its topic, its decoding and one look-up a value.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import InvalidTopicError, RejectedMessageError
from sens_common.names import Route, parse_native_topic
from sens_telemetry_worker.decoders import Decoder, Reading
from sens_telemetry_worker.rows import NumberRows, TextRow, number_rows

Kind = Literal["number", "boolean", "text"]

KINDS: Final[dict[type, Kind]] = {float: "number", bool: "boolean", str: "text"}

MAX_CACHED_TOPICS: Final = 250_000
"""Topics whose device is remembered; when there are more, the cache begins anew."""


@dataclass(slots=True)
class Tenant:
    """A tenant, and what is known of its metrics: their numbers by name, for each kind."""

    id: int
    name: str
    metric_ids: dict[Kind, dict[str, int]] = field(default_factory=lambda: {"number": {}, "boolean": {}, "text": {}})


class Device(NamedTuple):
    """A registered device."""

    id: int
    name: str
    tenant: Tenant


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


class Rejected(NamedTuple):
    """A message that is not stored."""

    message: int
    reason: str
    detail: str


@dataclass(slots=True)
class Routed:
    """A batch that is ready to be stored; message numbers are indices into `messages`.

    Attributes:
        messages: All messages of the batch.
        devices: Each message's device, None where the topic leads to none.
        readings: Each message's readings, empty for a rejected one.
        numbers: Rows of numbers and booleans.
        texts: Rows of text.
        rejected: Messages that are not in the rows.
    """

    messages: Sequence[Message]
    devices: list[Device | None]
    readings: list[list[Reading]]
    numbers: NumberRows
    texts: list[TextRow]
    rejected: list[Rejected]


class Router:
    """Makes rows of messages, and remembers what it learned for the next batch."""

    def __init__(self, registry: Registry, decode: Decoder) -> None:
        self._registry = registry
        self._decode = decode
        self._devices: dict[str, Device] = {}

    async def route(self, messages: Sequence[Message]) -> Routed:
        """Return the batch as rows.

        Raises:
            Exception: What the registry raises when the database can't be asked; the batch can then be routed again.
        """
        rejected: list[Rejected] = []
        # A copy of what is needed, because another lane's batch may begin the cache anew meanwhile.
        refused, known = await self._learn_devices(messages)
        devices: list[Device | None] = []
        readings: list[list[Reading]] = []
        for number, message in enumerate(messages):
            device = known.get(message.topic)
            devices.append(device)
            if device is None:
                rejected.append(Rejected(number, *refused[message.topic]))
                readings.append([])
                continue
            try:
                readings.append(self._decode(message.payload, message.received_at))
            except RejectedMessageError as error:
                rejected.append(Rejected(number, error.reason, error.detail))
                readings.append([])
        await self._learn_metrics(devices, readings)
        return self._rows(messages, devices, readings, rejected)

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

    async def _learn_metrics(self, devices: Sequence[Device | None], readings: Sequence[list[Reading]]) -> None:
        wanted: dict[tuple[int, str, Kind], Tenant] = {}
        for device, device_readings in zip(devices, readings, strict=True):
            if device is None:
                continue
            ids = device.tenant.metric_ids
            for metric, _, value in device_readings:
                kind = KINDS[type(value)]
                if metric not in ids[kind]:
                    wanted[device.tenant.id, metric, kind] = device.tenant
        if wanted:
            await self._registry.metrics((tenant, metric, kind) for (_, metric, kind), tenant in wanted.items())

    def _rows(
        self,
        messages: Sequence[Message],
        devices: list[Device | None],
        readings: list[list[Reading]],
        rejected: list[Rejected],
    ) -> Routed:
        number_columns: tuple[list[int], list[int], list[int], list[int], list[float]] = ([], [], [], [], [])
        message_column, device_column, metric_column, time_column, value_column = number_columns
        texts: list[TextRow] = []
        for number, (device, device_readings) in enumerate(zip(devices, readings, strict=True)):
            if device is None or not device_readings:
                continue
            device_id = device.id
            ids = device.tenant.metric_ids
            try:
                metric_ids = [ids[KINDS[type(value)]][metric] for metric, _, value in device_readings]
            except KeyError as error:
                detail = (
                    f"tenant {device.tenant.name} has all the metrics its limit allows; {error.args[0]!r:.250} is new"
                )
                rejected.append(Rejected(number, Reason.LIMIT_REACHED, detail))
                readings[number] = []
                continue
            for metric_id, (_, measured_at, value) in zip(metric_ids, device_readings, strict=True):
                if isinstance(value, str):
                    texts.append(TextRow(device_id, metric_id, measured_at, number, value))
                else:
                    message_column.append(number)
                    device_column.append(device_id)
                    metric_column.append(metric_id)
                    time_column.append(measured_at)
                    value_column.append(value)
        return Routed(messages, devices, readings, number_rows(*number_columns), texts, rejected)
