"""The bytes of a binary COPY are those that the server reads as the same readings."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.preparing import prepare
from sens_telemetry_worker.rows import Rows, joined
from sens_telemetry_worker.tenants import MetricSet
from sens_telemetry_worker.timescale.binary_copy import copy_to
from sens_telemetry_worker.timescale.reading_copy import COLUMNS, copy_bytes
from support.rows import INSERT_NAMES, TENANT_ID, KeyedValue, rows_of
from support.servers import execute_as, owner

AT = 1_700_000_000_000_000
EVERYTHING = MetricSet(TENANT_ID, (1, 4, 7), (2, 5))
values = st.one_of(
    st.tuples(st.sampled_from([1, 4, 7]), st.floats(allow_nan=False)),
    st.tuples(st.sampled_from([2, 5]), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5)),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.lists(values, min_size=1, max_size=5), st.booleans()), min_size=1, max_size=12))
def test_a_copy_is_read_as_it_was_written(
    database: DatabaseSettings, of_messages: list[tuple[list[tuple[int, float | str]], bool]]
) -> None:
    """Of one set or several, with and without values that are missing; in the order of the key."""
    keyed = [
        KeyedValue(index, 9 - index % 3, AT - index, metric, value)
        for index, (message, _) in enumerate(of_messages)
        for metric, value in dict(message).items()
    ]
    widened = [
        group.selected(mask).widened(EVERYTHING) if wide else group.selected(mask)
        for group in rows_of(keyed).groups
        for index, (_, wide) in enumerate(of_messages)
        if (mask := group.message_index == index).any()
    ]
    prepared = prepare(Rows(joined(widened)), len(of_messages))

    async def work() -> None:
        set_ids = {group.metric_set: number for number, group in enumerate(prepared.inserts, 1)}
        at = "SELECT sens.ensure_reading_partitions('2023-11-01', '2023-11-30')"
        await execute_as(database, at, "TRUNCATE sens.readings", INSERT_NAMES)
        async with owner(database) as connection:
            await copy_to(connection, "readings", COLUMNS, copy_bytes(prepared.inserts, set_ids), schema="sens")
            rows = await connection.fetch(
                "SELECT device_id, (extract(epoch FROM ts) * 1000000)::int8 AS at, metric_set_id, numbers, texts FROM sens.readings"
            )
        sets = {number: metric_set for metric_set, number in set_ids.items()}
        assert sorted(
            (row["device_id"], row["at"], metric, value)
            for row in rows
            for ids, array in (
                (sets[row["metric_set_id"]].number_ids, row["numbers"]),
                (sets[row["metric_set_id"]].text_ids, row["texts"]),
            )
            for metric, value in zip(ids, array or (), strict=True)
            if value is not None
        ) == sorted((each.device_id, each.measured_at, each.metric_id, each.value) for each in keyed)
        assert all((row["numbers"] is None) == (not sets[row["metric_set_id"]].number_ids) for row in rows)
        assert all((row["texts"] is None) == (not sets[row["metric_set_id"]].text_ids) for row in rows)

    asyncio.run(work())
