"""Gathers what uplinks say by tenant, names and kinds of value, so that their values are columns."""

from collections.abc import Sequence

import numpy as np

from sens_common.formats import KINDS, Measurement, MetricKind
from sens_telemetry_worker.decoding import DecodedMessage
from sens_telemetry_worker.shapes import GatheredMessages, Shape
from sens_telemetry_worker.tenants import UplinkReading


def gather(readings: Sequence[UplinkReading]) -> tuple[list[Shape], list[DecodedMessage]]:
    """Gather readings with the same names and kinds of value; return the others one by one."""
    gathered: dict[tuple[int, tuple[str, ...], tuple[MetricKind | None, ...]], GatheredMessages] = {}
    typed: dict[tuple[int, tuple[str, ...], tuple[type, ...]], GatheredMessages] = {}
    for position, reading in enumerate(readings):
        device, values = reading.device, reading.values.values()
        types = (device.tenant.id, tuple(reading.values), tuple(map(type, values)))
        alike = typed.get(types)
        if alike is None:
            kinds = tuple(map(KINDS.get, types[2]))
            alike = typed[types] = gathered.setdefault(
                (types[0], types[1], kinds), GatheredMessages(device.tenant, types[1], kinds)
            )
        alike.message_indexes.append(position)
        alike.device_ids.append(device.id)
        alike.times.append(reading.measured_at)
        alike.values.extend(values)
    owners = np.array([reading.message_index for reading in readings], np.int32)
    shapes: list[Shape] = []
    single: list[DecodedMessage] = []
    for messages in gathered.values():
        shape, others = messages.decoded()
        if shape is not None:
            shapes.append(shape._replace(message_index=owners[shape.message_index]))
        single += [_single(readings[position]) for position in others]
    return shapes, single


def _single(reading: UplinkReading) -> DecodedMessage:
    """Return a reading as a message that was decoded by itself."""
    measurements = [
        Measurement(name, reading.measured_at, float(value) if type(value) is int else value)
        for name, value in reading.values.items()
    ]
    return DecodedMessage(reading.message_index, reading.device, measurements)
