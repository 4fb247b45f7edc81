"""What the API expects of a tenant's measurements, held by those in memory and by PostgreSQL, with rows of each form."""

import math
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.measurements import service
from sens_platform_api.measurements.buckets import parse_buckets
from sens_platform_api.measurements.cursors import render_position
from sens_platform_api.measurements.query import Aggregate
from sens_platform_api.measurements.repository import Row
from sens_platform_api.measurements.schemas import MeasurementParameters
from sens_platform_api.measurements.spans import Span
from sens_platform_api.settings import LimitSettings
from support.depth import tries
from support.memory_measurements import aggregates_of
from support.stored_rows import Row as Stored
from support.tenant_data import Opener, TenantData, open_for_examples

START: Final = datetime(2026, 3, 28, 12, tzinfo=UTC)
NOW: Final = datetime(2026, 12, 1, tzinfo=UTC)
VIENNA: Final = ZoneInfo("Europe/Vienna")
AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate.__value__)

GIVEN: Final = settings(max_examples=tries(25, 500), deadline=None)
NUMBERS: Final = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.sampled_from([1e308, -1e308, 1.7e308, 1e-300]),
)
VALUES: Final = st.dictionaries(st.integers(0, 3 * 86_400), NUMBERS, min_size=1, max_size=25)
"""Numbers by the seconds after `START`."""


async def ask(it: TenantData, *, device: str = "d", **parameters: object) -> tuple[list[Row], service.Answer]:
    """Return the rows of an answer, and the answer."""
    return await ask_with(it, parameters, device)


async def ask_with(
    it: TenantData, parameters: Mapping[str, object], device: str = "d"
) -> tuple[list[Row], service.Answer]:
    """Return the same; the parameters come as one, and several devices with spaces between."""
    names = {"start": "from", "end": "to"}
    query = MeasurementParameters.model_validate({names.get(name, name): value for name, value in parameters.items()})
    answer = await service.read(it.measurements("demo"), device.split(), query.query(LimitSettings(), NOW))
    async with aclosing(answer.rows()) as rows:
        return [row async for row in rows], answer


async def paged(it: TenantData, limit: int, parameters: Mapping[str, object], device: str = "d") -> list[Row]:
    """Return the rows of an answer that was asked for in pages."""
    seen: list[Row] = []
    asked = dict(parameters, limit=limit)
    while True:
        rows, answer = await ask_with(it, asked, device)
        seen += rows
        if answer.next is None:
            return seen
        asked["cursor"] = render_position(answer.next)


def is_close(found: object, expected: float | None, scale: float) -> bool:
    """Return whether both are nothing, or nearly the same among numbers of this size."""
    if expected is None or found is None:
        return found is expected
    return isinstance(found, int | float) and math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * scale)


class TestAggregates:
    async def test_are_what_they_say(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            counter = [(0, 5.0), (60, 7.0), (120, 1.0), (180, 4.0)]
            await it.store("demo", [("d", "t", START + timedelta(seconds=at), value) for at, value in counter])
            rows, _ = await ask(
                it, start=START.isoformat(), end="2026-03-28T12:10:00Z", bucket="1h", aggregate=",".join(AGGREGATES)
            )
            [row] = rows
            found = dict(zip(AGGREGATES, row.values, strict=True))
        assert found["count"] == 4
        assert (found["sum"], found["min"], found["max"], found["avg"]) == (17, 1, 7, 4.25)
        assert (found["first"], found["last"]) == (5, 4)
        # 5 to 7, then from zero to 1, then to 4.
        assert found["difference"] == 2 + 1 + 3
        assert (found["p50"], found["p95"], found["p99"]) == pytest.approx((4.5, 6.7, 6.94))
        # The last value holds until the range ends, which is before the bucket does.
        assert found["time_weighted_avg"] == pytest.approx((5 * 60 + 7 * 60 + 1 * 60 + 4 * 420) / 600)

    async def test_do_not_carry_a_value_into_the_next_bucket(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [("d", "t", START + timedelta(minutes=at), 10.0 + at) for at in (0, 61)])
            rows, _ = await ask(
                it,
                start=START.isoformat(),
                end="2026-03-28T14:00:00Z",
                bucket="1h",
                aggregate="difference,time_weighted_avg",
            )
        assert [row.values for row in rows] == [(0.0, 10.0), (0.0, 71.0)]

    async def test_beyond_a_float_are_missing_whichever_are_asked_for(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            largest = [-1.7e308, 1.7e308]
            await it.store(
                "demo", [("d", "t", START + timedelta(minutes=at), value) for at, value in enumerate(largest)]
            )
            asked = {"start": START.isoformat(), "end": "2026-03-28T13:00:00Z", "bucket": "1h"}
            [difference], _ = await ask(it, **asked, aggregate="difference")
            [average], _ = await ask(it, **asked, aggregate="avg,last")
        assert difference.values == (None,)
        assert average.values == (0.0, 1.7e308)

    async def test_of_booleans_count_them_as_0_and_1(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            on = [False, True, True, False, True]
            await it.store("demo", [("d", "on", START + timedelta(minutes=at), value) for at, value in enumerate(on)])
            rows, _ = await ask(
                it,
                start=START.isoformat(),
                end=NOW.isoformat(),
                bucket="5m",
                aggregate="sum,difference,time_weighted_avg",
            )
        [row] = rows
        assert row.values == pytest.approx((3.0, 2.0, 0.6))

    async def test_of_texts_are_their_counts(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [("d", "word", START + timedelta(minutes=at), "x") for at in range(90)])
            span = {"start": START.isoformat(), "end": NOW.isoformat()}
            rows, _ = await ask(it, **span, bucket="1h", aggregate="sum,count")
            assert [row.values for row in rows] == [(None, 60), (None, 30)]
            for aggregate in set(AGGREGATES) - {"count"}:
                with pytest.raises(InvalidRequestError, match="word has texts, which can only be counted"):
                    await ask(it, **span, metric=["word"], bucket="1h", aggregate=aggregate)

    async def test_beyond_a_float_are_null_with_a_note(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            large = [-1.7e308, 1.7e308, 1.7e308, 1.7e308]
            await it.store("demo", [("d", "t", START + timedelta(minutes=at), value) for at, value in enumerate(large)])
            asked = {"start": START.isoformat(), "end": NOW.isoformat(), "bucket": "1h"}
            rows, answer = await ask(it, **asked, aggregate="avg,sum,difference,p50,count")
            [row] = rows
            assert row.values[1:] == (None, None, 1.7e308, 4)
            assert row.values[0] == pytest.approx(0.85e308)
            assert answer.notes == ["null stands for aggregates that are larger than a number can be, about 1.8e308"]
            _, answer = await ask(it, **asked, aggregate="max")
            assert answer.notes == []

    def test_are_those_of_the_values_of_each_bucket(self, opened_in_each_form: Opener) -> None:
        @given(
            values=VALUES,
            width=st.sampled_from(["5m", "1h", "6h", "1d", "1w", "1mo"]),
            zone=st.sampled_from([None, "Europe/Vienna", "Asia/Kolkata"]),
            order=st.sampled_from(["asc", "desc"]),
            wanted=st.lists(st.sampled_from(AGGREGATES), min_size=1, unique=True),
        )
        @GIVEN
        def check(values: dict[int, float], width: str, zone: str | None, order: str, wanted: list[Aggregate]) -> None:
            timed = [(START + timedelta(seconds=at), value) for at, value in sorted(values.items())]
            start, end = START + timedelta(minutes=7), START + timedelta(days=2, minutes=13)
            inside = [each for each in timed if start <= each[0] < end]

            async def run() -> list[Row]:
                device = f"d{next(numbers)}"
                await it.store("demo", [(device, "t", *each) for each in timed])
                asked = {"bucket": width, "aggregate": ",".join(wanted), "order": order} | (
                    {"tz": zone} if zone else {}
                )
                return (await ask(it, device=device, start=start.isoformat(), end=end.isoformat(), **asked))[0]

            found = runner.run(run())
            buckets = parse_buckets(width, ZoneInfo(zone) if zone else None)
            begins = sorted({buckets.beginning(time) for time, _ in inside}, reverse=order == "desc")
            assert [row.time for row in found] == begins
            scale = max(abs(value) for value in values.values())
            for row in found:
                of_bucket = [each for each in inside if buckets.beginning(each[0]) == row.time]
                expected = aggregates_of(of_bucket, min(end, buckets.after(row.time)))
                for name, value in zip(wanted, row.values, strict=True):
                    assert is_close(value, expected[name], scale), (name, of_bucket)

        numbers = count()
        with open_for_examples(opened_in_each_form) as (runner, it):
            check()


class TestLocalBuckets:
    async def test_of_days_have_23_hours_and_25_hours(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            first = datetime(2026, 3, 27, 23, tzinfo=UTC)  # midnight in Vienna
            hours: list[Stored] = [("d", "t", first + timedelta(hours=hour), 1.0) for hour in range(3 * 24)]
            autumn = datetime(2026, 10, 23, 22, tzinfo=UTC)
            hours += [("d", "t", autumn + timedelta(hours=hour), 1.0) for hour in range(3 * 24 + 1)]
            await it.store("demo", hours)
            rows, _ = await ask(
                it,
                start="2026-03-28",
                end="2026-10-27",
                tz="Europe/Vienna",
                bucket="1d",
                aggregate="count",
                order="desc",
            )
            local = [(row.time.astimezone(VIENNA).isoformat(), *row.values) for row in rows]
        assert local == [
            ("2026-10-26T00:00:00+01:00", 24),
            ("2026-10-25T00:00:00+02:00", 25),
            ("2026-10-24T00:00:00+02:00", 24),
            ("2026-03-31T00:00:00+02:00", 1),
            ("2026-03-30T00:00:00+02:00", 24),
            ("2026-03-29T00:00:00+01:00", 23),
            ("2026-03-28T00:00:00+01:00", 24),
        ]

    async def test_go_on_from_page_to_page(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            times = [START + timedelta(hours=7 * step) for step in range(20)]
            await it.store("demo", [("d", metric, time, 1.0) for time in times for metric in ("a", "b")])
            for order in ("asc", "desc"):
                asked = {"start": "2026-03-01", "end": "2026-05-01", "tz": "Europe/Vienna", "bucket": "1d"}
                asked |= {"aggregate": "count,sum", "order": order}
                whole, _ = await ask(it, **asked)
                for limit in (1, 5):
                    assert await paged(it, limit, asked) == whole


class TestFill:
    ASKED: Final = {
        "start": "2026-03-28T10:30:00Z",
        "end": "2026-03-28T17:00:00Z",
        "bucket": "1h",
        "aggregate": "avg,count",
    }
    VALUES: Final = (("d", "t", START, 10.0), ("d", "t", START + timedelta(hours=3), 40.0), ("d", "u", START, 1.0))
    FILLED: Final[dict[str, list[float | None]]] = {
        "null": [None, None, 10, None, None, 40, None],
        "previous": [None, None, 10, 10, 10, 40, 40],
        "linear": [None, None, 10, 20, 30, 40, None],
    }

    @pytest.mark.parametrize("fill", FILLED)
    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_is_of_each_bucket_in_the_range(self, opened_in_each_form: Opener, fill: str, order: str) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", self.VALUES)
            asked = {**self.ASKED, "metric": ["t"], "fill": fill, "order": order}
            rows, _ = await ask_with(it, asked)
            times = [START + timedelta(hours=hour) for hour in range(-2, 5)]
            expected = list(zip(times, self.FILLED[fill], [0, 0, 1, 0, 0, 1, 0], strict=True))
            assert [(row.time, *row.values) for row in rows] == (expected if order == "asc" else expected[::-1])
            for limit in (1, 2, 3):
                assert await paged(it, limit, asked) == rows

    async def test_is_of_series_without_values_in_the_range_too(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", self.VALUES)
            rows, _ = await ask_with(it, {**self.ASKED, "start": "2026-03-28T13:00:00Z", "fill": "previous"})
            found = [[row.values[0] for row in rows if row.series.name == name] for name in "tu"]
        assert found == [[None, None, 40, 40], [None] * 4]

    async def test_is_of_each_local_day_once(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", self.VALUES)
            asked = {
                "start": "2026-03-27",
                "end": "2026-04-01",
                "bucket": "1d",
                "tz": "Europe/Vienna",
                "fill": "linear",
            }
            rows, _ = await ask_with(it, {**asked, "metric": ["t"]})
            days = [(row.time.astimezone(VIENNA).isoformat(), row.values[0]) for row in rows]
        assert days == [
            ("2026-03-27T00:00:00+01:00", None),
            ("2026-03-28T00:00:00+01:00", 25.0),
            ("2026-03-29T00:00:00+01:00", None),
            ("2026-03-30T00:00:00+02:00", None),
            ("2026-03-31T00:00:00+02:00", None),
        ]


class TestPoints:
    def test_never_lose_a_peak(self, opened_in_each_form: Opener) -> None:
        @given(values=VALUES, points=st.integers(2, 400), cut=st.integers(0, 86_400))
        @GIVEN
        def check(values: dict[int, float], points: int, cut: int) -> None:
            span = Span(START + timedelta(seconds=cut), START + timedelta(days=2, minutes=13))
            timed = [(START + timedelta(seconds=at), value) for at, value in values.items()]
            inside = [value for time, value in timed if span.start <= time < span.end]

            async def run() -> list[Row]:
                device = f"d{next(numbers)}"
                await it.store("demo", [(device, "t", *each) for each in timed])
                asked = {"start": span.start.isoformat(), "end": span.end.isoformat(), "points": points}
                return (await ask_with(it, asked, device))[0]

            found = runner.run(run())
            assert len(found) <= points
            least, most = ([value for row in found if isinstance(value := row.values[of], float)] for of in (0, 1))
            assert max(most, default=None) == max(inside, default=None)
            assert min(least, default=None) == min(inside, default=None)

        numbers = count()
        with open_for_examples(opened_in_each_form) as (runner, it):
            check()


class TestSeveralDevices:
    ASKED: Final = {"start": "2026-03-28T00:00:00Z", "end": "2026-03-30T00:00:00Z"}

    async def test_are_merged_by_time_device_and_metric(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            later = START + timedelta(minutes=1)
            await it.store("demo", [("b", "t", START, 1.0), ("a", "t", later, 2.0), ("a", "u", START, 3.0)])
            await it.store("demo", [("b", "u", later, "x"), ("c", "t", START, 4.0), ("a", "t", START, 5.0)])
            await it.store("other", [("a", "t", START, 6.0)])
            rows, answer = await ask_with(it, self.ASKED, "b a")
            assert answer.devices == ["a", "b"]
            assert [(row.series.device, row.series.name, *row.values) for row in rows] == [
                ("a", "t", 5.0),
                ("a", "u", 3.0),
                ("b", "t", 1.0),
                ("a", "t", 2.0),
                ("b", "u", "x"),
            ]
            for limit in range(1, 6):
                assert await paged(it, limit, self.ASKED, "a b") == rows
                assert await paged(it, limit, {**self.ASKED, "order": "desc"}, "a b") == sorted(
                    rows, key=lambda row: (-row.time.timestamp(), *row.series.key)
                )
            rows, _ = await ask_with(it, {**self.ASKED, "bucket": "1h", "aggregate": "sum", "metric": ["t"]}, "a b c")
            assert [(row.series.device, *row.values) for row in rows] == [("a", 7.0), ("b", 1.0), ("c", 4.0)]

    async def test_that_are_not_there_and_metrics_that_none_has_are_named(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [("b", "t", START, 1.0), ("a", "u", START, 2.0)])
            with pytest.raises(NotFoundError, match=r"there is no device c, d$"):
                await ask_with(it, self.ASKED, "d a c")
            rows, _ = await ask_with(it, {**self.ASKED, "metric": ["u"]}, "a b")
            assert len(rows) == 1
            with pytest.raises(NotFoundError, match=r"none of the devices a, b has a metric v; they have t, u$"):
                await ask_with(it, {**self.ASKED, "metric": ["u", "v"]}, "a b")

    async def test_with_too_many_metrics_together_are_refused_with_their_number(
        self, opened_in_each_form: Opener
    ) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [(device, f"m{index}", START, 1.0) for device in "ab" for index in range(51)])
            assert len((await ask_with(it, self.ASKED, "a"))[0]) == 51
            with pytest.raises(InvalidRequestError, match=r"100 series at most, .* these are 102; .* or fewer devices"):
                await ask_with(it, self.ASKED, "a b")


class TestShapes:
    ASKED: Final = {"from": "2026-03-01T00:00:00Z", "to": "2026-05-01T00:00:00Z", "points_method": "lttb"}

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_are_stored_values_with_the_first_the_last_and_the_peaks(
        self, opened_in_each_form: Opener, order: str
    ) -> None:
        async with opened_in_each_form() as it:
            values = {START + timedelta(seconds=at): math.sin(at / 40) for at in range(600)}
            values[START + timedelta(seconds=123)] = 50.0
            values[START + timedelta(seconds=456)] = -50.0
            rows: list[Stored] = [("d", "t", time, value) for time, value in values.items()]
            await it.store("demo", [*rows, ("d", "on", START, True), ("d", "word", START, "x")])
            asked = {**self.ASKED, "order": order, "points": 20}
            found, answer = await ask_with(it, asked)
            of_number = [row for row in found if row.series.name == "t"]
            assert [row.values for row in found if row.series.name != "t"] == [(True,)]
            assert {row.time: row.values[0] for row in of_number}.items() <= values.items()
            assert len(of_number) == 20
            times = [row.time for row in of_number]
            assert times == sorted(times, reverse=order == "desc")
            assert {min(times), max(times)} == {min(values), max(values)}
            assert {50.0, -50.0} <= {row.values[0] for row in of_number}
            assert answer.sources == []
            for limit in (1, 7):
                assert await paged(it, limit, asked) == found

    async def test_of_few_values_are_all_of_them(self, opened_in_each_form: Opener) -> None:
        async with opened_in_each_form() as it:
            await it.store("demo", [("d", "t", START + timedelta(minutes=at), float(at)) for at in range(9)])
            found, _ = await ask_with(it, {**self.ASKED, "points": 9})
            assert [row.values for row in found] == [(float(at),) for at in range(9)]

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({"points": 5001}, "3 to 5000"),
            ({"points": 2}, "3 to 5000"),
            ({"points": 10, "aggregate": "avg"}, "gives stored values"),
            ({"points": 10, "fill": "null"}, "gives stored values"),
            ({"bucket": "1h"}, "it needs points"),
        ],
    )
    async def test_are_asked_for_with_points_alone(
        self, opened_data: Opener, parameters: dict[str, object], said: str
    ) -> None:
        async with opened_data() as it:
            with pytest.raises(InvalidRequestError, match=said):
                await ask_with(it, {**self.ASKED, **parameters})
