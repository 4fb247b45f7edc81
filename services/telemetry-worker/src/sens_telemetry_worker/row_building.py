"""Builds rows of decoded messages: the values of a shape are the columns of its rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np

from sens_telemetry_worker.batch import Rejection
from sens_telemetry_worker.decoding import DecodedMessage, DecodedMessages, Shape
from sens_telemetry_worker.rows import NumericColumns, Rows, TextRow, joined, numeric_columns
from sens_telemetry_worker.tenants import MetricKey, MetricKind, Refusal, Tenant


class BuiltRows(NamedTuple):
    """Rows, and the messages that have none because a metric of theirs is not registered."""

    rows: Rows
    rejections: list[Rejection]


def build_rows(decoded: DecodedMessages, refusals: Mapping[MetricKey, Refusal]) -> BuiltRows:
    """Return the rows of decoded messages.

    Args:
        decoded: The messages; the ids of their metrics are in `Tenant.metric_ids`.
        refusals: Why a metric has no id.
    """
    numeric: list[NumericColumns] = []
    texts: list[TextRow] = []
    rejections: list[Rejection] = []
    for shape in decoded.shapes:
        metrics = shape.metrics()
        metric_ids = _metric_ids(shape.tenant, metrics)
        if metric_ids is None:
            refusal = _refusal(shape.tenant, metrics, refusals)
            rejections += [Rejection(index, *refusal) for index in shape.message_indexes]
            continue
        numeric += _columns_of_shape(shape, metric_ids)
        texts += _text_rows(shape, metric_ids)
    single: list[tuple[int, int, int, int, float]] = []
    for message in decoded.single:
        metrics = message.metrics()
        metric_ids = _metric_ids(message.device.tenant, metrics)
        if metric_ids is None:
            rejections.append(Rejection(message.message_index, *_refusal(message.device.tenant, metrics, refusals)))
            continue
        single += _numeric_values(message, metric_ids)
        texts += _text_values(message, metric_ids)
    numeric.append(numeric_columns(*zip(*single, strict=True)) if single else numeric_columns((), (), (), (), ()))
    return BuiltRows(Rows(joined(numeric), texts), rejections)


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


def _columns_of_shape(shape: Shape, metric_ids: Sequence[int]) -> Iterator[NumericColumns]:
    messages = np.array(shape.message_indexes, np.int32)
    devices = np.array(shape.device_ids, np.int32)
    times = np.array(shape.times, np.int64)
    for metric_index, (metric_id, kind) in enumerate(zip(metric_ids, shape.kinds, strict=True)):
        if kind != "text":
            values = np.array(shape.column(metric_index), np.float64)
            yield NumericColumns(messages, devices, np.full(len(messages), metric_id, np.int32), times, values)


def _text_rows(shape: Shape, metric_ids: Sequence[int]) -> Iterator[TextRow]:
    for metric_index, (metric_id, kind) in enumerate(zip(metric_ids, shape.kinds, strict=True)):
        if kind == "text":
            column = shape.column(metric_index)
            yield from map(TextRow, shape.device_ids, repeat(metric_id), shape.times, shape.message_indexes, column)  # type: ignore[arg-type]


def _numeric_values(message: DecodedMessage, metric_ids: Sequence[int]) -> Iterator[tuple[int, int, int, int, float]]:
    for metric_id, (_, measured_at, value) in zip(metric_ids, message.measurements, strict=True):
        if not isinstance(value, str):
            yield message.message_index, message.device.id, metric_id, measured_at, value


def _text_values(message: DecodedMessage, metric_ids: Sequence[int]) -> Iterator[TextRow]:
    for metric_id, (_, measured_at, value) in zip(metric_ids, message.measurements, strict=True):
        if isinstance(value, str):
            yield TextRow(message.device.id, metric_id, measured_at, message.message_index, value)
