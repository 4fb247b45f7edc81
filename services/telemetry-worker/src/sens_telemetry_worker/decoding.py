"""Decodes the messages of a batch, those of one kind together.

Devices of one kind send the same metrics again and again. Messages of a tenant with the same names and kinds of value are a `Shape`, so that
what they have in common is looked up once, and their values are converted and checked together. Most of them are decoded together as well, by
the layout that their devices' last payloads had. A message that is not flat, or one of few of its shape, is decoded by itself; the rows are
the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.device_times import time_text
from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.formats import KINDS, Format, Measurement, MetricKind
from sens_telemetry_worker.batch import Rejection
from sens_telemetry_worker.layouts import KnownLayouts
from sens_telemetry_worker.shapes import GatheredMessages, Shape
from sens_telemetry_worker.tenants import Device, NewMetrics, Tenant

_NO_IMPORTS: Final[Mapping[int, int]] = {}


class DecodedMessage(NamedTuple):
    """A message that was decoded by itself."""

    message_index: int
    device: Device
    measurements: list[Measurement]

    def metrics(self) -> list[tuple[str, MetricKind]]:
        """Return names and kinds of the metrics."""
        return [(name, KINDS[type(value)]) for name, _, value in self.measurements]


class DecodedMessages(NamedTuple):
    """The messages of a batch that lead to a device.

    Attributes:
        shapes: Those that were decoded together.
        single: Those that were decoded one by one.
        rejections: Those that can't be decoded.
    """

    shapes: list[Shape]
    single: list[DecodedMessage]
    rejections: list[Rejection]

    def with_others(self, others: "DecodedMessages") -> "DecodedMessages":
        """Return these and other messages."""
        return DecodedMessages(
            self.shapes + others.shapes, self.single + others.single, self.rejections + others.rejections
        )

    def new_metrics(self) -> list[NewMetrics]:
        """Return the metrics whose ids are not known: those of each message together, in the messages' order."""
        first: dict[tuple[int, frozenset[tuple[str, MetricKind]]], tuple[int, Tenant]] = {}
        for message_index, tenant, metrics in self._metrics():
            if unknown := tenant.unknown(metrics):
                key = tenant.id, unknown
                if key not in first or message_index < first[key][0]:
                    first[key] = message_index, tenant
        ordered = sorted(first.items(), key=lambda item: item[1][0])
        return [NewMetrics(tenant, metrics) for (_, metrics), (_, tenant) in ordered]

    def _metrics(self) -> Iterator[tuple[int, Tenant, Sequence[tuple[str, MetricKind]]]]:
        """Yield the metrics of each shape with its first message, and of each single message."""
        for shape in self.shapes:
            yield int(shape.message_index[0]), shape.tenant, shape.metrics
        for message in self.single:
            yield message.message_index, message.device.tenant, message.metrics()


class _FlatMessages(NamedTuple):
    """What the format's `decode_if_flat` makes of messages.

    Attributes:
        gathered: Those that it decodes.
        needs_single_decoding: Indexes of those that it leaves to the format's `decode`.
        rejections: Those that it refuses.
    """

    gathered: list[GatheredMessages]
    needs_single_decoding: list[int]
    rejections: list[Rejection]


def decode(
    messages: Sequence[Message],
    devices: Sequence[Device | None],
    payload_format: Format,
    layouts: KnownLayouts,
    imported: Mapping[int, int] = _NO_IMPORTS,
) -> DecodedMessages:
    """Decode the messages that lead to a device.

    Args:
        messages: All messages of a batch.
        devices: Each message's device, None where its topic leads to none.
        payload_format: Of all payloads.
        layouts: What is known of the devices' payloads, and is learned.
        imported: How far back lines of imports may lie, in microseconds, by their indexes.
    """
    by_layout = layouts.decode(messages, devices)
    shapes = by_layout.shapes
    flat = _decode_flat(messages, devices, by_layout.others, payload_format, layouts)
    needs_single_decoding = list(flat.needs_single_decoding)
    for gathered in flat.gathered:
        shape, others = gathered.decoded()
        needs_single_decoding += others
        if shape is not None:
            shapes.append(shape)
    single: list[DecodedMessage] = []
    rejections = list(flat.rejections)
    for index in sorted(needs_single_decoding):
        device = devices[index]
        if device is None:
            continue
        try:
            single.append(
                _decode_single(index, messages[index], device, payload_format, import_late=imported.get(index, 0))
            )
        except RejectedMessageError as error:
            rejections.append(Rejection(index, error.reason, error.detail))
    return DecodedMessages(shapes, single, rejections)


def _decode_flat(
    messages: Sequence[Message],
    devices: Sequence[Device | None],
    indexes: Sequence[int],
    payload_format: Format,
    layouts: KnownLayouts,
) -> _FlatMessages:
    needs_single_decoding: list[int] = []
    rejections: list[Rejection] = []
    gathered: dict[tuple[int, tuple[str, ...], tuple[MetricKind | None, ...]], GatheredMessages] = {}
    # A number may come as an integer or a float, so that several rows of types are one shape.
    typed: dict[tuple[int, tuple[str, ...], tuple[type, ...]], GatheredMessages] = {}
    decode_if_flat = payload_format.decode_if_flat
    for index in indexes:
        message, device = messages[index], devices[index]
        if device is None:
            continue
        try:
            found = decode_if_flat(message.payload, message.received_at)
        except RejectedMessageError as error:
            rejections.append(Rejection(index, error.reason, error.detail))
            continue
        tenant = device.tenant
        if found is None or message.received_at - found[0] > tenant.late_microseconds:
            needs_single_decoding.append(index)
            continue
        instant, members = found
        values = members.values()
        types = (tenant.id, tuple(members), tuple(map(type, values)))
        alike = typed.get(types)
        if alike is None:
            kinds = tuple(map(KINDS.get, types[2]))
            alike = typed[types] = gathered.setdefault(
                (tenant.id, types[1], kinds), GatheredMessages(tenant, types[1], kinds)
            )
        alike.message_indexes.append(index)
        alike.device_ids.append(device.id)
        alike.times.append(instant)
        alike.values.extend(values)
        layouts.note(device, alike.names, message.payload)
    return _FlatMessages(list(gathered.values()), needs_single_decoding, rejections)


def _decode_single(
    index: int, message: Message, device: Device, payload_format: Format, *, import_late: int
) -> DecodedMessage:
    """Decode a message by itself.

    Raises:
        RejectedMessageError: It can't be decoded, or is older than its tenant allows.
    """
    measurements = payload_format.decode(message.payload, message.received_at)
    oldest = min(measurement.measured_at for measurement in measurements)
    check_age(device.tenant, oldest, message.received_at, import_late=import_late)
    return DecodedMessage(index, device, measurements)


def check_age(tenant: Tenant, measured_at: int, received_at: int, *, import_late: int = 0) -> None:
    """Look that a reading is not older than its tenant allows; one of an import may be as old as the operator has allowed, in microseconds.

    Raises:
        RejectedMessageError: It is.
    """
    most = max(tenant.late_microseconds, import_late)
    if received_at - measured_at > most:
        raise RejectedMessageError(Reason.TOO_OLD, _too_old(tenant, measured_at, most))


def _too_old(tenant: Tenant, instant: int, most: int) -> str:
    return (
        f"its time {time_text(instant)} is more than {most // 86_400_000_000:,} days before the receipt, and tenant {tenant.name} takes nothing"
        f" older; raise the limit (sens tenants limits {tenant.name} --late-days), then replay"
    )
