"""Decodes the messages of a batch, those of one kind together.

Devices of one kind send the same metrics again and again. Messages of a tenant with the same names and kinds of value are gathered in a
`Shape`, so that what they have in common is looked up once, and their values are converted and checked together. A message that is not flat,
or one of few of its shape, is decoded by itself; the rows are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.formats import EXACT_BELOW, Format, Measurement, is_plain_text
from sens_telemetry_worker.batch import Rejection
from sens_telemetry_worker.decoders.timestamps import time_text
from sens_telemetry_worker.tenants import KINDS, Device, MetricKind, NewMetrics, Tenant

_FEW: Final = 8
"""Fewer messages of one shape are not worth arrays of their own."""


@dataclass(slots=True)
class Shape:
    """Messages of one tenant with the same names and kinds of value, in the same order.

    Attributes:
        tenant: Their tenant.
        names: Of the metrics, w of them.
        kinds: Of their values, w; None is a kind that is not stored.
        message_indexes: Indexes of the n messages.
        device_ids: Ids of their devices, n.
        times: Microseconds since the epoch, n.
        values: n times w, message by message.
    """

    tenant: Tenant
    names: tuple[str, ...]
    kinds: tuple[MetricKind | None, ...]
    message_indexes: list[int] = field(default_factory=list)
    device_ids: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def column(self, metric_index: int) -> list[object]:
        """Return the values of one metric, n."""
        return self.values[metric_index :: len(self.names)]

    def metrics(self) -> list[tuple[str, MetricKind]]:
        """Return names and kinds of the metrics."""
        return [(name, kind) for name, kind in zip(self.names, self.kinds, strict=True) if kind is not None]

    def needs_single_decoding(self) -> list[int]:
        """Return the indexes in the shape (below n) of messages with a value that only the format's `decode` can judge."""
        if None in self.kinds or len(self.message_indexes) < _FEW:
            return list(range(len(self.message_indexes)))
        mask = np.zeros(len(self.message_indexes), np.bool_)
        for metric_index, kind in enumerate(self.kinds):
            column = self.column(metric_index)
            if kind == "text":
                mask |= np.fromiter((not is_plain_text(text) for text in column), np.bool_, len(column))  # type: ignore[arg-type]
            elif kind == "number":
                mask |= np.abs(np.array(column, np.float64)) >= EXACT_BELOW
        found: list[int] = np.flatnonzero(mask).tolist()
        return found

    def without(self, indexes_in_shape: Sequence[int]) -> "Shape":
        """Return the messages but those at these indexes in the shape."""
        width = len(self.names)
        left = sorted(set(range(len(self.message_indexes))) - set(indexes_in_shape))
        return Shape(
            self.tenant,
            self.names,
            self.kinds,
            [self.message_indexes[index] for index in left],
            [self.device_ids[index] for index in left],
            [self.times[index] for index in left],
            [value for index in left for value in self.values[index * width : index * width + width]],
        )


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

    def _metrics(self) -> Iterator[tuple[int, Tenant, list[tuple[str, MetricKind]]]]:
        """Yield the metrics of each shape with its first message, and of each single message."""
        for shape in self.shapes:
            yield shape.message_indexes[0], shape.tenant, shape.metrics()
        for message in self.single:
            yield message.message_index, message.device.tenant, message.metrics()


class _FlatMessages(NamedTuple):
    """What the format's `decode_if_flat` makes of the messages.

    Attributes:
        shapes: Those that it decodes.
        needs_single_decoding: Indexes of those that it leaves to the format's `decode`.
        rejections: Those that it refuses.
    """

    shapes: list[Shape]
    needs_single_decoding: list[int]
    rejections: list[Rejection]


def decode(messages: Sequence[Message], devices: Sequence[Device | None], payload_format: Format) -> DecodedMessages:
    """Decode the messages that lead to a device.

    Args:
        messages: All messages of a batch.
        devices: Each message's device, None where its topic leads to none.
        payload_format: Of all payloads.
    """
    flat = _decode_flat(messages, devices, payload_format)
    needs_single_decoding = list(flat.needs_single_decoding)
    shapes: list[Shape] = []
    for shape in flat.shapes:
        indexes_in_shape = shape.needs_single_decoding()
        needs_single_decoding += [shape.message_indexes[index] for index in indexes_in_shape]
        if len(indexes_in_shape) < len(shape.message_indexes):
            shapes.append(shape.without(indexes_in_shape) if indexes_in_shape else shape)
    single: list[DecodedMessage] = []
    rejections = list(flat.rejections)
    for index in sorted(needs_single_decoding):
        device = devices[index]
        if device is None:
            continue
        try:
            single.append(_decode_single(index, messages[index], device, payload_format))
        except RejectedMessageError as error:
            rejections.append(Rejection(index, error.reason, error.detail))
    return DecodedMessages(shapes, single, rejections)


def _decode_flat(
    messages: Sequence[Message], devices: Sequence[Device | None], payload_format: Format
) -> _FlatMessages:
    needs_single_decoding: list[int] = []
    rejections: list[Rejection] = []
    shapes: dict[tuple[int, tuple[str, ...], tuple[MetricKind | None, ...]], Shape] = {}
    # A number may come as an integer or a float, so that several rows of types are one shape.
    typed: dict[tuple[int, tuple[str, ...], tuple[type, ...]], Shape] = {}
    decode_if_flat = payload_format.decode_if_flat
    for index, (message, device) in enumerate(zip(messages, devices, strict=True)):
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
        shape = typed.get(types)
        if shape is None:
            kinds = tuple(map(KINDS.get, types[2]))
            shape = typed[types] = shapes.setdefault((tenant.id, types[1], kinds), Shape(tenant, types[1], kinds))
        shape.message_indexes.append(index)
        shape.device_ids.append(device.id)
        shape.times.append(instant)
        shape.values.extend(values)
    return _FlatMessages(list(shapes.values()), needs_single_decoding, rejections)


def _decode_single(index: int, message: Message, device: Device, payload_format: Format) -> DecodedMessage:
    """Decode a message by itself.

    Raises:
        RejectedMessageError: It can't be decoded, or is older than its tenant allows.
    """
    measurements = payload_format.decode(message.payload, message.received_at)
    oldest = min(measurement.measured_at for measurement in measurements)
    if message.received_at - oldest > device.tenant.late_microseconds:
        raise RejectedMessageError(Reason.TOO_OLD, _too_old(device.tenant, oldest))
    return DecodedMessage(index, device, measurements)


def _too_old(tenant: Tenant, instant: int) -> str:
    days = tenant.late_microseconds // 86_400_000_000
    return (
        f"its time {time_text(instant)} is more than {days:,} days before the receipt, and tenant {tenant.name} takes nothing older; raise the"
        f" limit (sens tenants limits {tenant.name} --late-days), then replay"
    )
