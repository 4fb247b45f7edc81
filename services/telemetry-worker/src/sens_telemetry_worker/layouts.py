"""Which layout the last payloads of a device had, so that the next ones are decoded together with others of the same layout."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from sens_common.envelope import Message
from sens_telemetry_worker.decoders.columns import ColumnFormat, Layout
from sens_telemetry_worker.shapes import MIN_MESSAGES, Shape, text_columns
from sens_telemetry_worker.tenants import Device

MAX_DEVICES: Final = 250_000
"""Devices of which something is remembered; when there are more, it begins with none."""
_MAX_MISSES: Final = 3
"""A device whose payloads so often did not fit its layout gets no other one, until it is forgotten that they did not."""
_BATCHES_UNTIL_FORGOTTEN: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class _TenantLayout:
    """A layout of a tenant's payloads; one object for each."""

    layout: Layout


class ByLayout(NamedTuple):
    """What became of the messages of a batch.

    Attributes:
        shapes: Those that were decoded.
        others: Indexes of the others that lead to a device, in ascending order.
    """

    shapes: list[Shape]
    others: list[int]


class KnownLayouts:
    """Remembers the layouts, and decodes by them."""

    def __init__(self, payload_format: ColumnFormat, max_devices: int = MAX_DEVICES) -> None:
        self._format = payload_format
        self._max_devices = max_devices
        self._layouts: dict[tuple[int, Layout], _TenantLayout] = {}
        self._of_devices: dict[int, _TenantLayout] = {}
        self._last_names: dict[int, tuple[str, ...]] = {}
        self._misses: dict[int, int] = defaultdict(int)
        self._batch_count = 0

    def decode(self, messages: Sequence[Message], devices: Sequence[Device | None]) -> ByLayout:
        """Decode the messages whose device has a layout that their payload is of.

        Args:
            messages: All messages of a batch.
            devices: Each message's device, None where its topic leads to none.
        """
        self._batch_count += 1
        if self._batch_count % _BATCHES_UNTIL_FORGOTTEN == 0:
            self._misses.clear()
        groups: dict[_TenantLayout, list[int]] = {}
        others: list[int] = []
        find = self._of_devices.get
        for index, device in enumerate(devices):
            if device is None:
                continue
            known = find(device.id)
            if known is None:
                others.append(index)
            elif known in groups:
                groups[known].append(index)
            else:
                groups[known] = [index]
        shapes: list[Shape] = []
        for known, indexes in groups.items():
            if len(indexes) < MIN_MESSAGES:
                others += indexes
                continue
            shape = _decoded(known.layout, messages, devices, indexes)
            if len(shape.message_index) < len(indexes):
                missed = set(indexes) - set(shape.message_index.tolist())
                others += missed
                self._note_misses(missed, devices)
            if len(shape.message_index):
                shapes.append(shape)
        others.sort()
        return ByLayout(shapes, others)

    def note(self, device: Device, names: tuple[str, ...], payload: bytes) -> None:
        """Take note of a flat payload: the second one with the same names gives a device its layout, if it has none."""
        if device.id in self._of_devices:  # its batch had few payloads of the layout
            return
        if self._last_names.get(device.id) != names:
            if len(self._last_names) >= self._max_devices:
                self._last_names.clear()
            self._last_names[device.id] = names
            return
        if self._misses.get(device.id, 0) >= _MAX_MISSES:
            return
        layout = self._format.layout_of(payload)
        if layout is None:
            return
        if len(self._of_devices) >= self._max_devices:
            self._of_devices.clear()
            self._layouts.clear()
            self._misses.clear()
        key = device.tenant.id, layout
        self._of_devices[device.id] = self._layouts.setdefault(key, _TenantLayout(layout))
        del self._last_names[device.id]

    def _note_misses(self, missed: set[int], devices: Sequence[Device | None]) -> None:
        for device_id in {device.id for index in missed if (device := devices[index]) is not None}:
            if self._of_devices.pop(device_id, None) is not None:
                self._misses[device_id] += 1


def _decoded(
    layout: Layout, messages: Sequence[Message], devices: Sequence[Device | None], indexes: Sequence[int]
) -> Shape:
    """Return those of the messages that are of the layout and not older than their tenant allows."""
    chosen = [messages[index] for index in indexes]
    own = [device for index in indexes if (device := devices[index]) is not None]
    received_at = np.array([message.received_at for message in chosen], np.int64)
    columns = layout.decode([message.payload for message in chosen], received_at)
    rows = columns.indexes
    shape = Shape(
        own[0].tenant,
        layout.metrics,
        np.array(indexes, np.int32)[rows],
        np.array([device.id for device in own], np.int32)[rows],
        columns.times,
        columns.numbers,
        text_columns(columns.texts, len(rows)),
    )
    recent = received_at[rows] - columns.times <= shape.tenant.late_microseconds
    return shape if recent.all() else shape.only(recent)
