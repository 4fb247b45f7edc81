"""What the ingestion worker says of the messages that it holds."""

import itertools

from prometheus_client import REGISTRY

from sens_common.envelope import Message
from sens_mqtt_ingestion_worker.status import IngestionStatus, Waiting


class Connection:
    """A connection on which something waits."""

    waiting = Waiting(7, 700, reading_paused=True)


HELD = [Message("topic", b"12345", 0, number) for number in range(3)]


def status_that_holds(seconds: int) -> IngestionStatus:
    """Return the status of a worker that has held three messages for so long."""
    status = IngestionStatus(itertools.chain([0], itertools.repeat(seconds)).__next__)
    status.hold(HELD)
    status.export_metrics()
    return status


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"sens_ingestion_{name}")


class TestStatus:
    def test_counts_what_is_under_way_and_what_waits(self) -> None:
        status = status_that_holds(30)
        with status.of(Connection()):
            assert gauge("buffered_messages_count") == 10
            assert gauge("buffered_bytes") == 730
            assert gauge("reading_paused_count") == 1
            assert gauge("oldest_unacknowledged_seconds") == 30
        assert gauge("buffered_messages_count") == 0
        assert gauge("oldest_unacknowledged_seconds") == 0

    def test_names_the_stream_when_it_takes_nothing(self) -> None:
        status = status_that_holds(30)
        with status.of(Connection()):
            assert status.describe({"stream": "maximum bytes exceeded", "mqtt": "ok"}) == (
                "the stream is full: maximum bytes exceeded; 10 messages (730 bytes) not acknowledged, the oldest for 30 s;"
                " nothing is read from the broker; PUBACKs stop, the broker queues"
            )

    def test_names_the_stream_when_it_is_slow(self) -> None:
        status = status_that_holds(30)
        assert status.describe({"stream": "ok"}).startswith("the stream holds: it is slow; 3 messages")

    def test_names_the_broker_when_there_is_no_connection(self) -> None:
        assert IngestionStatus().describe({"mqtt": "can't be reached"}) == "the broker holds: can't be reached"

    def test_names_no_hop_when_all_goes_on(self) -> None:
        assert IngestionStatus().describe({}) == "passes everything on"
        assert (
            status_that_holds(0).describe({}).startswith("passes everything on; 3 messages (30 bytes) not acknowledged")
        )

    def test_names_the_tenants_over_their_rate_for_a_minute(self) -> None:
        now = [0.0]
        status = IngestionStatus(lambda: now[0])
        status.discarded({"demo": 3, "other": 1})
        assert status.describe({}) == "passes everything else on; discards what is over the rate of demo, other"
        status.discarded(dict.fromkeys("abcdef", 1))
        assert status.describe({}).endswith("over the rate of a, b, c, d, demo and 3 more")
        now[0] = 61
        assert status.describe({}) == "passes everything on"
