"""Builds rows of decoded messages: the values of a shape are the columns of its readings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from sens_common.formats import MetricKind
from sens_telemetry_worker.batch import Rejection
from sens_telemetry_worker.decoding import DecodedMessage, DecodedMessages
from sens_telemetry_worker.rows import Reading, ReadingGroup, Rows, group_of, joined
from sens_telemetry_worker.shapes import Shape
from sens_telemetry_worker.tenants import MetricKey, MetricSet, NewMetrics, Refusal, RegisteredMetrics, Tenant


class BuiltRows(NamedTuple):
    """Rows, and the messages that have none because a metric of theirs is not registered."""

    rows: Rows
    rejections: list[Rejection]


class MetricRegistry(Protocol):
    """Metrics in the database."""

    async def register_metrics(self, wanted: Sequence[NewMetrics]) -> RegisteredMetrics:
        """Return metrics, registering those that are new: those of a message all or none, so that a refused message uses no limit up.

        Raises:
            StoreUnavailableError: The database can't be asked.
        """


class RowBuilder:
    """Builds rows, for which it registers metrics that are new."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._registry = registry

    async def build(self, decoded: DecodedMessages) -> BuiltRows:
        """Return the rows of decoded messages."""
        refusals = await self._register(decoded.new_metrics())
        groups: list[ReadingGroup] = []
        rejections: list[Rejection] = []
        for shape in decoded.shapes:
            metric_ids = _metric_ids(shape.tenant, shape.metrics)
            if metric_ids is None:
                refusal = _refusal(shape.tenant, shape.metrics, refusals)
                rejections += [Rejection(index, *refusal) for index in shape.message_index.tolist()]
            else:
                groups.append(_group_of_shape(shape, metric_ids))
        single: dict[MetricSet, list[Reading]] = {}
        for message in decoded.single:
            tenant, metrics = message.device.tenant, message.metrics()
            metric_ids = _metric_ids(tenant, metrics)
            if metric_ids is None:
                rejections.append(Rejection(message.message_index, *_refusal(tenant, metrics, refusals)))
                continue
            for reading in _readings(message, metric_ids):
                single.setdefault(_metric_set(tenant, reading), []).append(reading)
        groups += [group_of(metric_set, readings) for metric_set, readings in single.items()]
        return BuiltRows(Rows(joined(groups)), rejections)

    async def _register(self, wanted: Sequence[NewMetrics]) -> dict[MetricKey, Refusal]:
        """Register new metrics and remember their ids; return why some are not registered."""
        if not wanted:
            return {}
        registered = await self._registry.register_metrics(wanted)
        tenants = {new.tenant.id: new.tenant for new in wanted}
        for (tenant_id, name, kind), metric_id in registered.ids.items():
            tenants[tenant_id].metric_ids[kind][name] = metric_id
        return registered.refusals


def _metric_ids(tenant: Tenant, metrics: Iterable[tuple[str, MetricKind]]) -> list[int] | None:
    """Return the ids of a tenant's metrics, None where one of them has none."""
    known = tenant.metric_ids
    try:
        return [known[kind][name] for name, kind in metrics]
    except KeyError:
        return None


def _refusal(
    tenant: Tenant, metrics: Iterable[tuple[str, MetricKind]], refusals: Mapping[MetricKey, Refusal]
) -> Refusal:
    """Return why one of a message's metrics has no id; the same for all messages with these metrics, in whatever order."""
    return refusals[min((tenant.id, name, kind) for name, kind in tenant.unknown(metrics))]


def _group_of_shape(shape: Shape, metric_ids: Sequence[int]) -> ReadingGroup:
    number_ids = [metric_id for metric_id, (_, kind) in zip(metric_ids, shape.metrics, strict=True) if kind != "text"]
    text_ids = [metric_id for metric_id, (_, kind) in zip(metric_ids, shape.metrics, strict=True) if kind == "text"]
    return ReadingGroup(
        MetricSet.of(shape.tenant.id, number_ids, text_ids),
        shape.message_index,
        shape.device_id,
        shape.measured_at,
        shape.numbers[:, _by_id(number_ids)],
        shape.texts[:, _by_id(text_ids)],
    )


def _by_id(metric_ids: Sequence[int]) -> list[int]:
    """Return the indexes of ids in ascending order of the ids."""
    return sorted(range(len(metric_ids)), key=metric_ids.__getitem__)


def _readings(message: DecodedMessage, metric_ids: Sequence[int]) -> Iterator[Reading]:
    """Yield a reading for each time of a message; for each repetition of a metric at one time, another one."""
    by_time: dict[int, list[dict[int, float | str]]] = {}
    for metric_id, (_, measured_at, value) in zip(metric_ids, message.measurements, strict=True):
        values_at = by_time.setdefault(measured_at, [{}])
        if metric_id in values_at[-1]:
            values_at.append({})
        values_at[-1][metric_id] = value
    for measured_at, values_at in by_time.items():
        for values in values_at:
            yield Reading(message.message_index, message.device.id, measured_at, values)


def _metric_set(tenant: Tenant, reading: Reading) -> MetricSet:
    texts = [metric_id for metric_id, value in reading.values.items() if isinstance(value, str)]
    return MetricSet.of(tenant.id, reading.values.keys() - set(texts), texts)
