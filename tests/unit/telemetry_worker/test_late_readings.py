"""Which hours are noted of readings that come late."""

from hypothesis import given
from hypothesis import strategies as st

from sens_telemetry_worker.rows import Reading, ReadingGroup, group_of
from sens_telemetry_worker.tenants import MetricSet
from sens_telemetry_worker.timescale.late_readings import late_hours

HOUR = 3_600_000_000
SET = MetricSet(1, (1,), ())

readings = st.lists(st.tuples(st.integers(1, 3), st.integers(-3 * HOUR, 6 * HOUR)), max_size=12)


def group(items: list[tuple[int, int]]) -> ReadingGroup:
    return group_of(SET, [Reading(0, device, at, {1: 1.0}) for device, at in items])


class TestLateHours:
    @given(readings, readings)
    def test_are_those_before_the_watermark_and_no_others(
        self, some: list[tuple[int, int]], others: list[tuple[int, int]]
    ) -> None:
        stretches = late_hours([group(some), group(others)], 4)
        noted = [(device, hour) for device, first, past in zip(*stretches, strict=True) for hour in range(first, past)]
        assert sorted(noted) == sorted({(device, at // HOUR) for device, at in some + others if at < 4 * HOUR})

    def test_of_consecutive_hours_are_one_stretch(self) -> None:
        items = [(1, hour * HOUR) for hour in (0, 1, 2, 5)] + [(2, 3 * HOUR)]
        assert [each.tolist() for each in late_hours([group(items)], 6)] == [[1, 1, 2], [0, 5, 3], [3, 6, 4]]
