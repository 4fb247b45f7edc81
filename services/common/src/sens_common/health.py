"""What is wrong with a part of a service: one event makes the log line, the metric and what ``/readyz`` says."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

import structlog

from sens_common.metrics import PROBLEMS

log = structlog.get_logger()

Check = Callable[[], Awaitable[str | None]]
"""A readiness check: returns None when all is well, else a sentence that says what is wrong."""

type Level = Literal["debug", "info", "warning", "error"]


class _Problem(NamedTuple):
    what: str
    why: str
    level: Level
    since: float
    sentence: str


class Problems:
    """The problems of one part of a service.

    Each problem has a key: one does not hide another, and solving one does not hide another. A part that has several lanes or connections
    uses the name of each as its key. A problem lasts until its owner clears its key.

    Whoever sets a problem says it once, and three things follow:

    - The log gets one line when the problem begins, one whenever its text changes, and one when it is over. Setting the same problem again,
      as each failed attempt does, logs nothing.
    - ``sens_service_problems_count{part=…}`` is the number of problems.
    - `check` answers ``/readyz`` with all of them.

    >>> problems = Problems("store")
    >>> problems.set("lane 0", "the database does not store", "no answer in time")
    >>> problems.set("lane 1", "the stream does not answer")
    >>> problems.clear("lane 1")
    >>> problems.problem
    'the database does not store: no answer in time'
    """

    def __init__(self, part: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without problems.

        Args:
            part: Name of the part in logs and metrics; one of a few in each service.
            clock: Seconds; tells how long a problem lasted.
        """
        self._part = part
        self._clock = clock
        self._by_key: dict[str, _Problem] = {}

    def set(
        self,
        key: str,
        what: str,
        why: str = "",
        *,
        why_says_all: bool = False,
        level: Level = "warning",
        details: Mapping[str, object] | None = None,
    ) -> None:
        """Say what is wrong.

        Args:
            key: Of the problem; the text that it had before is replaced.
            what: A sentence for people that does not change while the problem lasts; it is the log line's event.
            why: The reason, for example an error's words; a change of it is logged.
            why_says_all: Whether the reason is a sentence of its own, which ``/readyz`` then gives alone: "127.0.0.1 port 1883 can't be reached"
                rather than "not connected to the broker: 127.0.0.1 port 1883 can't be reached".
            level: Of the log line. ``debug`` is for what is no trouble yet, for example a part that has only just begun to connect.
            details: More fields of the log line.
        """
        before = self._by_key.get(key)
        if before is not None and (before.what, before.why) == (what, why):
            return
        since = before.since if before is not None else self._clock()
        sentence = what if not why else why if why_says_all else f"{what}: {why}"
        self._by_key[key] = _Problem(what, why, level, since, sentence)
        PROBLEMS.labels(self._part).set(len(self._by_key))
        fields = {"part": self._part} | ({"error": why} if why else {}) | dict(details or {})
        getattr(log, level)(what, **fields)

    def clear(self, key: str) -> None:
        """Say that it is over; no effect where nothing was wrong."""
        problem = self._by_key.pop(key, None)
        if problem is None:
            return
        PROBLEMS.labels(self._part).set(len(self._by_key))
        tell = log.debug if problem.level == "debug" else log.info
        tell("problem is over", part=self._part, problem=problem.what, seconds=round(self._clock() - problem.since, 1))

    def clear_all(self) -> None:
        """Say that everything is over."""
        for key in list(self._by_key):
            self.clear(key)

    @property
    def problem(self) -> str | None:
        """All that is wrong in one line, each sentence once, the oldest first; None when all is well."""
        return "; ".join(dict.fromkeys(problem.sentence for problem in self._by_key.values())) or None

    async def check(self) -> str | None:
        """Answer as a readiness check."""
        return self.problem

    def of(self, name: str) -> "Problems":
        """Return the problems of one of several alike: set and cleared here as well, each with the name in its key, sentence and log line."""
        return _NamedProblems(self, self._part, self._clock, name)


class _NamedProblems(Problems):
    """See `Problems.of`."""

    def __init__(self, all_of_them: Problems, part: str, clock: Callable[[], float], name: str) -> None:
        super().__init__(part, clock=clock)
        self._all = all_of_them
        self._name = name

    def set(
        self,
        key: str,
        what: str,
        why: str = "",
        *,
        why_says_all: bool = False,
        level: Level = "warning",
        details: Mapping[str, object] | None = None,
    ) -> None:
        """See `Problems.set`."""
        sentence = what if not why else why if why_says_all else f"{what}: {why}"
        self._by_key[key] = _Problem(what, why, level, self._clock(), sentence)
        told = f"{self._name}: {why if why_says_all else what}", "" if why_says_all else why
        self._all.set(f"{self._name} {key}", *told, level=level, details=details)

    def clear(self, key: str) -> None:
        """See `Problems.clear`."""
        self._by_key.pop(key, None)
        self._all.clear(f"{self._name} {key}")
