"""Decodes a batch column by column.

Devices of one kind send the same metrics again and again. Messages of a tenant with the same names and kinds of value are
gathered, so that what they have in common is looked up once, and their values are converted and checked together. A message that
is not flat, or one of few of its shape, is decoded by itself; what is stored is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final, Literal, NamedTuple

import numpy as np

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_telemetry_worker.decoders import Format, Reading
from sens_telemetry_worker.decoders.reading import EXACT_BELOW, is_plain_text
from sens_telemetry_worker.rows import NumberRows, TextRow, joined, number_rows

Kind = Literal["number", "boolean", "text"]

KINDS: Final[dict[type, Kind]] = {float: "number", int: "number", bool: "boolean", str: "text"}

_FEW: Final = 8
"""Fewer messages of one shape are not worth arrays of their own."""


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


class Rejected(NamedTuple):
    """A message that is not stored."""

    message: int
    reason: str
    detail: str


@dataclass(slots=True)
class Shape:
    """Messages of one tenant with the same names and kinds of value, in the same order.

    Attributes:
        tenant: Whose they are.
        names: Of the metrics, w of them.
        kinds: Of their values, w; None is a kind that is not stored.
        messages: Numbers of the n messages.
        devices: Numbers of their devices, n.
        times: Microseconds since the epoch, n.
        values: n times w, message by message.
    """

    tenant: Tenant
    names: tuple[str, ...]
    kinds: tuple[Kind | None, ...]
    messages: list[int] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def column(self, position: int) -> list[object]:
        """Return the values of one metric, n."""
        return self.values[position :: len(self.names)]

    def unusual(self) -> list[int]:
        """Return the positions (below n) of messages with a value that the format's `decode` has to look at."""
        if None in self.kinds or len(self.messages) < _FEW:
            return list(range(len(self.messages)))
        unusual = np.zeros(len(self.messages), np.bool_)
        for position, kind in enumerate(self.kinds):
            column = self.column(position)
            if kind == "text":
                unusual |= np.fromiter((not is_plain_text(text) for text in column), np.bool_, len(column))  # type: ignore[arg-type]
            elif kind == "number":
                unusual |= np.abs(np.array(column, np.float64)) >= EXACT_BELOW
        found: list[int] = np.flatnonzero(unusual).tolist()
        return found

    def without(self, positions: Sequence[int]) -> "Shape":
        """Return the messages but those at these positions."""
        width = len(self.names)
        left = sorted(set(range(len(self.messages))) - set(positions))
        return Shape(
            self.tenant,
            self.names,
            self.kinds,
            [self.messages[position] for position in left],
            [self.devices[position] for position in left],
            [self.times[position] for position in left],
            [value for position in left for value in self.values[position * width : position * width + width]],
        )


class Batch:
    """The decoded messages of a batch.

    Attributes:
        rejected: Messages that can't be stored; complete after `rows`.
    """

    def __init__(self, messages: Sequence[Message], devices: Sequence[Device | None], payload_format: Format) -> None:
        self._format = payload_format
        self._single: list[tuple[int, Device, list[Reading]]] = []
        self._shapes: list[Shape] = []
        self.rejected: list[Rejected] = []
        closer: list[int] = []
        for shape in self._flat(messages, devices, closer):
            unusual = shape.unusual()
            if unusual:
                closer += [shape.messages[position] for position in unusual]
                shape = shape.without(unusual)  # noqa: PLW2901
            if shape.messages:
                self._shapes.append(shape)
        for number, device in ((number, devices[number]) for number in sorted(closer)):
            if device is None:
                continue
            try:
                readings = payload_format.decode(messages[number].payload, messages[number].received_at)
            except RejectedMessageError as error:
                self.rejected.append(Rejected(number, error.reason, error.detail))
            else:
                self._single.append((number, device, readings))

    def _flat(self, messages: Sequence[Message], devices: Sequence[Device | None], closer: list[int]) -> "list[Shape]":
        shapes: dict[tuple[int, tuple[str, ...], tuple[Kind | None, ...]], Shape] = {}
        # A number may come as an integer or a float, so that several rows of types are one shape.
        typed: dict[tuple[int, tuple[str, ...], tuple[type, ...]], Shape] = {}
        flat = self._format.flat
        for number, (message, device) in enumerate(zip(messages, devices, strict=True)):
            if device is None:
                continue
            try:
                found = flat(message.payload, message.received_at)
            except RejectedMessageError as error:
                self.rejected.append(Rejected(number, error.reason, error.detail))
                continue
            if found is None:
                closer.append(number)
                continue
            instant, members = found
            values = members.values()
            tenant = device.tenant
            types = (tenant.id, tuple(members), tuple(map(type, values)))
            shape = typed.get(types)
            if shape is None:
                kinds = tuple(map(KINDS.get, types[2]))
                shape = typed[types] = shapes.setdefault((tenant.id, types[1], kinds), Shape(tenant, types[1], kinds))
            shape.messages.append(number)
            shape.devices.append(device.id)
            shape.times.append(instant)
            shape.values.extend(values)
        return list(shapes.values())

    def metrics(self) -> Iterator[tuple[Tenant, str, Kind]]:
        """Yield the metrics that their tenants are not known to have."""
        for shape in self._shapes:
            ids = shape.tenant.metric_ids
            for name, kind in zip(shape.names, shape.kinds, strict=True):
                if kind is not None and name not in ids[kind]:
                    yield shape.tenant, name, kind
        for _, device, readings in self._single:
            ids = device.tenant.metric_ids
            for name, _, value in readings:
                kind = KINDS[type(value)]
                if name not in ids[kind]:
                    yield device.tenant, name, kind

    def rows(self) -> tuple[NumberRows, list[TextRow]]:
        """Return the rows. Messages with a metric that has no number are rejected: the tenant's limit leaves no room for it."""
        parts: list[NumberRows] = []
        texts: list[TextRow] = []
        for shape in self._shapes:
            self._shape_rows(shape, parts, texts)
        parts.append(self._single_rows(texts))
        return joined(parts), texts

    def _shape_rows(self, shape: Shape, parts: list[NumberRows], texts: list[TextRow]) -> None:
        known = shape.tenant.metric_ids
        try:
            ids = [known[kind][name] for name, kind in zip(shape.names, shape.kinds, strict=True) if kind is not None]
        except KeyError as error:
            detail = _limit_reached(shape.tenant, error)
            self.rejected += [Rejected(number, Reason.LIMIT_REACHED, detail) for number in shape.messages]
            return
        messages = np.array(shape.messages, np.int32)
        devices = np.array(shape.devices, np.int32)
        times = np.array(shape.times, np.int64)
        for position, (metric_id, kind) in enumerate(zip(ids, shape.kinds, strict=True)):
            column = shape.column(position)
            if kind == "text":
                texts += map(TextRow, shape.devices, repeat(metric_id), shape.times, shape.messages, column)  # type: ignore[arg-type]
            else:
                metric_ids = np.full(len(messages), metric_id, np.int32)
                parts.append(NumberRows(messages, devices, metric_ids, times, np.array(column, np.float64)))

    def _single_rows(self, texts: list[TextRow]) -> NumberRows:
        rows: list[tuple[int, int, int, int, float]] = []
        for number, device, readings in self._single:
            known = device.tenant.metric_ids
            try:
                metric_ids = [known[KINDS[type(value)]][name] for name, _, value in readings]
            except KeyError as error:
                self.rejected.append(Rejected(number, Reason.LIMIT_REACHED, _limit_reached(device.tenant, error)))
                continue
            for metric_id, (_, measured_at, value) in zip(metric_ids, readings, strict=True):
                if isinstance(value, str):
                    texts.append(TextRow(device.id, metric_id, measured_at, number, value))
                else:
                    rows.append((number, device.id, metric_id, measured_at, value))
        return number_rows(*zip(*rows, strict=True)) if rows else number_rows((), (), (), (), ())


def _limit_reached(tenant: Tenant, missing: KeyError) -> str:
    return f"tenant {tenant.name} has all the metrics its limit allows; {missing.args[0]!r:.250} is new"
