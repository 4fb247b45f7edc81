"""Readings made by hand."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sens_telemetry_worker.rows import Reading, ReadingGroup, Rows, group_of, joined
from sens_telemetry_worker.tenants import MetricSet

TENANT_ID: Final = 1000
"""Of readings that are made by hand."""
INSERT_NAMES: Final = f"""
    INSERT INTO sens.tenants (id, name) OVERRIDING SYSTEM VALUE VALUES ({TENANT_ID}, 'by-hand') ON CONFLICT DO NOTHING;
    INSERT INTO sens.devices (id, tenant_id, name) OVERRIDING SYSTEM VALUE
        SELECT id, {TENANT_ID}, 'd' || id FROM generate_series(1, 9) AS id ON CONFLICT DO NOTHING;
    INSERT INTO sens.metrics (id, tenant_id, name, kind) OVERRIDING SYSTEM VALUE
        SELECT id, {TENANT_ID}, 'm' || id, CASE id % 3 WHEN 0 THEN 'boolean' WHEN 1 THEN 'number' ELSE 'text' END
        FROM generate_series(1, 9) AS id ON CONFLICT DO NOTHING;
"""  # noqa: S608 - our own number
"""The tenant, and devices and metrics 1 to 9 of it: 1, 4 and 7 are numbers, 2, 5 and 8 texts, 3, 6 and 9 booleans."""


class KeyedValue(NamedTuple):
    """A value of a message, by ids."""

    message_index: int
    device_id: int
    measured_at: int
    metric_id: int
    value: float | str


def rows_of(values: Sequence[KeyedValue], tenant_id: int = TENANT_ID) -> Rows:
    """Return values as rows: a reading for each message, device and time; further ones where a metric is repeated."""
    readings: dict[tuple[int, int, int], list[dict[int, float | str]]] = {}
    for each in values:
        repetitions = readings.setdefault((each.message_index, each.device_id, each.measured_at), [{}])
        if each.metric_id in repetitions[-1]:
            repetitions.append({})
        repetitions[-1][each.metric_id] = each.value
    return Rows(joined(_group(tenant_id, key, part) for key, parts in readings.items() for part in parts))


def values_of(rows: Rows) -> list[KeyedValue]:
    """Return rows as values, in the order of their messages."""
    found: list[KeyedValue] = []
    for group in rows.groups:
        ids = (*group.metric_set.number_ids, *group.metric_set.text_ids)
        columns = (group.message_index, group.device_id, group.measured_at, group.numbers, group.texts)
        for message, device, at, numbers, texts in zip(*(column.tolist() for column in columns), strict=True):
            found += [
                KeyedValue(message, device, at, metric_id, value)
                for metric_id, value in zip(ids, (*numbers, *texts), strict=True)
                if value is not None and value == value  # noqa: PLR0124 - NaN is no value
            ]
    return sorted(found, key=lambda each: each.message_index)


def _group(tenant_id: int, key: tuple[int, int, int], values: dict[int, float | str]) -> ReadingGroup:
    texts = {metric_id for metric_id, value in values.items() if isinstance(value, str)}
    return group_of(MetricSet.of(tenant_id, values.keys() - texts, texts), [Reading(*key, values)])
