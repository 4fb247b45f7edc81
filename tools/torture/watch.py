"""What an operator sees while a fault lasts: the answers of the workers' readiness, and what they log."""

import json
import threading
from types import TracebackType
from typing import Final, Self

from tools.stack.path import Stack

_INTERVAL_SECONDS: Final = 0.7
_LEVELS: Final = frozenset({"warning", "error", "critical"})


class Watch:
    """Looks at the workers in a thread of its own until it is left.

    Attributes:
        seen: By worker: each answer of a readiness check that is not "ok", and each warning or error in its log, once.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._written = {name: worker.written for name, worker in stack.workers.items()}
        self.seen: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for worker, before in self._written.items():
            for line in self._stack[worker].output(since=before).splitlines():
                self._note_line(worker, line)

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            for name, worker in self._stack.workers.items():
                for check, text in worker.not_ready().items():
                    self._note(name, f"readyz {check}: {text}")

    def _note_line(self, worker: str, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if entry.get("level") in _LEVELS:
            detail = entry.get("error") or entry.get("problem")
            self._note(worker, f"log {entry['level']}: {entry.get('event')}{f': {detail}' if detail else ''}")

    def _note(self, worker: str, text: str) -> None:
        self.seen.setdefault(worker.partition("-")[0], set()).add(text)
