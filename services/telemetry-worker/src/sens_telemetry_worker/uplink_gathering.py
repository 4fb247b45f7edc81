"""Gathers what uplinks say by tenant, names and kinds of value, so that their values are columns."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from sens_common.formats import KINDS, Measurement, MetricKind
from sens_telemetry_worker.decoding import DecodedMessage
from sens_telemetry_worker.shapes import GatheredMessages, Shape
from sens_telemetry_worker.tenants import Tenant, UplinkReading


def gather(readings: Sequence[UplinkReading]) -> tuple[list[Shape], list[DecodedMessage]]:
    """Gather readings with the same names and kinds of value; return the others one by one."""
    owners = np.array([reading.message_index for reading in readings], np.int32)
    shapes: list[Shape] = []
    single: list[DecodedMessage] = []
    for tenant, names, positions in _by_names(readings):
        for messages in _by_kinds(readings, tenant, names, positions):
            shape, others = messages.decoded()
            if shape is not None:
                shapes.append(shape._replace(message_index=owners[shape.message_index]))
            single += [_single(readings[position]) for position in others]
    return shapes, single


def _by_names(readings: Sequence[UplinkReading]) -> list[tuple[Tenant, tuple[str, ...], list[int]]]:
    """Return the positions of readings of a tenant whose values have the same names, in the same order."""
    found: dict[tuple[int, tuple[str, ...]], tuple[Tenant, tuple[str, ...], list[int]]] = {}
    last: tuple[Tenant | None, tuple[str, ...], list[int]] = None, (), []
    for position, reading in enumerate(readings):
        tenant, names = reading.device.tenant, tuple(reading.values)
        if tenant is not last[0] or names != last[1]:  # most are like the one before
            last = found.setdefault((tenant.id, names), (tenant, names, []))
        last[2].append(position)
    return list(found.values())


def _by_kinds(
    readings: Sequence[UplinkReading], tenant: Tenant, names: tuple[str, ...], positions: Sequence[int]
) -> list[GatheredMessages]:
    """Gather readings whose values have the same names by the kinds of these: mostly there is one of each."""
    chosen = [readings[position] for position in positions]
    values: list[object] = list(chain.from_iterable([reading.values.values() for reading in chosen]))
    width = len(names)
    kinds = [{KINDS.get(each) for each in set(map(type, values[at::width]))} for at in range(width)]
    if all(len(of_column) == 1 for of_column in kinds):
        return [
            GatheredMessages(
                tenant,
                names,
                tuple(kind for [kind] in kinds),
                list(positions),
                [reading.device.id for reading in chosen],
                [reading.measured_at for reading in chosen],
                values,
            )
        ]
    by_kinds: dict[tuple[MetricKind | None, ...], list[int]] = {}
    for position, reading in zip(positions, chosen, strict=True):
        by_kinds.setdefault(tuple([KINDS.get(type(value)) for value in reading.values.values()]), []).append(position)
    return [gathered for alike in by_kinds.values() for gathered in _by_kinds(readings, tenant, names, alike)]


def _single(reading: UplinkReading) -> DecodedMessage:
    """Return a reading as a message that was decoded by itself."""
    measurements = [
        Measurement(name, reading.measured_at, float(value) if type(value) is int else value)
        for name, value in reading.values.items()
    ]
    return DecodedMessage(reading.message_index, reading.device, measurements)
