"""What the ingestion worker says of the messages that it holds."""

import itertools

from prometheus_client import REGISTRY

from sens_common.envelope import Message
from sens_mqtt_ingestion_worker.flow import Flow, Waiting


class Connection:
    """A connection on which something waits."""

    waiting = Waiting(7, 700, reading_paused=True)


HELD = [Message("topic", b"12345", 0, number) for number in range(3)]


def flow_that_holds(seconds: int) -> Flow:
    """Return a flow that has held three messages for so long."""
    flow = Flow(itertools.chain([0], itertools.repeat(seconds)).__next__)
    flow.hold(HELD)
    return flow


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"sens_ingestion_{name}")


class TestFlow:
    def test_counts_what_is_under_way_and_what_waits(self) -> None:
        flow = flow_that_holds(30)
        with flow.of(Connection()):
            assert gauge("buffered_messages_count") == 10
            assert gauge("buffered_bytes") == 730
            assert gauge("reading_paused_count") == 1
            assert gauge("oldest_unacknowledged_seconds") == 30
        assert gauge("buffered_messages_count") == 0
        assert gauge("oldest_unacknowledged_seconds") == 0

    def test_names_the_log_when_it_takes_nothing(self) -> None:
        flow = flow_that_holds(30)
        with flow.of(Connection()):
            assert flow.describe({"log": "maximum bytes exceeded", "mqtt": "ok"}) == (
                "the log is full: maximum bytes exceeded; 10 messages (730 bytes) not acknowledged, the oldest for 30 s;"
                " nothing is read from the broker; PUBACKs stop, the broker queues"
            )

    def test_names_the_log_when_it_is_slow(self) -> None:
        flow = flow_that_holds(30)
        assert flow.describe({"log": "ok"}).startswith("the log holds: it is slow; 3 messages")

    def test_names_the_broker_when_there_is_no_connection(self) -> None:
        assert Flow().describe({"mqtt": "can't be reached"}) == "the broker holds: can't be reached"

    def test_names_no_hop_when_all_goes_on(self) -> None:
        assert Flow().describe({}) == "passes everything on"
        assert (
            flow_that_holds(0).describe({}).startswith("passes everything on; 3 messages (30 bytes) not acknowledged")
        )

    def test_names_the_tenants_over_their_rate_for_a_minute(self) -> None:
        now = [0.0]
        flow = Flow(lambda: now[0])
        flow.discarded({"demo": 3, "other": 1})
        assert flow.describe({}) == "passes everything else on; discards what is over the rate of demo, other"
        flow.discarded(dict.fromkeys("abcdef", 1))
        assert flow.describe({}).endswith("over the rate of a, b, c, d, demo and 3 more")
        now[0] = 61
        assert flow.describe({}) == "passes everything on"
