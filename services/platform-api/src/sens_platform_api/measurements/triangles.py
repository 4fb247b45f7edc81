"""Points that keep the shape of a line: Largest-Triangle-Three-Buckets.

S. Steinarsson, "Downsampling Time Series for Visual Representation", MSc thesis, University of Iceland 2013, section 4.2:
https://skemman.is/handle/1946/15343
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

FEWEST: Final = 3
"""With fewer points there is no bucket between the first and the last."""


def largest_triangles(times: Sequence[float], values: Sequence[float], count: int) -> list[int]:
    """Return the indexes of so many points at most, ascending: the first, the last, and of each bucket between them one.

    A bucket's point is the one that makes the largest triangle with the point chosen before it and the average of the bucket after it. The
    time is linear in the number of points.

    Args:
        times: Of the points, ascending.
        values: Of the points; a number of any size.
        count: How many points to choose, 3 at least.
    """
    length = len(times)
    if length <= count:
        return list(range(length))
    largest = max(map(abs, values)) or 1.0
    heights = [value / largest for value in values]  # so that no product is too large for a number
    edges = [1 + index * (length - 2) // (count - 2) for index in range(count - 1)]
    chosen = [0]
    for start, end in pairwise(edges):
        following = range(end, edges[len(chosen) + 1] if len(chosen) + 1 < len(edges) else length)
        mean_time = sum(times[index] for index in following) / len(following)
        mean_height = sum(heights[index] for index in following) / len(following)
        time, height = times[chosen[-1]], heights[chosen[-1]]
        chosen.append(
            max(
                range(start, end),
                key=lambda index: abs(
                    (time - mean_time) * (heights[index] - height) - (time - times[index]) * (mean_height - height)
                ),
            )
        )
    return [*chosen, length - 1]
