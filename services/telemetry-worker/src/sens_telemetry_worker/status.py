"""What each lane is doing, what waits in the stream, and which hop is the bottleneck: for the metrics and for ``/readyz``."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Final

from sens_common.hops import amount, blocking_hop
from sens_telemetry_worker import metrics

_HOPS: Final[Mapping[str, str | None]] = {
    "dead_letter_share": "this worker",
    "nats": "NATS",
    "stream": "the stream",
    "database": "the database",
    "store": "the database",
    "lanes": None,
    "stream_limits": None,
}
"""Checks of ``/readyz`` and the hop of each, None for one that names it; the first one that fails is told."""

STALLED_SECONDS: Final = 15.0
"""A lane that does one thing for longer than this, other than taking, is stalled."""

_BEHIND_SECONDS: Final = 5.0
_ROLLUPS_BEHIND_SECONDS: Final = 600.0


class LaneState(StrEnum):
    """What a lane is doing."""

    TAKING = "taking"
    """It waits for envelopes."""
    STORING = "storing"
    """It builds a batch and stores it in the database, again and again if need be."""
    ACKNOWLEDGING = "acknowledging"
    """It acknowledges the envelopes to the stream."""
    HALTED = "halted"
    """It only looks at what comes, because every tenant's messages would be dead-lettered; a batch a minute is tried."""


_HOP_OF_STATE: Final = {
    LaneState.STORING: "the database",
    LaneState.ACKNOWLEDGING: "the stream",
}


@dataclass(slots=True)
class StreamStatus:
    """The stream as it was observed last.

    Attributes:
        unsettled: Envelopes that are not settled, those under way included.
        oldest_seconds: How long ago JetStream stored the oldest of them, 0 when there is none.
        filled: Share of its size limit, 0 without one.
    """

    unsettled: int = 0
    oldest_seconds: float = 0.0
    filled: float = 0.0


@dataclass(slots=True)
class Lane:
    """What one lane is doing, and since when, seconds of the status' clock."""

    name: str
    clock: Callable[[], float]
    state: LaneState = LaneState.TAKING
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def enter(self, state: LaneState) -> None:
        """Say what the lane begins to do."""
        self.state = state
        self.since = self.clock()

    @property
    def seconds(self) -> float:
        """For how long it has been doing that."""
        return self.clock() - self.since


class TelemetryStatus:
    """The envelopes between the stream and the database.

    Attributes:
        stream: The stream as it was observed last.
        rollup_lag_seconds: For how long the oldest hour has been waiting that is not in the rollups.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: list[Lane] = []
        self._stored_at = clock()
        self.stream = StreamStatus()
        self.rollup_lag_seconds = 0.0

    def export_metrics(self) -> None:
        """Let the metrics of the lanes look here whenever somebody asks for them."""
        for state in LaneState:
            metrics.LANES.labels(state).set_function(partial(self._count, state))
            metrics.LANE_SECONDS.labels(state).set_function(partial(self._seconds, state))

    def add_lane(self) -> Lane:
        """Return a new lane."""
        lane = Lane(f"lane {len(self._lanes)}", self._clock)
        self._lanes.append(lane)
        return lane

    def note_stored(self) -> None:
        """Take note that a batch was stored."""
        self._stored_at = self._clock()

    def _count(self, state: LaneState) -> int:
        return sum(lane.state is state for lane in self._lanes)

    def _seconds(self, state: LaneState) -> float:
        return max((lane.seconds for lane in self._lanes if lane.state is state), default=0.0)

    async def check(self) -> str | None:
        """Readiness check: no lane is stalled."""
        for state, hop in _HOP_OF_STATE.items():
            seconds = self._seconds(state)
            if seconds > STALLED_SECONDS:
                return f"{hop} holds: a lane has been {state.replace('_', '-')} for {seconds:.0f} s"
        return None

    def describe(self, answers: Mapping[str, str]) -> str:
        """Return one sentence: which hop is the bottleneck, what waits, and what the lanes do; see `readiness.Describe`."""
        stream = self.stream
        bottleneck = blocking_hop(_HOPS, answers)
        parts = []
        if bottleneck is not None:
            parts.append(f"no batch stored for {self._clock() - self._stored_at:.0f} s")
        if stream.unsettled:
            waiting = amount(stream.unsettled, "envelope")
            parts.append(f"{waiting} in the stream, the oldest for {stream.oldest_seconds:.0f} s")
        parts.append(f"the stream is {stream.filled:.0%} full")
        if self.rollup_lag_seconds > _ROLLUPS_BEHIND_SECONDS:
            parts.append(f"the rollups are {self.rollup_lag_seconds / 60:.0f} min behind")
        doing = [
            f"{count} {state.replace('_', '-')} for {self._seconds(state):.0f} s"
            for state in LaneState
            if (count := self._count(state))
        ]
        parts.append(f"{amount(len(self._lanes), 'lane')}: {', '.join(doing)}")
        if bottleneck is None:
            bottleneck = "behind, and storing" if stream.oldest_seconds > _BEHIND_SECONDS else "keeps up"
        return "; ".join([bottleneck, *parts])
