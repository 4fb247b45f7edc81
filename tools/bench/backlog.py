"""Messages that wait in the log while something is away, and the way back."""

import dataclasses
import threading
import time
from types import TracebackType
from typing import Final, Self

from tools.bench.figures import Backlog, Sample
from tools.bench.hops import drain
from tools.bench.load import Shape
from tools.bench.rig import PUBLISHED, SETTLED, Rig
from tools.stack.path import POSTGRES, TELEMETRY, StackError
from tools.stack.usage import peak_megabytes

_SAMPLE_SECONDS: Final = 0.5
_MOVE_SECONDS: Final = 120


def backlog(rig: Rig, shape: Shape, away: str) -> Backlog:
    """Stop a process, let messages wait in the log, start it again and see how the path gets through them.

    Raises:
        StackError: Nothing is stored afterwards.
    """
    rig.warm_up(shape)
    packets = rig.prepare(shape)
    logged, settled = rig.count(PUBLISHED), 0.0 if away == TELEMETRY else rig.count(SETTLED)
    rig.stack.stop(away)
    with Sampler(rig, logged, settled) as sampler:
        rig.publish(shape, packets)
        rig.reach(PUBLISHED, logged + shape.messages)
        started, before = time.perf_counter(), rig.usage()
        rig.stack.start(away)
        back = time.perf_counter()
        while rig.count(SETTLED) == settled:
            if time.perf_counter() > back + _MOVE_SECONDS:
                raise StackError(f"nothing was stored within {_MOVE_SECONDS} s after {away} was back")
            time.sleep(0.02)
        moved = time.perf_counter()
        rate = drain(rig, shape.messages, settled, started, before)
    # A server of many processes shares memory between them, and only a sample knows how much.
    peaks = {
        name: max(sample.megabytes.get(name, 0.0) for sample in sampler.samples)
        if name == POSTGRES
        else peak_megabytes(rig.stack.tree(name)[0])
        for name in rig.stack.names
    }
    return Backlog(
        **dataclasses.asdict(rate),
        away=away,
        waited=shape.messages,
        recovery_seconds=moved - back,
        peak_megabytes=peaks,
        samples=sampler.samples,
    )


class Sampler:
    """Looks at the processes' memory, in a thread of its own, while its context is open.

    Attributes:
        samples: What it saw.
    """

    def __init__(self, rig: Rig, logged: float, settled: float) -> None:
        self._rig = rig
        self._logged = logged
        self._settled = settled
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        self._started = time.perf_counter()
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        seconds = time.perf_counter() - self._started
        waiting = self._count(PUBLISHED) - self._logged - max(0.0, self._count(SETTLED) - self._settled)
        megabytes = {name: used.resident_megabytes for name, used in self._rig.stack.usage().items()}
        self.samples.append(Sample(seconds, waiting, megabytes))

    def _count(self, counter: tuple[str, str]) -> float:
        try:
            return self._rig.count(counter)
        except OSError:
            return 0.0  # it is the process that is away
