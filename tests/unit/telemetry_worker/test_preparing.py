"""Prepared rows: one for each device and time, sorted; and messages as a whole."""

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sens_telemetry_worker.preparing import PreparedRows, ReadingKey, StoredReading, devices_with_additions, prepare
from sens_telemetry_worker.rows import Rows
from sens_telemetry_worker.tenants import MetricSet
from support.rows import TENANT_ID, KeyedValue, rows_of, values_of

small = st.integers(1, 2)
number_ids, text_ids = [1, 4, 7], [2, 5]
number_values = st.tuples(st.sampled_from(number_ids), st.sampled_from([0.0, 1.5]))
text_values = st.tuples(st.sampled_from(text_ids), st.sampled_from(["a", "é"]))
readings = st.tuples(small, small, st.lists(st.one_of(number_values, text_values), min_size=1, max_size=4))
messages = st.lists(st.lists(readings, min_size=1, max_size=3), max_size=12)
type Readings = list[tuple[int, int, list[tuple[int, float | str]]]]


def rows(of_messages: Sequence[Readings]) -> Rows:
    return rows_of(
        [
            KeyedValue(index, device, at, metric, value)
            for index, message in enumerate(of_messages)
            for device, at, values in message
            for metric, value in values
        ]
    )


def stored_readings(values: Mapping[tuple[int, int, int], float | str]) -> dict[ReadingKey, StoredReading]:
    found: dict[ReadingKey, dict[int, float | str]] = {}
    for (device, at, metric), value in values.items():
        found.setdefault((device, at), {})[metric] = value
    return {
        key: StoredReading(
            MetricSet.of(
                TENANT_ID,
                [metric for metric in values if metric in number_ids],
                [metric for metric in values if metric in text_ids],
            ),
            values,
        )
        for key, values in found.items()
    }


def judged(
    of_messages: Sequence[Readings], stored: Mapping[tuple[int, int, int], float | str]
) -> tuple[dict[tuple[int, int, int], float | str], set[int], list[int]]:
    """Say with dictionaries what is stored afterwards, which messages conflict, and how many values of each are new."""
    known = dict(stored)
    conflicts: set[int] = set()
    new_values = []
    for index, message in enumerate(of_messages):
        own: dict[tuple[int, int, int], float | str] = {}
        for device, at, values in message:
            for metric, value in values:
                key = device, at, metric
                if known.get(key, own.setdefault(key, value)) != value or own[key] != value:
                    conflicts.add(index)
        new = {} if index in conflicts else {key: value for key, value in own.items() if key not in known}
        known |= new
        new_values.append(len(new))
    return known, conflicts, new_values


def written(prepared: PreparedRows) -> dict[tuple[int, int, int], float | str]:
    """Return the values of prepared rows; no key is in two of them."""
    for group in (*prepared.inserts, *prepared.updates):
        order = np.lexsort((group.measured_at, group.device_id))
        assert order.tolist() == list(range(group.size))
        assert len(set(group.metric_set.number_ids)) == group.numbers.shape[1]
        assert len(set(group.metric_set.text_ids)) == group.texts.shape[1]
    keys = [
        (device, at)
        for group in (*prepared.inserts, *prepared.updates)
        for device, at in zip(group.device_id.tolist(), group.measured_at.tolist(), strict=True)
    ]
    assert len(set(keys)) == len(keys)
    return {
        (each.device_id, each.measured_at, each.metric_id): each.value
        for each in values_of(Rows([*prepared.inserts, *prepared.updates]))
    }


class TestPrepare:
    @given(messages)
    def test_stores_each_message_as_a_whole_or_not_at_all(self, of_messages: list[Readings]) -> None:
        expected, conflicts, new_values = judged(of_messages, {})
        prepared = prepare(rows(of_messages), len(of_messages))
        assert written(prepared) == expected
        assert prepared.conflicts.keys() == conflicts
        assert prepared.new_values.tolist() == new_values
        assert not prepared.updates

    @given(messages, messages)
    def test_adds_to_what_is_stored_and_never_changes_a_value(
        self, before: list[Readings], of_messages: list[Readings]
    ) -> None:
        values, _, _ = judged(before, {})
        stored = stored_readings(values)
        expected, conflicts, new_values = judged(of_messages, values)
        batch = rows(of_messages)
        prepared = prepare(batch, len(of_messages), stored)
        assert values | written(prepared) == expected
        assert prepared.conflicts.keys() == conflicts
        assert prepared.new_values.tolist() == new_values
        assert all((device, at) not in stored for device, at in _keys(Rows(prepared.inserts)))
        updated = _keys(Rows(prepared.updates))
        assert updated <= stored.keys()
        assert {device for device, _ in updated} <= devices_with_additions(batch, stored)

    def test_names_the_value_that_stays_and_the_one_that_is_refused(self) -> None:
        stored = stored_readings({(1, 5, 1): 2.0})
        conflicts = prepare(rows([[(1, 5, [(1, 3.0)])], [(1, 6, [(4, 1.0), (4, 0.0)])]]), 2, stored).conflicts
        assert conflicts[0] == (1, 5, 2.0, 3.0, False)
        assert conflicts[1] == (4, 6, 1.0, 0.0, True)

    def test_judges_a_message_without_those_before_it_that_conflict(self) -> None:
        stored = stored_readings({(1, 5, 1): 2.0})
        batch: list[Readings] = [
            [(1, 5, [(1, 3.0)]), (1, 6, [(1, 1.0)])],
            [(1, 6, [(1, 9.0)])],
            [(1, 6, [(4, 1.0)])],
        ]
        prepared = prepare(rows(batch), 3, stored)
        assert prepared.conflicts.keys() == {0}
        assert written(prepared) == {(1, 6, 1): 9.0, (1, 6, 4): 1.0}
        assert [group.metric_set.number_ids for group in prepared.inserts] == [(1, 4)]


def _keys(of_rows: Rows) -> set[ReadingKey]:
    return {(each.device_id, each.measured_at) for each in values_of(of_rows)}
