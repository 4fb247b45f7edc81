"""How much one step takes: as much as is done in a fraction of a second, so that its transaction is short, and others get on."""

from typing import Final

_SLOW_SECONDS: Final = 0.5
_QUICK_SECONDS: Final = 0.1


class StepSize:
    """How many of something a step takes; it follows how long the steps take.

    Attributes:
        count: So many, at least one.
    """

    def __init__(self, first: int, most: int) -> None:
        self.count = first
        self._most = most

    def adapt(self, seconds: float) -> None:
        """Take note of how long a step has taken."""
        if seconds > _SLOW_SECONDS:
            self.take_less(2)
        elif seconds < _QUICK_SECONDS:
            self.count = min(self._most, self.count * 2)

    def take_less(self, times: int = 4) -> None:
        """Take fewer: the database did not finish in time, or there was more to do than it seemed."""
        self.count = max(1, self.count // times)
