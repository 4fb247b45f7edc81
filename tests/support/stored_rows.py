"""Measurements as the telemetry worker stores them, and as its versions before stored them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from support.former_rows import allow_former_rows

type Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
type Value = float | bool | str
type Row = tuple[str, str, datetime, Value]
"""Device, metric, time, value."""

type _Keys = dict[tuple[int, datetime], dict[int, Value]]
"""The values of each device and time, by the ids of their metrics."""


class Form(StrEnum):
    """The rows that hold measurements.

    Attributes:
        READINGS: One for each device and time.
        FORMER: One for each value.
        BOTH: One of each form by turns, from time to time of a device.
    """

    READINGS = "readings"
    FORMER = "former"
    BOTH = "both"


async def insert_measurements(connection: Connection, tenant: str, rows: Sequence[Row], form: Form) -> None:
    """Insert measurements, with devices and metrics as needed, one metric for each name and kind."""
    tenant_id = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = $1", tenant)
    devices = await _device_ids(connection, tenant_id, dict.fromkeys(device for device, _, _, _ in rows))
    metrics = await _metric_ids(connection, tenant_id, dict.fromkeys((row[1], _kind(row[3])) for row in rows))
    keys: _Keys = defaultdict(dict)
    for device, metric, time, value in rows:
        keys[devices[device], time][metrics[metric, _kind(value)]] = value
    of_form: dict[Form, _Keys] = {Form.READINGS: {}, Form.FORMER: {}}
    for index, key in enumerate(sorted(keys)):
        turn = (Form.READINGS, Form.FORMER)[index % 2]
        of_form[turn if form is Form.BOTH else form][key] = keys[key]
    if former := of_form[Form.FORMER]:
        await _insert_former(connection, former)
    if readings := of_form[Form.READINGS]:
        await _insert_readings(connection, tenant_id, readings)


def _kind(value: Value) -> str:
    return "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"


async def _device_ids(connection: Connection, tenant_id: int, names: Iterable[str]) -> dict[str, int]:
    rows = await connection.fetch(
        "INSERT INTO sens.devices (tenant_id, name) SELECT $1, unnest($2::text[])"
        " ON CONFLICT (tenant_id, name) DO UPDATE SET name = excluded.name RETURNING name, id",
        tenant_id,
        list(names),
    )
    return {row["name"]: row["id"] for row in rows}


async def _metric_ids(
    connection: Connection, tenant_id: int, metrics: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Return the ids of metrics by name and kind."""
    names, kinds = [name for name, _ in metrics], [kind for _, kind in metrics]
    rows = await connection.fetch(
        "INSERT INTO sens.metrics (tenant_id, name, kind) SELECT $1, * FROM unnest($2::text[], $3::text[])"
        " ON CONFLICT (tenant_id, name, kind) DO UPDATE SET name = excluded.name RETURNING name, kind, id",
        tenant_id,
        names,
        kinds,
    )
    return {(row["name"], row["kind"]): row["id"] for row in rows}


async def _insert_former(connection: Connection, keys: _Keys) -> None:
    await allow_former_rows(connection, [time for _, time in keys])
    rows = [
        (device, metric, time, value) for (device, time), values in keys.items() for metric, value in values.items()
    ]
    for table, records in (
        ("measurements", [(*row[:3], float(row[3])) for row in rows if not isinstance(row[3], str)]),
        ("text_measurements", [row for row in rows if isinstance(row[3], str)]),
    ):
        await connection.copy_records_to_table(table, schema_name="sens", records=records)


async def _insert_readings(connection: Connection, tenant_id: int, keys: _Keys) -> None:
    """Insert readings; those that are there keep their values beside the new ones."""
    times = [time for _, time in keys]
    await connection.execute("SELECT sens.ensure_reading_partitions($1, $2)", min(times), max(times))
    united = await _deleted_readings(connection, keys)
    for key, values in keys.items():
        united[key] |= values
    sets: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    records = []
    for (device, time), values in sorted(united.items()):
        numbers = tuple(sorted(metric for metric, value in values.items() if not isinstance(value, str)))
        texts = tuple(sorted(metric for metric, value in values.items() if isinstance(value, str)))
        if (numbers, texts) not in sets:
            sets[numbers, texts] = await _metric_set(connection, tenant_id, numbers, texts)
        elements = [float(values[metric]) for metric in numbers], [values[metric] for metric in texts]
        records.append((device, sets[numbers, texts], time, elements[0] or None, elements[1] or None))
    days: dict[tuple[int, int], list[datetime]] = defaultdict(list)
    for device, metric_set, time, _, _ in records:
        days[device, metric_set].append(time.astimezone(UTC))
    await connection.executemany(
        """
        INSERT INTO sens.device_metric_sets AS s VALUES ($1, $2, $3, $4) ON CONFLICT (device_id, metric_set_id)
        DO UPDATE SET first_day = least(s.first_day, excluded.first_day), last_day = greatest(s.last_day, excluded.last_day)
        """,
        [(*pair, min(of_pair).date(), max(of_pair).date()) for pair, of_pair in days.items()],
    )
    async with connection.transaction():
        await connection.copy_records_to_table("readings", schema_name="sens", records=records)
        await connection.execute(
            "SELECT sens.note_changes($1, $2, $3)",
            [device for device, *_ in records],
            [time for _, _, time, *_ in records],
            [time + timedelta(microseconds=1) for _, _, time, *_ in records],
        )


async def _deleted_readings(connection: Connection, keys: Mapping[tuple[int, datetime], object]) -> _Keys:
    """Delete the readings of some keys; return what they held."""
    rows = await connection.fetch(
        """
        WITH gone AS (
            DELETE FROM sens.readings r USING unnest($1::int[], $2::timestamptz[]) k(device_id, ts)
            WHERE r.device_id = k.device_id AND r.ts = k.ts RETURNING r.*
        )
        SELECT gone.device_id, gone.ts, x.number_ids, gone.numbers, x.text_ids, gone.texts
        FROM gone JOIN sens.metric_sets x ON x.id = gone.metric_set_id
        """,
        [device for device, _ in keys],
        [time for _, time in keys],
    )
    held: _Keys = defaultdict(dict)
    for device, time, number_ids, numbers, text_ids, texts in rows:
        for ids, elements in ((number_ids, numbers), (text_ids, texts)):
            pairs = zip(ids, elements or (), strict=False)
            held[device, time] |= {metric: value for metric, value in pairs if value is not None}
    return held


async def _metric_set(connection: Connection, tenant_id: int, numbers: Sequence[int], texts: Sequence[int]) -> int:
    arguments = tenant_id, list(numbers), list(texts)
    await connection.execute(
        "INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        *arguments,
    )
    found: int = await connection.fetchval(
        "SELECT id FROM sens.metric_sets WHERE tenant_id = $1 AND number_ids = $2 AND text_ids = $3", *arguments
    )
    return found
