"""The numbers of the live line."""

import io
import json

import pytest
from rich.console import Console

from sens_cli.up import traffic
from sens_cli.up.components import Options
from sens_cli.up.counts import Counts, DatabaseCounts
from sens_cli.up.display import TerminalDisplay
from sens_cli.up.platform import live_warnings
from sens_cli.up.ports import Ports
from sens_cli.up.traffic import RECEIVED_METRIC, Traffic, TrafficReader, metric_sum, stream_lag
from sens_mqtt_ingestion_worker import metrics as ingestion_metrics


class TestMetrics:
    def test_are_summed_over_their_labels(self) -> None:
        text = b'# HELP x_total x\nx_total{tenant="a b"} 2.0\nx_total{tenant="c"} 3\nx_total_more 7\n'
        assert metric_sum(text, "x_total") == 5

    def test_that_are_missing_are_none(self) -> None:
        assert metric_sum(b"y 1\nx_total nonsense{\n", "x_total") is None

    def test_have_the_names_that_the_worker_gives_them(self) -> None:
        assert [f"{each.name}_total" for each in ingestion_metrics.RECEIVED.describe()] == [RECEIVED_METRIC]


class TestTheLog:
    def test_gives_the_lag(self) -> None:
        consumer = {"name": "telemetry-worker", "num_pending": 4, "num_ack_pending": 3}
        details = [
            {"name": "TELEMETRY", "state": {"messages": 9}, "consumer_detail": [{"name": "other"}, consumer]},
            {"name": "ANOTHER", "state": {"messages": 2}},
        ]
        answer = json.dumps({"account_details": [{"stream_detail": details}]}).encode()
        assert stream_lag(answer) == 7

    def test_that_is_missing_has_none(self) -> None:
        for answer in (b"", b"{}", b"[]", b'{"account_details": [{}]}'):
            assert stream_lag(answer) is None


class FixedCounts(DatabaseCounts):
    """A database that has counted 7 messages and has 3 dead letters."""

    def __init__(self) -> None:
        super().__init__(1, "")

    async def read(self) -> Counts:
        return Counts(stored=7, dead_letters=3)


class TestTheReader:
    async def test_has_what_the_database_has_counted_also_while_nothing_else_answers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def get(_port: int, _path: str) -> tuple[int, bytes]:
            raise ConnectionRefusedError

        monkeypatch.setattr(traffic, "get", get)
        reader = TrafficReader(Ports(), FixedCounts())
        assert await reader.read() == Traffic(rate=None, stored=7, lag=None, dead_letters=3)


class TestTheLine:
    def test_shows_what_is_known(self) -> None:
        line = Traffic(rate=1234.56, stored=1_000_000, lag=None, dead_letters=0).text()
        assert line == "1,234.6 messages/s · stored 1,000,000 · lag - · dead letters 0"


class TestWhatStandsBelow:
    def test_is_who_is_not_ready_and_who_can_do_everything(self) -> None:
        options = Options(mqtt_host="0.0.0.0")  # noqa: S104 - not listened on
        assert live_warnings({"docs": "no answer on port 8080"}, options) == [
            "not ready: docs: no answer on port 8080",
            "anybody who reaches the broker can write and read everything",
        ]
        assert live_warnings({}, Options()) == []

    def test_is_shown_in_full_on_a_narrow_terminal(self) -> None:
        console = Console(width=40, force_terminal=True, file=io.StringIO(), color_system=None)
        display = TerminalDisplay(console)
        display.open()
        display.live("1.0 messages/s · stored 2 · lag 0 · dead letters 0", ["not ready: docs", "anybody"])
        display.close()
        shown = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
        assert "1.0 messages/s" in shown
        assert "! not ready: docs" in shown
        assert "! anybody" in shown
