"""How long children compute for a group of calls."""

from collections.abc import Callable

from sens_payloads.codecs.sandbox.process import Child


class CpuClock:
    """Adds up the CPU time of children while they decode a group; where the system does not tell it, the time that passes."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._before = 0.0
        self._child: Child | None = None
        self._started_at = 0.0
        self._stopped = 0.0

    def start(self, child: Child) -> None:
        """Go on with a child."""
        self._child = child
        self._before = child.cpu_seconds or 0.0
        self._started_at = self._now()

    def stop(self) -> None:
        """Pause."""
        self._stopped = self.seconds
        self._child = None

    @property
    def seconds(self) -> float:
        """So much has been used."""
        if self._child is None:
            return self._stopped
        cpu = self._child.cpu_seconds
        return self._stopped + (self._now() - self._started_at if cpu is None else cpu - self._before)
