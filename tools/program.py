"""One way to run a program as a process: start it, wait until it is ready, read what it writes, end it, start it again.

Tests, measurements and trials of images use it. It needs nothing but Python.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, TypedDict, Unpack

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
_SHOWN_BYTES: Final = 3000


class ProgramError(Exception):
    """A program ended, or was not ready in time. The text says which one, and ends with what it wrote last."""


class ProcessOptions(TypedDict, total=False):
    """How a process is started, as `subprocess.Popen` takes it."""

    env: Mapping[str, str]
    cwd: str | Path
    user: int
    group: int
    extra_groups: Sequence[int]


class Program:
    """A command that runs as a process, or does not run just now.

    Attributes:
        name: For people.
        log: File that its output is added to.
        process: The newest process; None before the first start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        ready: Callable[[], bool] = lambda: True,
        stop_signal: int = signal.SIGTERM,
        **options: Unpack[ProcessOptions],
    ) -> None:
        """Prepare.

        Args:
            name: For people.
            command: Program and arguments.
            log: File that its output is added to.
            ready: Tells whether it can do its work.
            stop_signal: Asks it to end.
            options: Environment, folder and account.
        """
        self.name = name
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._command = list(command)
        self._ready = ready
        self._stop_signal = stop_signal
        self._options = options

    @property
    def running(self) -> bool:
        """Tell whether there is a process."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the newest process ended; None while it runs, and before the first start."""
        return self.process.poll() if self.process is not None else None

    @property
    def ready(self) -> bool:
        """Tell whether it can do its work."""
        return self.running and self._ready()

    def start(self) -> None:
        """Start it, unless it runs; it need not be ready when this returns.

        Raises:
            OSError: It can't be started.
        """
        if not self.running:
            with self.log.open("ab") as output:
                self.process = subprocess.Popen(
                    self._command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **self._options
                )

    def becomes_ready(self, seconds: float) -> bool:
        """Tell whether it is ready within this time."""
        deadline = time.monotonic() + seconds
        while not (ready := self.ready) and self.running and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return ready

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it is ready after its start.

        Raises:
            ProgramError: It ended, or is not ready in time.
        """
        if not self.becomes_ready(seconds):
            what = f"is not ready after {seconds:g} s" if self.running else "has ended"
            raise ProgramError(f"{self.name} {what}:\n{self.output()}")

    def ask_to_end(self) -> None:
        """Send it the signal that it is usually asked to end with."""
        self.send(self._stop_signal)

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.process is not None:
            self.process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """Wait until it ends by itself; return its exit code, None when it has not ended in time or was never started."""
        try:
            return self.process.wait(seconds) if self.process is not None else None
        except subprocess.TimeoutExpired:
            return None

    def stop(self, number: int | None = None, *, seconds: float = STOP_SECONDS) -> int:
        """End it and wait for its end; return its exit code, 0 when it was never started.

        Args:
            number: The signal, instead of the one that it is usually asked to end with.
            seconds: When it has not ended by then it is killed.
        """
        if self.process is None:
            return 0
        self.send(self._stop_signal if number is None else number)
        code = self.wait(seconds)
        if code is None:
            self.process.kill()
            code = self.process.wait()
        return code

    @contextmanager
    def running_until_left(self, seconds: float = START_SECONDS) -> Iterator[Self]:
        """Run it while the context is open, once it is ready.

        Raises:
            ProgramError: It ended, or is not ready in time.
        """
        self.start()
        try:
            self.wait_until_ready(seconds)
            yield self
        finally:
            self.stop()

    @property
    def written(self) -> int:
        """How much it has written, bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def output(self, *, since: int | None = None) -> str:
        """Return what it has written: the end of it, or all since a position that `written` told."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.written - _SHOWN_BYTES) if since is None else since)
            return file.read().decode(errors="replace")
