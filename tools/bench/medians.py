"""What runs come to: medians of rates and costs, and intervals of medians."""

import math
import statistics
from collections.abc import Sequence
from typing import Final

from tools.bench.figures import GENERATOR, Rate

LEAST_FOR_INTERVAL: Final = 6
"""So many values give an interval of their median."""

_BESIDE: Final = frozenset({GENERATOR, "broker", "subscriber"})
_OUTSIDE: Final = 0.05


def rate(rounds: Sequence[Rate]) -> float:
    """Return the median rate."""
    return statistics.median(one.per_second for one in rounds)


def cost(one: Rate) -> float:
    """Return the CPU time of a message in all processes but the load's own."""
    return sum(used for name, used in one.cpu_microseconds.items() if name != GENERATOR)


def platform_cost(one: Rate) -> float:
    """Return the CPU time of a message in all processes between the broker and the disk."""
    return sum(used for name, used in one.cpu_microseconds.items() if name not in _BESIDE)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return an interval that holds the median of what the values are drawn from with a probability of 95 % at least.

    It lies between two of the ordered values, so that nothing is assumed of how they are distributed: so many of n values lie below the
    median as heads come in n throws of a coin. Fewer than `LEAST_FOR_INTERVAL` values give no such interval: the first and the last one are returned.
    """
    ordered = sorted(values)
    outside, below = 1.0, 0
    while below < len(ordered) // 2:
        outside = 2 * sum(math.comb(len(ordered), heads) for heads in range(below + 1)) / 2 ** len(ordered)
        if outside > _OUTSIDE:
            break
        below += 1
    first = max(below - 1, 0)
    return ordered[first], ordered[-1 - first]


def cpu(rounds: Sequence[Rate]) -> dict[str, float]:
    """Return each process' median cost."""
    return {
        name: statistics.median(one.cpu_microseconds.get(name, 0.0) for one in rounds)
        for name in rounds[0].cpu_microseconds
    }
