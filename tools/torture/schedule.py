"""Which faults happen, in which order, for how long: all of it follows from a seed."""

import random
from typing import Final, NamedTuple

from tools.torture.faults import Fault

SHORT: Final = (0.2, 2.0)
_SETTLED_SHARE: Final = 0.7
"""Of the faults, those after which everything comes to rest before the next one."""


class Planned(NamedTuple):
    """A fault that is to happen.

    Attributes:
        fault: Which.
        seconds: How long.
        pause_seconds: Time until the next one begins.
        settled: Whether it is waited for everything to come to rest before that; else the next one meets what this one left.
    """

    fault: Fault
    seconds: float
    pause_seconds: float
    settled: bool


def chosen(
    every_fault: list[Fault],
    count: int,
    generator: random.Random,
    *,
    short: tuple[float, float] = SHORT,
    longest: float | None = None,
) -> list[Planned]:
    """Return this many faults in random order, each kind before any comes twice; rare kinds take turns.

    Args:
        every_fault: Those to choose from.
        count: How many.
        generator: Decides everything.
        short: How long a fault lasts that need not last for a certain time, from and to, seconds.
        longest: Leave out those that have to last longer, seconds.
    """
    possible = [fault for fault in every_fault if longest is None or (fault.seconds or short)[0] <= longest]
    order: list[Planned] = []
    turn = 0
    while len(order) < count:
        these = [fault for index, fault in enumerate(possible) if (index + turn) % fault.every == 0]
        generator.shuffle(these)
        for fault in these:
            seconds = generator.uniform(*(fault.seconds or short))
            pause, settled = generator.uniform(0, 0.5), generator.random() < _SETTLED_SHARE
            order.append(Planned(fault, seconds if longest is None else min(seconds, longest), pause, settled))
        turn += 1
    return order[:count]
