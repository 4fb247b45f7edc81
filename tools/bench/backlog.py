"""Messages that wait in the stream while something is away, and the way back."""

import dataclasses
import threading
import time
from types import TracebackType
from typing import Final, Self

from tools.bench.figures import Backlog, Sample
from tools.bench.hops import Start, drain
from tools.bench.load import Shape
from tools.bench.measured_path import PUBLISHED, SETTLED, STORED, MeasuredPath
from tools.stack.path import TELEMETRY, StackError
from tools.stack.programs import POSTGRES

_SAMPLE_SECONDS: Final = 0.5
_MOVE_SECONDS: Final = 120


def backlog(path: MeasuredPath, shape: Shape, away: str) -> Backlog:
    """Stop a process, let messages wait in the stream, start it again and see how the path gets through them.

    Raises:
        StackError: Nothing is stored afterwards.
    """
    path.warm_up(shape)
    packets = path.prepare(shape)
    logged = path.count(PUBLISHED)
    # A worker that starts counts from zero.
    settled, stored = (0.0, 0.0) if away == TELEMETRY else (path.count(SETTLED), path.count(STORED))
    path.stack[away].stop()
    with Sampler(path, logged, settled) as sampler:
        path.publish(shape, packets)
        path.reach(PUBLISHED, logged + shape.messages)
        start = Start(settled, stored, time.perf_counter(), path.usage())
        path.stack.start(away)
        back = time.perf_counter()
        while path.count(SETTLED) == settled:
            if time.perf_counter() > back + _MOVE_SECONDS:
                raise StackError(f"nothing was stored within {_MOVE_SECONDS} s after {away} was back")
            time.sleep(0.02)
        moved = time.perf_counter()
        rate = drain(path, shape.messages, start)
    # A server of many processes shares memory between them, and only a sample knows how much.
    peaks = {
        name: max(sample.megabytes.get(name, 0.0) for sample in sampler.samples)
        if name == POSTGRES
        else path.stack[name].peak_megabytes()
        for name in path.stack.names
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

    def __init__(self, path: MeasuredPath, logged: float, settled: float) -> None:
        self._path = path
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
        megabytes = {name: used.resident_megabytes for name, used in self._path.stack.usage().items()}
        self.samples.append(Sample(seconds, waiting, megabytes))

    def _count(self, counter: tuple[str, str]) -> float:
        try:
            return self._path.count(counter)
        except OSError:
            return 0.0  # it is the process that is away
