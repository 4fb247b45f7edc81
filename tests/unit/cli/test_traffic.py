"""The numbers of the live line."""

import json

from sens_cli.up.traffic import RECEIVED_METRIC, STORED_METRIC, Traffic, metric_sum, stream_numbers
from sens_mqtt_ingestion_worker import metrics as ingestion_metrics
from sens_telemetry_worker import metrics as telemetry_metrics


class TestMetrics:
    def test_are_summed_over_their_labels(self) -> None:
        text = b'# HELP x_total x\nx_total{tenant="a b"} 2.0\nx_total{tenant="c"} 3\nx_total_more 7\n'
        assert metric_sum(text, "x_total") == 5

    def test_that_are_missing_are_none(self) -> None:
        assert metric_sum(b"y 1\nx_total nonsense{\n", "x_total") is None

    def test_have_the_names_that_the_workers_give_them(self) -> None:
        assert [f"{each.name}_total" for each in ingestion_metrics.RECEIVED.describe()] == [RECEIVED_METRIC]
        assert [f"{each.name}_total" for each in telemetry_metrics.STORED.describe()] == [STORED_METRIC]


class TestStreams:
    def test_give_lag_and_dead_letters(self) -> None:
        consumer = {"name": "telemetry-worker", "num_pending": 4, "num_ack_pending": 3}
        details = [
            {"name": "TELEMETRY", "state": {"messages": 9}, "consumer_detail": [{"name": "other"}, consumer]},
            {"name": "DEAD_LETTERS", "state": {"messages": 2}},
        ]
        answer = json.dumps({"account_details": [{"stream_detail": details}]}).encode()
        assert stream_numbers(answer) == (7, 2)

    def test_that_are_missing_are_none(self) -> None:
        for answer in (b"", b"{}", b"[]", b'{"account_details": [{}]}'):
            assert stream_numbers(answer) == (None, None)


class TestTheLine:
    def test_shows_what_is_known(self) -> None:
        line = Traffic(rate=1234.56, stored=1_000_000, lag=None, dead_letters=0).text()
        assert line == "1,234.6 messages/s · stored 1,000,000 · lag - · dead letters 0"

    def test_says_that_there_may_be_more_dead_letters_than_messages_with_them(self) -> None:
        line = Traffic(rate=1.0, stored=2, lag=0, dead_letters=1200).text()
        assert line.endswith("· dead letters 1,200+")
