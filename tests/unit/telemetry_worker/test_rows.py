"""Rows: order, uniqueness, and the bytes of a binary COPY."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from sens_telemetry_worker.rows import Rows, TextRow, numeric_columns, prepare
from sens_telemetry_worker.timescale.measurement_copy import numeric_copy_bytes, text_copy_bytes

small = st.integers(1, 3)
rows = st.lists(st.tuples(small, small, small, st.sampled_from([0.0, 1.5])), max_size=40)


@given(rows)
def test_prepared_rows_are_sorted_unique_and_the_first_of_their_key(values: list[tuple[int, int, int, float]]) -> None:
    columns = list(zip(*values, strict=True)) or [(), (), (), ()]
    numeric = numeric_columns(list(range(len(values))), *(list(column) for column in columns))
    prepared = prepare(Rows(numeric, []))
    first: dict[tuple[int, int, int], tuple[int, float]] = {}
    conflicting = set()
    for index, (device, metric, at, value) in enumerate(values):
        _, kept = first.setdefault((device, metric, at), (index, value))
        if kept != value:
            conflicting.add(index)
    result = prepared.numeric_rows
    keys = list(zip(result.device_id.tolist(), result.metric_id.tolist(), result.measured_at.tolist(), strict=True))
    assert keys == sorted(first)
    assert dict(zip(keys, zip(result.message_index.tolist(), result.value.tolist(), strict=True), strict=True)) == first
    assert prepared.conflicting == conflicting


@given(st.lists(st.tuples(small, small, small, small, st.sampled_from(["a", "b"])), max_size=30))
def test_the_same_holds_for_text(values: list[tuple[int, int, int, int, str]]) -> None:
    texts = [TextRow(*value) for value in values]
    prepared = prepare(Rows(numeric_columns([], [], [], [], []), texts))
    keys = [row[:3] for row in prepared.text_rows]
    assert keys == sorted({row[:3] for row in texts})
    kept = {row[:3]: row.value for row in prepared.text_rows}
    assert prepared.conflicting == {row.message_index for row in texts if row.value != kept[row[:3]]}


class TestCopyBytes:
    def test_are_those_of_the_documentation(self) -> None:
        data = numeric_copy_bytes(numeric_columns([0], [7], [8], [946_684_800_000_001], [2.5]))
        row = struct.pack(">hiiiiiqid", 4, 4, 7, 4, 8, 8, 1, 8, 2.5)
        assert data == b"PGCOPY\n\xff\r\n\0" + bytes(8) + row + b"\xff\xff"

    def test_of_text_hold_utf_8(self) -> None:
        data = text_copy_bytes([TextRow(7, 8, 946_684_799_999_999, 3, "é")], with_message=True)
        row = struct.pack(">hiiiiiqi", 5, 4, 7, 4, 8, 8, -1, 2) + "é".encode() + struct.pack(">ii", 4, 3)
        assert data[19:-2] == row
