"""A program of the path: with its children it can be paused, killed and measured, and a worker can be asked how it is."""

import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, override

import psutil

from tools.program import STOP_SECONDS, Program
from tools.stack.metrics import samples
from tools.stack.usage import Usage, peak_megabytes, tree, usage

HOST: Final = "127.0.0.1"
_ANSWER_SECONDS: Final = 10
_OK: Final = 200


class Server(Program):
    """A program that may have children."""

    def processes(self) -> list[psutil.Process]:
        """Return its process and that one's children; none when it does not run."""
        return tree(self.process.pid) if self.process is not None and self.running else []

    def pause(self) -> None:
        """Let it do nothing (SIGSTOP), with its children."""
        # A process that is stopped makes no further children.
        _signal(self.processes()[:1], signal.SIGSTOP)
        _signal(self.processes(), signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        _signal(self.processes(), signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, with its children, as when its container or its machine dies."""
        self.pause()
        processes = self.processes()
        _signal(processes, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_works, processes)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def signal_child(self, pid: int, number: int) -> None:
        """Send a signal to one of its children, unless that has ended."""
        _signal([process for process in self.processes() if process.pid == pid], number)

    def kill_children(self) -> None:
        """End its children at once."""
        _signal(self.processes()[1:], signal.SIGKILL)

    def peak_megabytes(self) -> float:
        """Return the most memory that its process, without its children, has had; 0 when it does not run."""
        return peak_megabytes(self.process.pid) if self.process is not None and self.running else 0.0

    def usage(self) -> Usage | None:
        """Return what it and its children use; None when it does not run."""
        return usage(self.process.pid) if self.process is not None and self.running else None


class Worker(Server):
    """A service that answers on an operations port.

    Attributes:
        module: Its Python module.
        environment: Its variables at the next start, beside those of this process.
        port: Where it answers.
    """

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        port: int,
        log: Path,
        *,
        python: Path = Path(sys.executable),
    ) -> None:
        self.module = module
        self.environment = environment
        self.port = port
        super().__init__(name, [str(python), "-m", module], log, ready=lambda: self.get("/readyz")[0] == _OK)

    @override
    def start(self) -> None:
        """Start it with the environment that it has now."""
        self._options["env"] = {**os.environ, **self.environment, "SENS_OPERATIONS__PORT": str(self.port)}
        super().start()

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of an answer; 0 and nothing when nothing answers."""
        status, body = self._ask(path)
        return status, body if status else ""

    def _ask(self, path: str) -> tuple[int, str]:
        """Return the status and the body of an answer; 0 and the reason when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=_ANSWER_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(getattr(error, "reason", error))

    def not_ready(self) -> dict[str, str]:
        """Return what its readiness checks complain of, by check; empty when it is ready."""
        status, body = self._ask("/readyz")
        if status == _OK:
            return {}
        if status == 0:
            return {"readyz": f"no answer: {body}"}
        try:
            return {check: text for check, text in json.loads(body)["checks"].items() if text != "ok"}
        except (ValueError, LookupError):
            return {"readyz": f"status {status}"}

    def metric(self, name: str) -> float:
        """Return a metric, summed over its labels.

        Raises:
            OSError: It does not answer.
        """
        status, body = self._ask("/metrics")
        if status != _OK:
            raise OSError(f"{self.name} does not tell its metrics: {body}")
        return sum(samples(body, name))


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _works(process: psutil.Process) -> bool:
    """Tell whether a process does anything yet: it runs, and has not ended without anybody's having asked how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
