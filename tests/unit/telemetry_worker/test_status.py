"""What the telemetry worker says of its lanes."""

from prometheus_client import REGISTRY

from sens_telemetry_worker.status import STALLED_SECONDS, LaneState, StreamStatus, TelemetryStatus
from support.clocks import Clock


def status_with_lanes(*states: LaneState) -> tuple[TelemetryStatus, Clock]:
    clock = Clock()
    status = TelemetryStatus(clock)
    status.export_metrics()
    for state in states:
        status.add_lane().enter(state)
    return status, clock


class TestCheck:
    async def test_names_the_hop_that_a_lane_waits_for(self) -> None:
        status, clock = status_with_lanes(LaneState.TAKING, LaneState.STORING)
        clock.now += STALLED_SECONDS + 5
        assert await status.check() == "the database holds: a lane has been storing for 20 s"

    async def test_minds_no_lane_that_waits_for_envelopes(self) -> None:
        status, clock = status_with_lanes(LaneState.TAKING)
        clock.now += 86_400
        assert await status.check() is None

    async def test_minds_no_lane_that_goes_on(self) -> None:
        status, clock = status_with_lanes()
        lane = status.add_lane()
        for state in (LaneState.STORING, LaneState.ACKNOWLEDGING, LaneState.TAKING, LaneState.STORING):
            lane.enter(state)
            clock.now += STALLED_SECONDS - 1
            assert await status.check() is None


class TestSentence:
    def test_tells_the_hop_what_waits_and_what_the_lanes_do(self) -> None:
        status, clock = status_with_lanes(LaneState.STORING, LaneState.STORING)
        status.stream = StreamStatus(unsettled=1200, oldest_seconds=36, filled=0.12)
        clock.now += 34
        assert status.describe({"nats": "ok", "database": "connection refused"}) == (
            "the database holds: connection refused; no batch stored for 34 s; 1,200 envelopes in the stream, the oldest for 36 s;"
            " the stream is 12% full; 2 lanes: 2 storing for 34 s"
        )

    def test_of_a_worker_that_is_behind_names_no_hop(self) -> None:
        status, _ = status_with_lanes(LaneState.STORING)
        status.stream = StreamStatus(unsettled=1200, oldest_seconds=36)
        assert status.describe({}).startswith("behind, and storing; 1,200 envelopes")

    def test_of_a_worker_without_work(self) -> None:
        status, _ = status_with_lanes(LaneState.TAKING)
        assert status.describe({}) == ("keeps up; the stream is 0% full; 1 lane: 1 taking for 0 s")


class TestMetrics:
    def test_count_the_lanes_and_tell_their_longest_time(self) -> None:
        status, clock = status_with_lanes(LaneState.STORING)
        clock.now += 3
        status.add_lane().enter(LaneState.STORING)
        assert REGISTRY.get_sample_value("sens_telemetry_lanes_count", {"state": "storing"}) == 2
        assert REGISTRY.get_sample_value("sens_telemetry_lane_state_seconds", {"state": "storing"}) == 3
        assert REGISTRY.get_sample_value("sens_telemetry_lanes_count", {"state": "halted"}) == 0
