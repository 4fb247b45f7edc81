"""Decodes a batch column by column.

Devices of one kind send the same metrics again and again. Messages of a tenant with the same names and kinds of value are
gathered, so that what they have in common is looked up once, and their values are converted and checked together. A message that
is not flat, or one of few of its shape, is decoded by itself; what is stored is the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final, Literal, NamedTuple

import numpy as np

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_telemetry_worker.decoders import Format, Reading
from sens_telemetry_worker.decoders.reading import EXACT_BELOW, is_plain_text
from sens_telemetry_worker.decoders.timestamps import time_text
from sens_telemetry_worker.rows import NumberRows, TextRow, joined, number_rows

Kind = Literal["number", "boolean", "text"]

KINDS: Final[dict[type, Kind]] = {float: "number", int: "number", bool: "boolean", str: "text"}

DEFAULT_LATE_MICROSECONDS: Final = 400 * 86_400_000_000
"""What a new tenant has, in the database too."""

_FEW: Final = 8
"""Fewer messages of one shape are not worth arrays of their own."""


@dataclass(slots=True)
class Tenant:
    """A tenant, and what is known of its metrics: their numbers by name, for each kind.

    Attributes:
        id: Its number.
        name: As in the topics.
        metric_ids: Of those metrics that were seen.
        late_microseconds: How far before its receipt a reading may lie.
    """

    id: int
    name: str
    metric_ids: dict[Kind, dict[str, int]] = field(default_factory=lambda: {"number": {}, "boolean": {}, "text": {}})
    late_microseconds: int = DEFAULT_LATE_MICROSECONDS


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


class Refusal(NamedTuple):
    """Why a name is not registered."""

    reason: str
    detail: str


class NewNames(NamedTuple):
    """Metrics that the tenant of a message is not known to have."""

    tenant: Tenant
    names: frozenset[tuple[str, Kind]]


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

    def pairs(self) -> list[tuple[str, Kind]]:
        """Return names and kinds of the metrics."""
        return [(name, kind) for name, kind in zip(self.names, self.kinds, strict=True) if kind is not None]

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
                continue
            oldest = min(reading.measured_at for reading in readings)
            if messages[number].received_at - oldest > device.tenant.late_microseconds:
                self.rejected.append(Rejected(number, Reason.TOO_OLD, _too_old(device.tenant, oldest)))
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
            tenant = device.tenant
            if found is None or message.received_at - found[0] > tenant.late_microseconds:
                closer.append(number)
                continue
            instant, members = found
            values = members.values()
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

    def new_metrics(self) -> list[NewNames]:
        """Return the metrics that their tenants are not known to have: those of each message together, in the messages' order."""
        first: dict[tuple[int, frozenset[tuple[str, Kind]]], tuple[int, Tenant]] = {}
        for number, tenant, pairs in self._names():
            if names := _unknown(tenant, pairs):
                key = tenant.id, names
                if key not in first or number < first[key][0]:
                    first[key] = number, tenant
        ordered = sorted(first.items(), key=lambda item: item[1][0])
        return [NewNames(tenant, names) for (_, names), (_, tenant) in ordered]

    def _names(self) -> Iterator[tuple[int, Tenant, list[tuple[str, Kind]]]]:
        """Yield names and kinds of the metrics of each shape with its first message, and of each single message."""
        for shape in self._shapes:
            yield shape.messages[0], shape.tenant, shape.pairs()
        for number, device, readings in self._single:
            yield number, device.tenant, [(name, KINDS[type(value)]) for name, _, value in readings]

    def rows(self, refused: Mapping[tuple[int, str, Kind], Refusal]) -> tuple[NumberRows, list[TextRow]]:
        """Return the rows. Messages with a metric that has no number are rejected.

        Args:
            refused: Why a metric has none, by tenant's number, name and kind.
        """
        parts: list[NumberRows] = []
        texts: list[TextRow] = []
        for shape in self._shapes:
            self._shape_rows(shape, parts, texts, refused)
        parts.append(self._single_rows(texts, refused))
        return joined(parts), texts

    def _shape_rows(
        self,
        shape: Shape,
        parts: list[NumberRows],
        texts: list[TextRow],
        refused: Mapping[tuple[int, str, Kind], Refusal],
    ) -> None:
        known = shape.tenant.metric_ids
        pairs = shape.pairs()
        try:
            ids = [known[kind][name] for name, kind in pairs]
        except KeyError:
            refusal = _refusal(shape.tenant, pairs, refused)
            self.rejected += [Rejected(number, *refusal) for number in shape.messages]
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

    def _single_rows(self, texts: list[TextRow], refused: Mapping[tuple[int, str, Kind], Refusal]) -> NumberRows:
        rows: list[tuple[int, int, int, int, float]] = []
        for number, device, readings in self._single:
            known = device.tenant.metric_ids
            try:
                metric_ids = [known[KINDS[type(value)]][name] for name, _, value in readings]
            except KeyError:
                pairs = [(name, KINDS[type(value)]) for name, _, value in readings]
                self.rejected.append(Rejected(number, *_refusal(device.tenant, pairs, refused)))
                continue
            for metric_id, (_, measured_at, value) in zip(metric_ids, readings, strict=True):
                if isinstance(value, str):
                    texts.append(TextRow(device.id, metric_id, measured_at, number, value))
                else:
                    rows.append((number, device.id, metric_id, measured_at, value))
        return number_rows(*zip(*rows, strict=True)) if rows else number_rows((), (), (), (), ())


def _unknown(tenant: Tenant, pairs: Iterable[tuple[str, Kind]]) -> frozenset[tuple[str, Kind]]:
    return frozenset((name, kind) for name, kind in pairs if name not in tenant.metric_ids[kind])


def _refusal(
    tenant: Tenant, pairs: Iterable[tuple[str, Kind]], refused: Mapping[tuple[int, str, Kind], Refusal]
) -> Refusal:
    """Return why one of a message's metrics has no number; the same for all messages with these metrics, in whatever order."""
    return refused[min((tenant.id, name, kind) for name, kind in _unknown(tenant, pairs))]


def _too_old(tenant: Tenant, instant: int) -> str:
    days = tenant.late_microseconds // 86_400_000_000
    return (
        f"its time {time_text(instant)} is more than {days:,} days before the receipt, and tenant {tenant.name} takes nothing older; raise the"
        f" limit (sens tenants limits {tenant.name} --late-days), then replay"
    )
