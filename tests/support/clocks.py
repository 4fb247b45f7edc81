"""Clocks that a test sets."""


class Clock:
    """Seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds


class Machine:
    """Two clocks: one that says the time and can be set, and one that only goes on. A look at one takes a microsecond."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self.now = now
        self._running = 1_000_000

    def wait(self, microseconds: int) -> None:
        """Let time go by."""
        self.now += microseconds
        self._running += microseconds

    def set(self, by: int) -> None:
        """Set the clock forward or back by so many microseconds."""
        self.now += by

    def wall(self) -> int:
        """Return the time, nanoseconds since the epoch."""
        self.wait(1)
        return self.now * 1000

    def steady(self) -> int:
        """Return the nanoseconds since the machine started."""
        self.wait(1)
        return self._running * 1000
