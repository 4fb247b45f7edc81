"""The bench's parts give figures; how good these are is for a quiet machine to say."""

import dataclasses
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from support.services import ROOT
from tools.bench import fairness, format_decoding, format_path, hops, page, pairs, posting, reads, scale, telegraf
from tools.bench.__main__ import main
from tools.bench.backlog import backlog
from tools.bench.compared import ratios
from tools.bench.figures import (
    CHART,
    LATEST_OF_DECADES,
    LATEST_OF_FLEET,
    LATEST_OF_MONTH,
    AfterFault,
    EndToEnd,
    Latency,
    Pairs,
    Rate,
    Results,
    Telegraf,
)
from tools.bench.format_figures import Decoding
from tools.bench.history import Size
from tools.bench.load import Shape
from tools.bench.machine import machine
from tools.bench.malformed import malformed
from tools.bench.measured_path import MeasuredPath
from tools.bench.medians import median_interval
from tools.bench.report import SECTIONS, report
from tools.bench.runs import end_to_end, fastest, latency
from tools.stack.path import TELEMETRY, Stack, StackError
from tools.stack.programs import POSTGRES

SHAPE = Shape(400, devices=20, connections=4)
WORKERS = {"ingestion", "telemetry"}


@contextmanager
def running_path(*tenants: str) -> Iterator[MeasuredPath]:
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None:
        pytest.skip("mosquitto is not installed")
    before = signal.getsignal(signal.SIGTERM)
    with Stack.running("mosquitto", tenants=("bench", *tenants)) as stack:
        yield MeasuredPath(stack)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def path() -> Iterator[MeasuredPath]:
    with running_path() as running:
        yield running


class TestPosting:
    def test_gives_rates_costs_and_times_of_answers(self) -> None:
        with running_path() as path:  # of its own: a worker more, and messages of devices that the others do not have
            [figures] = posting.post(path.stack, 400, 8, 1)
        assert figures.messages == 400
        assert set(figures.cpu_microseconds) == {"http", "nats", "generator"}
        assert 0 < figures.milliseconds["50"] <= figures.milliseconds["100"]


class TestFormats:
    def test_cost_to_be_decoded_with_a_child(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(format_decoding, "_BATCH_MESSAGES", 20)

        [figures] = format_decoding.compare("javascript", 1)

        assert figures.messages == 100
        assert figures.microseconds > 0

    @pytest.mark.timeout(300)
    def test_are_compared_on_the_path_and_tenants_are_beside_each_other(self) -> None:
        with running_path(fairness.OTHER) as path:
            of = format_path.against_native(path, "javascript", 1, 400)
            beside = fairness.measure(path, 1, 1, 0)

        assert [one.messages for one in (*of.runs, *of.others)] == [400, 400]
        results = Results(machine(), formats={"javascript": of}, fairness=beside)
        results.decoding["netmore"] = [Decoding(100, 6.0, 3.0), Decoding(100, 8.0, 2.0), Decoding(100, 7.5, 2.5)]
        results.formats["native against without sources"] = dataclasses.replace(of, other="without sources")
        words = " ".join(report(results).split())
        assert "| Netmore with Cayenne LPP | 3 × 100 | 7.5 µs | 2.5 µs | 3.00 × |" in words  # noqa: RUF001
        assert "| decode and rows: Netmore with Cayenne LPP | 7 µs | | 7.5 µs | **no** |" in words
        assert "| SENS' own, sources in place | without sources | 1 × 400 |" in words  # noqa: RUF001
        assert "| p99 beside another tenant's endless codec | 1.5 × | |" in words  # noqa: RUF001


class TestFastest:
    def test_measures_the_load_of_which_most_gets_through(self) -> None:
        loads: list[float] = []

        def measure(load: Shape) -> Rate:
            loads.append(load.rate)
            through = 100.0 if load.rate == 0 else load.rate if load.rate <= 140 else 90.0
            return Rate(load.messages, through, {}, offered_per_second=load.rate)

        rounds = fastest(measure, SHAPE, 2)
        assert [one.offered_per_second for one in rounds] == [pytest.approx(133.1)] * 2
        assert loads == pytest.approx([0, 100, 110, 121, 133.1, 146.41, 161.051, 133.1, 133.1])

    def test_keeps_to_a_rate(self, path: MeasuredPath) -> None:
        figures = path.with_empty_tables(end_to_end)(SHAPE._replace(rate=1000.0))
        assert path.stack.fetch_stored("SELECT count(*) FROM stored_values")[0][0] == 5 * 400
        assert figures.offered_per_second == 1000.0
        assert figures.acknowledged_per_second <= 1000.0 * 400 / (400 - 4 * 64)


def positive(figures: Mapping[str, float]) -> bool:
    return all(figure > 0 for figure in figures.values())


class TestParts:
    @pytest.mark.parametrize(
        ("payload", "values"), [("numbers", 5), ("numbers-and-text", 6), ("twenty-numbers", 20), ("split", 1)]
    )
    def test_end_to_end(self, path: MeasuredPath, payload: str, values: int) -> None:
        figures = path.with_empty_tables(end_to_end)(SHAPE._replace(payload=payload))
        assert path.stack.fetch_stored("SELECT count(*) FROM stored_values")[0][0] == values * 400
        assert figures.messages == 400
        assert figures.values_per_second == pytest.approx(values * figures.per_second)
        assert set(figures.cpu_microseconds) == WORKERS | {"broker", "nats", "postgres", "generator"}
        assert set(figures.megabytes) >= WORKERS
        assert positive(figures.megabytes)
        assert figures.wal_bytes > 8 * values
        assert figures.disk_bytes > 0
        assert path.columnstore_bytes(400) is None  # the embedded PostgreSQL has none

    def test_split_readings_have_one_time(self, path: MeasuredPath) -> None:
        path.with_empty_tables(end_to_end)(SHAPE._replace(payload="split"))
        query = "SELECT count(*), count(DISTINCT metric) FROM stored_values GROUP BY device, ts"
        assert [tuple(row) for row in path.stack.fetch_stored(query)] == [(5, 5)] * 80

    def test_hops(self, path: MeasuredPath) -> None:
        alone = hops.broker_alone(path, SHAPE)
        assert alone.per_second > 0
        assert "subscriber" in alone.cpu_microseconds
        logged = hops.into_the_stream(path, SHAPE)
        assert logged.per_second > 0
        assert TELEMETRY not in logged.cpu_microseconds
        stored = hops.into_the_database(path, SHAPE.messages)
        assert stored.per_second > 0
        assert TELEMETRY in stored.cpu_microseconds

    def test_latency(self, path: MeasuredPath) -> None:
        figures = latency(path, 200, 1, SHAPE)
        assert figures.probes == 100
        assert list(figures.milliseconds.values()) == sorted(figures.milliseconds.values())
        assert positive(figures.milliseconds)
        assert figures.poll_milliseconds > 0

    @pytest.mark.parametrize("away", [TELEMETRY, POSTGRES])
    def test_backlog(self, path: MeasuredPath, away: str) -> None:
        figures = backlog(path, SHAPE, away)
        assert (figures.away, figures.waited) == (away, 400)
        assert figures.per_second > 0
        assert positive(figures.peak_megabytes)
        assert figures.samples[-1].waiting == 0

    def test_devices(self, path: MeasuredPath) -> None:
        figures = scale.devices(path, SHAPE._replace(devices=400, tenant="bench"))
        assert figures.devices == 400
        assert positive({"first": figures.first.per_second, "again": figures.again.per_second})

    def test_rows(self, path: MeasuredPath) -> None:
        figures = scale.rows(path, SHAPE, 0, 30_000)
        assert figures.load.per_second > 0
        ((rows,),) = path.stack.fetch_stored("SELECT count(*) FROM stored_values")
        assert 20_000 < rows < 40_000

    def test_malformed(self, path: MeasuredPath) -> None:
        figures = malformed(path, SHAPE, 0.25)
        assert (figures.messages, figures.malformed) == (400, 100)
        assert 0 < figures.stored_per_second < figures.per_second

    @pytest.mark.skipif(telegraf.installed() is None, reason="telegraf is not on PATH")
    @pytest.mark.timeout(400)
    def test_telegraf(self) -> None:
        with Stack.running("mosquitto", tenants=("bench",)) as stack:
            figures = telegraf.compare(MeasuredPath(stack), SHAPE, 1)
        assert figures.rounds[0].per_second > 0
        assert [one.messages for one in figures.beside] == [400]
        assert figures.malformed.published == 400
        assert figures.malformed.distinct == 360
        assert [one.messages for one in figures.keyed] == [400]

    def test_pairs_with_another_checkout(self, path: MeasuredPath) -> None:
        with pairs.other_path(ROOT, None) as other:
            figures = pairs.against_checkout(path, other, ROOT, SHAPE, 2)
        assert [one.messages for one in (*figures.runs, *figures.others)] == [400] * 4
        assert all(ratio > 0 for ratio in ratios(figures, "messages a second"))

    def test_pairs_need_a_checkout_with_an_environment(self, tmp_path: Path) -> None:
        with pytest.raises(StackError, match=f"{tmp_path} is not a checkout"), pairs.other_path(tmp_path, None):
            pass

    @pytest.mark.timeout(600)
    def test_reads(self) -> None:
        with Stack.running("mosquitto", tenants=("bench",)) as stack:
            figures = reads.measure(stack, Size(3000, 2, 3), reads.Pace(0.0, 0.0))
        assert figures.readings == 3000 + 2 * 365 + 1 + 720 + 3 * 24
        assert figures.partitions > 12
        assert {one.name for one in figures.reads} > {LATEST_OF_DECADES, LATEST_OF_MONTH, LATEST_OF_FLEET, CHART}
        assert all(one.milliseconds["50"] > 0 and one.kilobytes > 0.1 for one in figures.reads)
        assert [(one.form.rpartition(".")[2], one.rows) for one in figures.streams] == [
            ("text/csv", 5 * 3000),
            ("stream", 5 * 3000),
            ("parquet", 5 * 3000),
        ]
        assert all(one.readings_per_second > 0 and one.megabytes > 0 for one in figures.streams)
        assert "| a day by 5 minutes |" in " ".join(report(Results(machine(), reads=figures)).split())


class TestPairs:
    def test_take_turns_in_beginning(self) -> None:
        order: list[str] = []

        def side(name: str) -> pairs.Side[EndToEnd]:
            def measure(load: Shape) -> EndToEnd:
                order.append(name)
                return EndToEnd(load.messages, 1.0, {}, 1, 1, 1, {})

            return pairs.Side(name, measure, SHAPE)

        found = pairs.in_turn("numbers", side("a"), side("b"), 3)
        assert order == ["a", "b", "b", "a", "a", "b"]
        assert (found.ours, found.other, len(found.runs), len(found.others)) == ("a", "b", 3, 3)

    @pytest.mark.parametrize(
        ("count", "first", "last"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (15, 4, 12), (20, 6, 15)]
    )
    def test_have_an_interval_of_the_sign_test(self, count: int, first: int, last: int) -> None:
        assert median_interval([float(number) for number in range(count, 0, -1)]) == (first, last)


class TestPage:
    def results(self) -> Results:
        one = EndToEnd(400, 40_500.0, dict.fromkeys(["ingestion", "nats", "telemetry", "postgres"], 5.0), 1, 1, 1, {})
        return Results(
            machine(),
            end_to_end={"numbers": [one]},
            latency=[Latency(2000, 9, dict.fromkeys(["50", "99", "100"], 45.0), 2.3)],
            failures={"rows": "the disk is full"},
        )

    def test_shows_what_was_measured_and_whether_it_is_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "page.md"
        path.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
        results = msgspec.json.decode(msgspec.json.encode(self.results()), type=Results)
        for _ in range(2):
            page.publish([results], path, tmp_path)
        text = path.read_text(encoding="utf-8")
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
        assert ["end to end, 5 numbers a message", "40,000 msg/s", "", "40,500 msg/s", "yes"] in lines
        assert ["CPU a message: NATS", "2 µs", "1 µs", "5.0 µs", "**no**"] in lines
        assert ["publish to visible at 2,000 msg/s, p99", "100 ms", "30 ms", "45 ms", "yes"] in lines
        assert text.count("<!-- end of figures -->") == len(SECTIONS) + 3
        assert (tmp_path / "performance-latency.svg").read_text(encoding="utf-8").count("2,000 msg/s") >= 1

    def test_names_a_section_that_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "page.md"
        path.write_text("# Performance\n", encoding="utf-8")
        with pytest.raises(ValueError, match="has no line <!-- figures: machine -->"):
            page.publish([self.results()], path, tmp_path)

    def test_shows_each_database(self, tmp_path: Path) -> None:
        path = tmp_path / "page.md"
        path.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
        plain = dataclasses.replace(self.results(), database="PostgreSQL 18.6")
        other = dataclasses.replace(self.results(), database="PostgreSQL 18.6, TimescaleDB 2.29.2", latency=[])
        page.publish([plain, other], path, tmp_path)
        text = path.read_text(encoding="utf-8")
        assert text.count("On PostgreSQL 18.6, TimescaleDB 2.29.2:") == 3
        assert text.count("On PostgreSQL 18.6:") == 4
        assert text.count("| Processor |") == 1

    def test_is_not_written_from_what_holds_no_figures(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "figures.json"
        for content in (None, "{}"):
            if content is not None:
                path.write_text(content, encoding="utf-8")
            assert main(["--publish", str(path)]) == 1
            assert f"{path}" in capsys.readouterr().err

    def test_compares_with_the_runs_beside_telegraf(self) -> None:
        used = dict.fromkeys(["ingestion", "nats", "telemetry", "telegraf"], 5.0)
        fault = AfterFault(10, 9, 9)
        other = Telegraf(
            "one",
            {"one": 20_000.0},
            [Rate(400, 20_000.0, used)],
            fault,
            fault,
            5,
            [EndToEnd(400, 30_000.0, used, 1, 1, 1, {})],
        )
        text = report(dataclasses.replace(self.results(), telegraf={"numbers": other}))
        words = " ".join(text.split())
        assert "| messages a second against Telegraf, 5 numbers | 2.1 × | 2.5 × | 1.50 × | **no** |" in words  # noqa: RUF001
        assert "| 5 numbers | 20,000 | 5.0 µs | 30,000 | 15.0 µs | 1.50 × | | |" in words  # noqa: RUF001

    def test_shows_the_ratios_of_pairs_and_holds_them_to_the_targets(self) -> None:
        def run(per_second: float, telemetry: float, wal: float) -> EndToEnd:
            return EndToEnd(400, per_second, {"telemetry": telemetry, "broker": 9.0}, 1, 1, 1, {}, wal_bytes=wal)

        of = Pairs("numbers", "abc", "def", [run(300, 3, 20), run(330, 4, 21)], [run(200, 6, 60), run(200, 8, 60)])
        text = report(dataclasses.replace(self.results(), pairs={"numbers against def": of}))
        words = " ".join(text.split())
        assert "| | SENS abc | def | ratio, median | lowest and highest |" in words
        assert "| messages a second | 315 | 200 | 1.57 | 1.50 to 1.65 |" in words
        assert "| CPU a message: workers, NATS, database | 3.5 µs | 7.0 µs | 0.50 | 0.50 to 0.50 |" in words
        assert "| CPU a message: telemetry, against def | 0.7 × | 0.5 × | 0.50 × | aim |" in words  # noqa: RUF001
        assert "| WAL a message, against def | 0.4 × | 0.33 × | 0.34 × | yes |" in words  # noqa: RUF001

    def test_tells_which_part_failed(self) -> None:
        assert "rows gave no figures: the disk is full" in report(self.results())
