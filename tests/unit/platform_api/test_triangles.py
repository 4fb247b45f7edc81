"""Largest-Triangle-Three-Buckets."""

import math

from hypothesis import given
from hypothesis import strategies as st

from sens_platform_api.measurements.triangles import largest_triangles

POINTS = st.lists(st.floats(-1.7e308, 1.7e308), min_size=1, max_size=200)


class TestLargestTriangles:
    @given(values=POINTS, count=st.integers(3, 50))
    def test_are_so_many_with_the_first_and_the_last(self, values: list[float], count: int) -> None:
        chosen = largest_triangles(list(range(len(values))), values, count)
        assert len(chosen) == min(count, len(values))
        assert chosen == sorted(set(chosen))
        assert (chosen[0], chosen[-1]) == (0, len(values) - 1)

    @given(values=POINTS, count=st.integers(3, 50), factor=st.sampled_from([0.5, 2.0, 1024.0]))
    def test_do_not_depend_on_the_unit_of_time(self, values: list[float], count: int, factor: float) -> None:
        times = list(range(len(values)))
        assert largest_triangles(times, values, count) == largest_triangles(
            [at * factor for at in times], values, count
        )

    def test_keep_a_peak_and_spend_no_point_on_what_is_flat(self) -> None:
        values = [0.0] * 100
        values[41] = 1.0
        assert 41 in largest_triangles(range(100), values, 7)

    def test_choose_the_point_of_the_largest_triangle(self) -> None:
        values = [0.0, 1.0, 5.0, -2.0, 3.0, 0.0]
        # Buckets 1-2 and 3-4: with (0, 0) and the mean (3.5, 0.5) of the next bucket, then with (2, 5) and the last point.
        first = max((1, 2), key=lambda at: abs((0 - 3.5) * (values[at] - 0) - (0 - at) * (0.5 - 0)))
        second = max(
            (3, 4), key=lambda at: abs((first - 5) * (values[at] - values[first]) - (first - at) * (0 - values[first]))
        )
        assert largest_triangles(range(6), values, 4) == [0, first, second, 5]
        assert math.isfinite(values[second])
