"""What everything that writes readings keeps to."""

from typing import Final

MAX_SETS_OF_DEVICE: Final = 64
"""A device that has more is stored with the union of its sets, so that a device whose metrics change all the time has few."""
MAX_UNION_RATIO: Final = 8
"""A larger union is made when it has at most so many times the metrics that the largest one lacks, counted in each set that has them; until then
sets that no known one contains are stored as they are. So a device with a counter in the names of its metrics has few large sets."""
