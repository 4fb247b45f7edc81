"""Calibrated values, in every function by which values are read: what was stored, times the scale, plus the offset that is valid at its time."""

import json
import random
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import quantiles
from typing import Final

import asyncpg
import pytest

from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.settings import DatabaseSettings
from sens_platform_api.live.meanings import Meaning
from support.rollups import begin_rollups, refresh_up_to
from support.stored_rows import Form, Row, insert_measurements

type Connection = asyncpg.Connection[asyncpg.Record]

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
START: Final = datetime(2026, 3, 2, tzinfo=UTC)
END: Final = START + 4 * DAY
MINUTES: Final = 20
CALIBRATIONS: Final = (
    (START + DAY + 10.5 * HOUR, 2.0, 1.0),
    (START + 2 * DAY + 6 * HOUR, -1.5, 3.0),
    (START + 3 * DAY, 1.0, 0.0),
    (START + 3 * DAY + 1.25 * HOUR, 0.5, -0.25),
)
FIRST, LAST = "2026-01-01Z", "2027-01-01Z"


def calibrated(at: datetime, value: float) -> float:
    valid = [(scale, offset) for edge, scale, offset in CALIBRATIONS if edge <= at]
    return value * valid[-1][0] + valid[-1][1] if valid else value


def scale_at(at: datetime) -> float:
    return next((scale for edge, scale, _ in reversed(CALIBRATIONS) if edge <= at), 1.0)


def stored() -> dict[datetime, float]:
    source = random.Random(8)
    count = int((END - START) / timedelta(minutes=MINUTES))
    return {START + timedelta(minutes=MINUTES * index): float(source.randrange(-512, 512)) for index in range(count)}


class Kept:
    """A database as its owner, and as the API for a tenant with one device, whose metric n is calibrated and whose metrics m and t are not."""

    def __init__(self, owner: Connection, api: Connection) -> None:
        self.owner = owner
        self.api = api
        self.device = self.metric = 0

    async def add(self, at: datetime, scale: float, offset: float, metric: str = "n") -> tuple[str, int]:
        row = await self.api.fetchrow(
            "SELECT * FROM sens.add_calibration('d', $1, $2, $3, $4, 'a test', 'key 1', NULL, NULL)",
            metric, at, scale, offset,
        )  # fmt: skip
        assert row is not None
        return row["outcome"], row["id"]

    async def values(self) -> dict[datetime, float]:
        rows = await self.api.fetch(
            f"SELECT * FROM sens.number_page($1, $2, '{FIRST}', '{LAST}', false, 100000)",  # noqa: S608 - constants
            self.device, self.metric,
        )  # fmt: skip
        return {row["ts"]: row["value"] for row in rows}

    async def aggregates(self, width: timedelta, wanted: list[str]) -> list[asyncpg.Record]:
        edges = [START + index * width for index in range(int((END - START) / width) + 1)]
        return await self.api.fetch(
            "SELECT * FROM sens.edge_aggregates($1, $2, $3, $4, $5, $6, false) ORDER BY bucket",
            self.device, self.metric, START, END, edges, wanted,
        )  # fmt: skip


@asynccontextmanager
async def opened(settings: DatabaseSettings, form: Form = Form.READINGS) -> AsyncIterator[Kept]:
    owner, api = await connect(settings, "test"), await connect(settings, "test", role=API_ROLE)
    try:
        tenant = await owner.fetchval("INSERT INTO sens.tenants (name) VALUES ('demo') RETURNING id")
        for connection in (owner, api):
            await connection.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
        if form is Form.READINGS:
            await begin_rollups(owner, START)
        rows: list[Row] = [("d", "n", at, value) for at, value in stored().items()]
        rows += [("d", "m", at, value) for at, value in stored().items()]
        rows += [("d", "t", at, "text") for at in list(stored())[:3]] + [("d", "b", START, True)]
        await insert_measurements(owner, "demo", rows, form)
        if form is Form.READINGS:
            await owner.execute("DELETE FROM sens.former_devices")
            await refresh_up_to(owner, END)
        kept = Kept(owner, api)
        kept.device = await owner.fetchval("SELECT id FROM sens.devices")
        kept.metric = await owner.fetchval("SELECT id FROM sens.metrics WHERE name = 'n'")
        yield kept
    finally:
        await owner.close()
        await api.close()


async def calibrate(kept: Kept) -> None:
    for calibration in CALIBRATIONS:
        assert (await kept.add(*calibration))[0] == "added"


def expected(width: timedelta, aggregate: Callable[[list[datetime]], object]) -> list[object]:
    of_bucket: dict[int, list[datetime]] = {}
    for at in stored():
        of_bucket.setdefault((at - START) // width, []).append(at)
    return [aggregate(times) for _, times in sorted(of_bucket.items())]


def numbers(times: list[datetime]) -> list[float]:
    return [calibrated(at, stored()[at]) for at in times]


def difference(times: list[datetime]) -> float:
    raw = stored()
    return sum(
        scale_at(at) * (raw[at] - raw[before] if raw[at] >= raw[before] else raw[at]) for before, at in pairwise(times)
    )


class TestReads:
    @pytest.mark.parametrize("form", [Form.READINGS, Form.FORMER])
    async def test_give_calibrated_values(self, database: DatabaseSettings, form: Form) -> None:
        async with opened(database, form) as kept:
            await calibrate(kept)
            wanted = {at: calibrated(at, value) for at, value in stored().items()}
            assert await kept.values() == wanted
            latest = await kept.api.fetch(
                "SELECT name, number FROM sens.latest_of_devices(ARRAY[$1::int]) WHERE kind = 'number' ORDER BY 1",
                kept.device,
            )
            newest = max(stored())
            assert [tuple(row) for row in latest] == [("m", stored()[newest]), ("n", wanted[newest])]
            extremes = await kept.api.fetch(
                "SELECT * FROM sens.edge_extremes($1, $2, $3, $4, $5)",
                kept.device,
                kept.metric,
                START,
                END,
                [START, END],
            )
            assert (extremes[0]["lowest"], extremes[0]["highest"]) == (min(wanted.values()), max(wanted.values()))
            columns = await kept.api.fetch(
                f"SELECT numbers FROM sens.reading_columns(ARRAY[$1::int], (SELECT array_agg(id ORDER BY id) FROM unnest($2::int[]) id), '{{}}',"  # noqa: S608 - constants
                f" ARRAY['{FIRST}'::timestamptz], ARRAY['{LAST}'::timestamptz], false, 100000, 1000000)",
                kept.device, [kept.metric],
            )  # fmt: skip
            read = array("d")
            for row in columns:
                data = row["numbers"][28:]
                read.extend(
                    value
                    for index in range(0, len(data), 12)
                    for value in array("d", data[index + 4 : index + 12][::-1])
                )
            assert read.tolist() == list(wanted.values())

    async def test_are_those_of_live_values(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await calibrate(kept)
            rows = await kept.api.fetch(
                "SELECT device, metric, unit, edges, scales, addends FROM sens.live_meanings('{d}')"
            )
            assert [tuple(row[:3]) for row in rows] == [("d", "n", None)]
            edges = [int(edge.timestamp() * 1e6) for edge in rows[0]["edges"]]
            meaning = Meaning(None, edges, rows[0]["scales"], rows[0]["addends"])
            source = random.Random(9)
            values = [0.0, -0.0, 1e-300, 1e300, 1e290, -1e-290, *(source.uniform(-1e9, 1e9) for _ in range(200))]
            times = [START + source.randrange(0, 96 * 3600) * timedelta(seconds=1) for _ in values]
            times[:4] = rows[0]["edges"]
            read = await kept.owner.fetch(
                "SELECT sens.calibrated_at(v.value, v.at, $3, $4, $5) FROM unnest($1::float8[], $2::timestamptz[]) WITH ORDINALITY"
                " AS v (value, at, n) ORDER BY v.n",
                values, times, *rows[0][3:],
            )  # fmt: skip
            assert [row[0] for row in read] == [
                meaning.calibrated(value, int(at.timestamp() * 1e6)) for value, at in zip(values, times, strict=True)
            ]

    @pytest.mark.parametrize("width", [HOUR / 2, HOUR, 6 * HOUR, DAY])
    async def test_give_aggregates_of_calibrated_values(self, database: DatabaseSettings, width: timedelta) -> None:
        async with opened(database) as kept:
            await calibrate(kept)
            rows = await kept.aggregates(width, ["sum", "avg", "first", "last"])
            for name, aggregate in (
                ("count", len),
                ("sum", lambda times: pytest.approx(sum(numbers(times)))),
                ("min", lambda times: min(numbers(times))),
                ("max", lambda times: max(numbers(times))),
                ("first", lambda times: numbers(times)[0]),
                ("last", lambda times: numbers(times)[-1]),
            ):
                assert [row[name] for row in rows] == expected(width, aggregate), name
            steps = await kept.aggregates(width, ["difference", "p50"])
            assert [row["difference"] for row in steps] == [pytest.approx(each) for each in expected(width, difference)]
            if width == DAY:
                medians = expected(width, lambda times: quantiles(numbers(times), n=2, method="inclusive")[0])
                assert [row["p50"] for row in steps] == [pytest.approx(each) for each in medians]
                assert [row["source"] for row in rows] == ["1d", "raw", "raw", "raw"]
            elif width == HOUR:
                changed = [index for index, row in enumerate(rows) if row["source"] == "raw"]
                assert changed == [34, 73]  # neither that at six o'clock nor that at midnight

    async def test_can_give_what_was_stored_and_what_was_known(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            raw = await kept.values()
            await calibrate(kept)
            known = await kept.values()
            at = await kept.owner.fetchval("SELECT clock_timestamp()::text")
            _, second = await kept.add(START, 3.0, 0.0)
            assert (
                await kept.api.fetchval("SELECT sens.remove_calibration('d', $1, 'key 1', NULL, NULL)", second)
                == "removed"
            )
            _, third = await kept.add(START, 7.0, 0.0)
            assert (await kept.values())[START] == raw[START] * 7
            for setting, values in (("none", raw), (at, known), ("", await kept.values())):
                await kept.api.execute("SELECT set_config('sens.calibration', $1, false)", setting)
                assert await kept.values() == values
                row = (await kept.aggregates(4 * DAY, ["sum"]))[0]
                assert row["sum"] == pytest.approx(sum(values.values()))
            await kept.api.execute("SELECT set_config('sens.calibration', 'yesterday evening', false)")
            with pytest.raises(asyncpg.InvalidParameterValueError, match="yesterday evening"):
                await kept.values()
            assert third > second

    async def test_leave_values_at_the_ends_of_numbers_as_they_are(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            ends = [1e300, -1.7e308, 5e-324, -1e-300]
            rows: list[Row] = [("d", "n", END + index * HOUR, value) for index, value in enumerate(ends)]
            await insert_measurements(kept.owner, "demo", rows, Form.READINGS)
            await kept.add(START, 1e9, 5.0)
            values = await kept.values()
            assert [values[END + index * HOUR] for index in range(4)] == ends


class TestCalibration:
    async def test_is_refused_where_it_can_be_none(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            assert [(await kept.add(START, 2, 0, metric))[0] for metric in ("unknown", "t", "b")] == [
                "unknown_metric", "not_a_number", "not_a_number",
            ]  # fmt: skip
            assert [(await kept.add(START, 2, 0))[0] for _ in range(2)] == ["added", "unchanged"]
            for index in range(1, 100):
                assert (await kept.add(START + index * HOUR, 2, 0))[0] == "added"
            assert (await kept.add(START - HOUR, 2, 0))[0] == "too_many"
            assert (await kept.add(START, 3, 0))[0] == "added"  # in the place of the first

    async def test_goes_with_its_device(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.add(START, 2.0, 0.0)
            await kept.add(START, 2.0, 0.0, "m")
            assert await kept.api.fetchval("SELECT sens.rename_device('d', 'e', 'key 1', NULL, NULL)") == "renamed"
            assert (await kept.values())[START] == 2 * stored()[START]
            await kept.api.fetchval("SELECT sens.delete_metric('m', NULL, 'key 1', NULL, NULL)")
            assert await kept.owner.fetchval("SELECT array_agg(metric_id) FROM sens.calibrations") == [kept.metric]
            await kept.api.fetchval("SELECT sens.delete_device('e', 'key 1', NULL, NULL)")
            assert await kept.owner.fetchval("SELECT count(*) FROM sens.calibrations") == 0

    async def test_moves_to_another_tenant_with_its_device(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.add(START, 2.0, 0.0)
            tenant = await kept.owner.fetchval("INSERT INTO sens.tenants (name) VALUES ('other') RETURNING id")
            await kept.owner.execute(
                "INSERT INTO sens.api_keys (tenant_id, name, prefix, hash) VALUES ($1, 'k', 'k', sha256('secret'))",
                tenant,
            )
            outcome = await kept.api.fetchval(
                "SELECT outcome FROM sens.move_device('d', 'd', sha256('secret'), 'key 1', NULL, NULL)"
            )
            assert outcome == "moved"
            while await kept.api.fetchrow("SELECT * FROM sens.continue_deletion(1000)") is not None:
                pass
            await kept.api.execute("SELECT set_config('sens.tenant_id', $1, false)", str(tenant))
            kept.device = await kept.owner.fetchval("SELECT id FROM sens.devices")
            kept.metric = await kept.owner.fetchval(
                "SELECT id FROM sens.metrics WHERE name = 'n' AND tenant_id = $1", tenant
            )
            assert await kept.values() == {at: 2 * value for at, value in stored().items()}

    async def test_holds_in_sql_for_people(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await calibrate(kept)
            wanted = {at: calibrated(at, value) for at, value in stored().items()}
            for query in (
                "SELECT ts, value FROM sens.series('d', 'n', '-infinity')",
                "SELECT ts, value FROM sens.series('d', 'n', '-infinity', 'infinity', 100000)",
                "SELECT ts, value FROM sens.measurements_by_name WHERE metric = 'n'",
            ):
                assert {row["ts"]: row["value"] for row in await kept.owner.fetch(query)} == wanted, query
            buckets = await kept.owner.fetch("SELECT max FROM sens.buckets('d', 'n', $1, $2, '1 day')", START, END)
            assert [row["max"] for row in buckets] == expected(DAY, lambda times: max(numbers(times)))
            assert (
                await kept.owner.fetchval("SELECT value FROM sens.latest('d') WHERE metric = 'n'")
                == wanted[max(wanted)]
            )

    async def test_costs_devices_without_one_nothing(self, database: DatabaseSettings) -> None:
        async with opened(database) as kept:
            await kept.owner.execute("UPDATE sens.devices SET name = 'e'")
            await insert_measurements(kept.owner, "demo", [("d", "n", START, 1.0)], Form.READINGS)
            reads = (
                f"number_page({kept.device}, {kept.metric}, '{FIRST}', '{LAST}', false, 1000)",
                f"latest_of_devices(ARRAY[{kept.device}])",
                f"edge_aggregates({kept.device}, {kept.metric}, '{START}', '{END}', ARRAY['{START}', '{END}']::timestamptz[], '{{sum}}', false)",
            )
            before = [await pages_read(kept.api, read) for read in reads]
            for hour in range(100):
                await kept.add(START + hour * HOUR, 2.0, 0.0)
            after = [await pages_read(kept.api, read) for read in reads]
            assert all(more <= few + 3 for few, more in zip(before, after, strict=True)), (before, after)


async def pages_read(connection: Connection, read: str) -> int:
    """Return how many pages of 8 KiB a function looks at, once the catalogs are known to the session: the fewest of some times."""
    fewest: list[int] = []
    for _ in range(6):
        plan = json.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM sens.{read}")  # noqa: S608 - our own names
        )
        fewest.append(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])
    return min(fewest)
