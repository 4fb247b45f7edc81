"""What the API expects of readings in columns: that Arrow and Parquet say what JSON says, whatever rows the values are in."""

import io
import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import count, product
from typing import Final

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from sens_platform_api.devices.repository import Value
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.measurements import readings, service
from sens_platform_api.measurements.arrow import NEXT, ReadingTable, RowTable, as_arrow, column_names
from sens_platform_api.measurements.columns import Column
from sens_platform_api.measurements.parquet import as_parquet
from sens_platform_api.measurements.query import Query
from sens_platform_api.measurements.rendering import Shape
from sens_platform_api.measurements.schemas import MeasurementParameters
from sens_platform_api.settings import LimitSettings
from support.depth import tries
from support.stored_rows import Row as Stored
from support.tenant_data import Opener, TenantData, open_for_examples

START: Final = datetime(2026, 3, 28, 12, tzinfo=UTC)
NOW: Final = datetime(2026, 12, 1, tzinfo=UTC)
SPAN: Final = {"from": "2026-03-01", "to": "2026-05-01"}
MINUTE: Final = timedelta(minutes=1)

type Asked = Mapping[str, object]
type Found = dict[tuple[datetime, str], dict[tuple[str, str], Value]]
"""The values of each time and device, by metric and kind."""


def query_of(asked: Asked, *, table: bool = True) -> Query:
    return MeasurementParameters.model_validate({**SPAN, **asked}).query(LimitSettings(), NOW, table=table)


async def arrow_bytes(it: TenantData, devices: str, asked: Asked) -> bytes:
    found = await service.read_readings(it.measurements("demo"), devices.split(), query_of(asked))
    return b"".join([chunk async for chunk in as_arrow(ReadingTable(found))])


async def parquet_bytes(it: TenantData, devices: str, asked: Asked) -> bytes:
    found = await service.read_readings(it.measurements("demo"), devices.split(), query_of(asked))
    return b"".join([chunk async for chunk in as_parquet(ReadingTable(found))])


def from_arrow(data: bytes) -> tuple[pa.Table, str | None]:
    """Return the rows of a stream, and its cursor."""
    reader, batches, cursor = ipc.open_stream(data), [], None
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        batches.append(batch)
        cursor = metadata[NEXT].decode() if metadata and NEXT in metadata else cursor
    return pa.Table.from_batches(batches, schema=reader.schema), cursor


def from_parquet(data: bytes) -> tuple[pa.Table, str | None]:
    """Return the rows of a file, and its cursor."""
    file = parquet.ParquetFile(io.BytesIO(data))
    cursor = (file.metadata.metadata or {}).get(NEXT)
    return file.read(), None if cursor is None else cursor.decode()


def values_in(table: pa.Table) -> Found:
    """Return what a table says; a key stands in it once."""
    table.validate(full=True)
    found: Found = {}
    for row in table.to_pylist():
        key = row["time"], row["device"]
        assert key not in found
        found[key] = {
            (field.metadata[b"sens.metric"].decode(), field.metadata[b"sens.kind"].decode()): row[field.name]
            for field in list(table.schema)[2:]
            if row[field.name] is not None
        }
    return found


async def values_of_rows(it: TenantData, devices: str, asked: Asked) -> Found:
    """Return what the rows of the same query say, of which JSON and CSV are made."""
    answer = await service.read(it.measurements("demo"), devices.split(), query_of(asked)._replace(limit=1_000_000))
    found: Found = defaultdict(dict)
    async with aclosing(answer.rows()) as rows:
        async for row in rows:
            [value] = row.values
            assert value is not None
            found[row.time, row.series.device][row.series.name, row.series.kind] = value
    return dict(found)


EVERYTHING: Final[list[Stored]] = [
    *[("a", "t", START + n * MINUTE, n / 3) for n in range(7)],
    *[("a", "on", START + n * MINUTE, n % 2 == 0) for n in range(0, 7, 2)],
    *[("a", "word", START + n * MINUTE, "häß" * n) for n in range(0, 7, 3)],
    ("a", "t", START, "a text of the same name"),
    *[("b", "t", START + n * MINUTE, -1e308 * n / 9) for n in range(3, 10)],
    *[("b", "u", START + n * MINUTE + timedelta(microseconds=1), 1.7976931348623157e308) for n in range(3)],
    ("b", "word", START + timedelta(days=20), ""),
    ("c", "v", START - timedelta(days=300), 1.0),
]


class TestTables:
    async def test_say_what_json_says(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", EVERYTHING)
            await it.store("other", [("a", "t", START, 77.0)])
            for order, devices, metrics in product(("asc", "desc"), ("a", "b", "a b", "b c a"), ([], ["t"], ["word"])):
                asked = {"order": order, "metric": metrics}
                expected = await values_of_rows(it, devices, asked)
                for table, cursor in (
                    from_arrow(await arrow_bytes(it, devices, asked)),
                    from_parquet(await parquet_bytes(it, devices, asked)),
                ):
                    found = values_in(table)
                    assert found == expected, (devices, asked)
                    sign = -1 if order == "desc" else 1
                    assert list(found) == sorted(found, key=lambda key: (sign * (key[0] - START), key[1]))
                    assert cursor is None

    async def test_have_a_column_for_each_metric_with_its_type(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", EVERYTHING)
            table, _ = from_arrow(await arrow_bytes(it, "a b", {}))
        assert {field.name: str(field.type) for field in table.schema} == {
            "device": "dictionary<values=string, indices=int32, ordered=0>",
            "time": "timestamp[us, tz=UTC]",
            "on": "bool",
            "t (number)": "double",
            "t (text)": "string",
            "u": "double",
            "word": "string",
        }

    async def test_without_readings_have_columns_all_the_same(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", EVERYTHING)
            asked = {"from": "2020-01-01", "to": "2020-02-01"}
            for table, cursor in (
                from_arrow(await arrow_bytes(it, "a", asked)),
                from_parquet(await parquet_bytes(it, "a", asked)),
            ):
                assert (table.num_rows, table.num_columns, cursor) == (0, 6, None)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_go_on_after_their_limit(self, opened_in_each_form: Opener, order: str) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", EVERYTHING)
            whole, _ = from_arrow(await arrow_bytes(it, "a b", {"order": order}))
            for limit in (1, 2, 5, whole.num_rows):
                seen: list[object] = []
                asked: dict[str, object] = {"order": order, "limit": limit}
                while True:
                    data = await (arrow_bytes if limit % 2 else parquet_bytes)(it, "a b", asked)
                    part, cursor = (from_arrow if limit % 2 else from_parquet)(data)
                    assert 0 < part.num_rows <= limit
                    seen += part.to_pylist()
                    if cursor is None:
                        break
                    asked["cursor"] = cursor
                assert seen == whole.to_pylist()

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_are_read_in_pages_of_rows_and_of_texts(
        self, opened_in_each_form: Opener, monkeypatch: pytest.MonkeyPatch, order: str
    ) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", EVERYTHING)
            expected = await values_of_rows(it, "a b", {})
            for rows, text_bytes in ((1, 1 << 20), (3, 1 << 20), (64, 1), (64, 12)):
                monkeypatch.setattr(readings, "PAGE_CELLS", 1)
                monkeypatch.setattr(readings, "MIN_PAGE_ROWS", rows)
                monkeypatch.setattr(readings, "PAGE_TEXT_BYTES", text_bytes)
                table, cursor = from_arrow(await arrow_bytes(it, "a b", {"order": order}))
                assert (values_in(table), cursor) == (expected, None)

    async def test_of_aggregates_have_the_columns_of_csv(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", EVERYTHING)
            query = query_of({"bucket": "1h", "aggregate": "max,count"})
            answer = await service.read(it.measurements("demo"), ["a"], query)
            data = b"".join([chunk async for chunk in as_arrow(RowTable(answer, Shape(query.aggregates)))])
        table, _ = from_arrow(data)
        assert table.to_pylist() == [
            {"time": START, "device": "a", "metric": "on", "kind": "boolean", "max": 1.0, "count": 4},
            {"time": START, "device": "a", "metric": "t", "kind": "number", "max": 2.0, "count": 7},
            {"time": START, "device": "a", "metric": "t", "kind": "text", "max": None, "count": 1},
            {"time": START, "device": "a", "metric": "word", "kind": "text", "max": None, "count": 3},
        ]

    async def test_of_points_that_keep_a_shape_have_their_values(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", EVERYTHING)
            query = query_of({"points": 3, "points_method": "lttb", "metric": ["t", "on"]})
            answer = await service.read(it.measurements("demo"), ["a"], query)
            data = b"".join([chunk async for chunk in as_parquet(RowTable(answer, Shape()))])
        rows = from_parquet(data)[0].to_pylist()
        assert [row["value"] for row in rows if row["metric"] == "on"][::2] == [1.0, 1.0]
        assert [row["value"] for row in rows if row["metric"] == "t"][::2] == [0.0, 2.0]

    async def test_refuse_as_rows_do_but_may_have_more_series(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            many: list[Stored] = [(device, f"m{n}", START, 1.0) for device in "abcde" for n in range(60)]
            await it.store("demo", many)
            table, _ = from_arrow(await arrow_bytes(it, "a b c d e", {}))
            assert (table.num_rows, table.num_columns) == (5, 62)
            with pytest.raises(NotFoundError, match="there is no device f"):
                await arrow_bytes(it, "a f", {})
            with pytest.raises(NotFoundError, match="has no metric x"):
                await arrow_bytes(it, "a", {"metric": ["x"]})
            await it.store("demo", [("f", f"n{n}", START, 1.0) for n in range(1001)])
            with pytest.raises(InvalidRequestError, match="1000 series at most"):
                await arrow_bytes(it, "f", {})

    def test_say_what_json_says_of_any_readings(self, opened_in_each_form: Opener) -> None:
        value = st.one_of(
            st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
            st.booleans(),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
        )
        keys = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 40))

        @given(
            values=st.dictionaries(keys, value, min_size=1, max_size=40),
            order=st.sampled_from(["asc", "desc"]),
            limit=st.integers(1, 30),
        )
        @settings(max_examples=tries(25, 500), deadline=None)
        def check(values: dict[tuple[str, str, int], Value], order: str, limit: int) -> None:
            async def run() -> None:
                number = next(numbers)
                rows = [(f"{d}{number}", m, START + at * MINUTE, value) for (d, m, at), value in values.items()]
                await it.store("demo", rows)
                devices = " ".join(sorted({row[0] for row in rows}))
                expected = await values_of_rows(it, devices, {"order": order})
                found: Found = {}
                cursor: str | None = None
                while cursor is not None or not found:
                    asked = {"order": order, "limit": limit} | ({"cursor": cursor} if cursor else {})
                    table, cursor = from_arrow(await arrow_bytes(it, devices, asked))
                    found |= values_in(table)
                assert found == expected
                assert all(
                    math.copysign(1, one) == math.copysign(1, other)
                    for key, of_key in found.items()
                    for metric, one in of_key.items()
                    if isinstance(one, float) and isinstance(other := expected[key][metric], float)
                )

            runner.run(run())

        numbers = count()
        with open_for_examples(opened_in_each_form) as (runner, it):
            check()


class TestColumnNames:
    def test_are_those_of_metrics_where_they_are_unique(self) -> None:
        columns = [Column(1, "a", "number"), Column(2, "b.c", "text")]
        assert column_names(columns) == ["a", "b.c"]

    def test_have_the_kind_where_another_column_has_the_name(self) -> None:
        columns = [
            Column(1, "device", "number"),
            Column(2, "t", "number"),
            Column(3, "t", "text"),
            Column(4, "t (number)", "number"),
            Column(5, "time", "text"),
        ]
        names = column_names(columns)
        assert names == ["device (number)", "t (number) (number)", "t (text)", "t (number)", "time (text)"]
