"""What the API expects of stored values as CSV from pages of columns: byte for byte what rows of series say."""

from datetime import timedelta
from itertools import count
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.test_readings import EVERYTHING, MINUTE, START, Asked, query_of
from sens_platform_api.devices.repository import Value
from sens_platform_api.errors import InvalidRequestError
from sens_platform_api.measurements import readings, service, value_rows
from sens_platform_api.measurements.rendering import PLAIN_CSV, CsvStyle, Shape, as_csv
from support.depth import tries
from support.stored_rows import Row as Stored
from support.tenant_data import Opener, TenantData, open_for_examples

SHAPE: Final = Shape(names_devices=True)
STYLES: Final = [PLAIN_CSV, CsvStyle("point"), CsvStyle("comma"), CsvStyle(end_line=True)]
ROWS: Final[list[Stored]] = [
    *EVERYTHING,
    *[("a", name, START + 2 * MINUTE, 1e-7) for name in ("50 %", "a,b", "a;b", 'say "x"', "=1+1", "ü\u2028", " t ")],
    *[
        ("a", "word", START + timedelta(seconds=n), text)
        for n, text in enumerate(
            ("", " ", "null", ",", ";", '"', "a\nb", "a\rb", "a\r\nb", "# end", "=1", "-1", "\t", "ä,ö", "𝄞")
        )
    ],
    *[
        ("b", "x", START - timedelta(days=n, microseconds=n * 1000), value)
        for n, value in enumerate((0.0, -0.0, 1e16, 1e15, 1e-5, 0.0001, 0.1 + 0.2, 5e-5, 2.0**-44, -1e22, 12.00003))
    ],
]


async def from_columns(it: TenantData, devices: str, asked: Asked, style: CsvStyle = PLAIN_CSV) -> bytes:
    query = query_of(asked, table=False)
    found = await service.read_values(it.measurements("demo"), devices.split(), query)
    return b"".join([chunk async for chunk in value_rows.values_as_csv(found, query, SHAPE, style)])


async def from_rows(it: TenantData, devices: str, asked: Asked, style: CsvStyle = PLAIN_CSV) -> bytes:
    found = await service.read(it.measurements("demo"), devices.split(), query_of(asked, table=False))
    return b"".join([chunk async for chunk in as_csv(found, SHAPE, style)])


def cursor_in(data: bytes) -> str | None:
    *_, last = data.decode().removesuffix("\r\n").rpartition("\r\n")
    return last.removeprefix("# next: ") if last.startswith("# next: ") else None


class TestValuesAsCsv:
    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("metrics", [[], ["t"], ["word", "on"]])
    async def test_are_what_rows_say_in_every_style(
        self, opened_in_each_form: Opener, order: str, metrics: list[str]
    ) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", ROWS)
            await it.store("other", [("a", "t", START, 77.0)])
            asked = {"order": order, "metric": metrics}
            for devices in ("a", "b", "a b") if "on" in metrics else ("a", "b", "b c a"):
                if devices == "b" and "on" in metrics:
                    continue  # it has not all of the metrics
                for style in STYLES:
                    data = await from_columns(it, devices, asked, style)
                    assert data == await from_rows(it, devices, asked, style)
                    assert data.count(b"\r\n") > 7

    async def test_without_values_have_a_head(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", ROWS)
            asked = {"from": "2020-01-01", "to": "2020-02-01"}
            assert await from_columns(it, "a", asked) == b"time,device,metric,value\r\n"

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_go_on_after_their_limit_in_the_middle_of_a_reading(
        self, opened_in_each_form: Opener, order: str
    ) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", EVERYTHING)
            total = (await from_columns(it, "a b", {})).count(b"\r\n") - 1
            for limit in (1, 2, 3, 7, total - 1, total, total + 1):
                asked: dict[str, object] = {"order": order, "limit": limit}
                cursor: str | None = ""
                while cursor is not None:
                    data = await from_columns(it, "a b", asked)
                    assert data == await from_rows(it, "a b", asked)
                    asked["cursor"] = cursor = cursor_in(data)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_are_made_of_pages_and_stretches(
        self, opened_in_each_form: Opener, monkeypatch: pytest.MonkeyPatch, order: str
    ) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", ROWS)
            for limit in (11, 1000):
                asked = {"order": order, "limit": limit}
                expected = await from_rows(it, "a b", asked)
                for rows, text_bytes, cells in ((1, 1 << 20, 1), (3, 1 << 20, 1), (64, 4, 20), (64, 48, 30)):
                    monkeypatch.setattr(readings, "PAGE_CELLS", 1)
                    monkeypatch.setattr(readings, "MIN_PAGE_ROWS", rows)
                    monkeypatch.setattr(readings, "PAGE_TEXT_BYTES", text_bytes)
                    monkeypatch.setattr(value_rows, "STRETCH_CELLS", cells)
                    assert await from_columns(it, "a b", asked) == expected

    async def test_have_as_many_series_as_rows_may_have(self, opened_data: Opener) -> None:
        async with opened_data() as it:
            await it.store("demo", [("a", f"m{n}", START, 1.0) for n in range(101)])
            with pytest.raises(InvalidRequestError, match="100 series at most"):
                await from_columns(it, "a", {})

    def test_are_what_rows_say_of_any_values(self, opened_in_each_form: Opener) -> None:
        value = st.one_of(
            st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
            st.booleans(),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
        )
        keys = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 40))

        @given(
            values=st.dictionaries(keys, value, min_size=1, max_size=40),
            order=st.sampled_from(["asc", "desc"]),
            limit=st.integers(1, 50),
            style=st.sampled_from(STYLES[:3]),
        )
        @settings(max_examples=tries(25, 500), deadline=None)
        def check(values: dict[tuple[str, str, int], Value], order: str, limit: int, style: CsvStyle) -> None:
            async def run() -> None:
                number = next(numbers)
                rows = [(f"{d}{number}", m, START + at * MINUTE, value) for (d, m, at), value in values.items()]
                await it.store("demo", rows)
                devices = " ".join(sorted({row[0] for row in rows}))
                asked: dict[str, object] = {"order": order, "limit": limit}
                cursor: str | None = ""
                while cursor is not None:
                    data = await from_columns(it, devices, asked, style)
                    assert data == await from_rows(it, devices, asked, style)
                    asked["cursor"] = cursor = cursor_in(data)

            runner.run(run())

        numbers = count()
        with open_for_examples(opened_in_each_form) as (runner, it):
            check()
