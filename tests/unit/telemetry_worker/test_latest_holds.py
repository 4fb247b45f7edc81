"""A law: the latest value of a series is its newest live one; historical values, in whatever order they come, do not change that."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sens_telemetry_worker.timescale.latest_holds import Hold, hold

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


class Series:
    """A series as the database has it."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.historical: set[int] = set()
        self.hold: Hold | None = None

    def add(self, live: set[int], historical: set[int]) -> None:
        times = self.live | self.historical
        newest = at(max(times)) if times and historical else None
        if historical or self.hold is not None:
            after = hold(self.hold, newest, [at(time) for time in live], [at(time) for time in historical])
            self.hold = after or self.hold
        self.live |= live
        self.historical |= historical

    def latest(self) -> int:
        """Return the time of the latest value, as sens.latest_of_devices finds it."""
        times = self.live | self.historical
        newest = max(times)
        if self.hold is not None and self.hold.live_until < at(newest) <= self.hold.historical_until:
            until = self.hold.live_until
            return max((time for time in times if at(time) <= until), default=newest)
        return newest


_parts = st.lists(
    st.dictionaries(st.integers(0, 12), st.booleans(), min_size=1, max_size=4),
    min_size=1,
    max_size=8,
)


class TestHold:
    @given(_parts)
    def test_keeps_the_newest_live_value_the_latest(self, parts: list[dict[int, bool]]) -> None:
        series = Series()
        for part in parts:
            new = {time: kind for time, kind in part.items() if time not in series.live | series.historical}
            series.add({time for time, kind in new.items() if kind}, {time for time, kind in new.items() if not kind})
            if series.live | series.historical:
                assert series.latest() == max(series.live or series.historical)

    @given(_parts)
    def test_is_the_same_when_a_part_comes_again(self, parts: list[dict[int, bool]]) -> None:
        series = Series()
        known: dict[int, bool] = {}
        for part in parts:
            known = part | known
            stored = {time: known[time] for time in part}
            for _ in range(2):
                series.add(
                    {time for time, kind in stored.items() if kind}, {t for t, kind in stored.items() if not kind}
                )
            assert series.latest() == max(series.live or series.historical)

    def test_needs_none_for_historical_values_that_are_older(self) -> None:
        assert hold(None, at(5), [], [at(3), at(4)]) is None
        assert hold(None, None, [at(5)], [at(3)]) is None
