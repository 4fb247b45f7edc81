"""What is stored, value by value, whichever table it is in: for all that counts or compares stored values.

A value is a row of `sens.measurements` or `sens.text_measurements`, or an element of a row of `sens.readings`; never both.
"""

from collections.abc import Container
from typing import Final

VALUE_TABLES: Final = """
    SELECT name FROM unnest(ARRAY['sens.readings', 'sens.measurements', 'sens.text_measurements']) AS name WHERE to_regclass(name) IS NOT NULL
"""
"""Asks which tables of values there are: those with a row a value go when all their rows have been moved."""

# Written so that conditions on device_id and ts, on metrics' names and on tenants are those of each table that is read.
_READINGS: Final = """
    SELECT t.id AS tenant_id, t.name AS tenant, r.device_id, d.name AS device, e.metric_id, e.metric, e.kind, r.ts,
           CASE WHEN e.kind <> 'text' THEN r.numbers[e.element] END AS number, CASE WHEN e.kind = 'text' THEN r.texts[e.element] END AS text
    FROM sens.readings r
    JOIN (
        SELECT s.id AS metric_set_id, k.id AS metric_id, k.name AS metric, k.kind, ids.element
        FROM sens.metric_sets s
        CROSS JOIN LATERAL (
            SELECT * FROM unnest(s.number_ids) WITH ORDINALITY UNION ALL SELECT * FROM unnest(s.text_ids) WITH ORDINALITY
        ) AS ids (id, element)
        JOIN sens.metrics k ON k.id = ids.id
    ) e ON e.metric_set_id = r.metric_set_id
    JOIN sens.devices d ON d.id = r.device_id
    JOIN sens.tenants t ON t.id = d.tenant_id
    WHERE CASE WHEN e.kind = 'text' THEN r.texts[e.element] IS NOT NULL ELSE r.numbers[e.element] IS NOT NULL END
"""
_FORMER: Final = """
    SELECT t.id, t.name, m.device_id, d.name, m.metric_id, k.name, k.kind, m.ts, {columns}
    FROM sens.{table} m
    JOIN sens.metrics k ON k.id = m.metric_id
    JOIN sens.devices d ON d.id = m.device_id
    JOIN sens.tenants t ON t.id = d.tenant_id
"""


def with_stored_values(tables: Container[str], query: str) -> str:
    """Return the query so that it can read all values as a table `stored_values`.

    Its columns are `tenant_id, tenant, device_id, device, metric_id, metric, kind, ts, number, text`. A number or a boolean, which is 0 or
    1, is in `number`, a text in `text`.

    Args:
        tables: What the database answers to `VALUE_TABLES`.
        query: Reads `stored_values`.
    """
    arms = [_READINGS]
    if "sens.measurements" in tables:
        arms.append(_FORMER.format(table="measurements", columns="m.value, NULL"))
    if "sens.text_measurements" in tables:
        arms.append(_FORMER.format(table="text_measurements", columns="NULL, m.value"))
    return f"WITH stored_values AS NOT MATERIALIZED ({' UNION ALL '.join(arms)}) {query}"
