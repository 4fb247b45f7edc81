"""Readiness: whether a service can do its work, by named checks; and notes on what works but should be otherwise."""

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, Literal, NamedTuple

import structlog

from sens_common.health import Check

log = structlog.get_logger()

CHECK_TIMEOUT_SECONDS: Final = 2.0
START_SECONDS: Final = 5.0
"""For so long after the start all checks count: a connection that is only just being made is not yet called away."""

type Status = Literal["ok", "degraded", "failed"]

Describe = Callable[[Mapping[str, str]], str]
"""Says in one sentence, given the checks' answers, what a service passes on, and which hop is the bottleneck when it can't."""


class Answer(NamedTuple):
    """What ``/readyz`` answers.

    Attributes:
        status: ``ok``; ``degraded`` when only checks fail that a part of the service needs; else ``failed``.
        checks: Each check's answer: ``ok``, or what is wrong.
        flow: What a service passes on, None where it says nothing of that.
        notes: What works but should be otherwise, by name.
    """

    status: Status
    checks: dict[str, str]
    flow: str | None
    notes: dict[str, str]

    @property
    def http_status(self) -> HTTPStatus:
        """The status of the HTTP answer: a degraded service stays in use."""
        return HTTPStatus.SERVICE_UNAVAILABLE if self.status == "failed" else HTTPStatus.OK

    def document(self) -> dict[str, object]:
        """Return the answer as JSON has it: the same for every service, without the members that say nothing."""
        document: dict[str, object] = {"status": self.status, "checks": self.checks}
        if self.flow is not None:
            document["flow"] = self.flow
        if self.notes:
            document["notes"] = self.notes
        return document


class Readiness:
    """Runs a service's checks."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        describe: Describe | None = None,
        notes: Mapping[str, Check] | None = None,
        partial: frozenset[str] = frozenset(),
        cache_seconds: float = 0,
        check_timeout_seconds: float = CHECK_TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the arguments.

        Args:
            checks: By name; a service that is starting may exchange them.
            describe: Says what the service passes on.
            notes: By name; each returns None when all is as it should be.
            partial: Names of checks on which only a part of the service depends: it stays in use when they fail.
            cache_seconds: An answer is given again for so long, however many ask; for services that anybody can ask.
            check_timeout_seconds: How long each check and each note may take.
            clock: Seconds.
        """
        self._checks = checks
        self._describe = describe
        self._notes = notes if notes is not None else {}
        self._partial = partial
        self._cache_seconds = cache_seconds
        self._check_timeout_seconds = check_timeout_seconds
        self._clock = clock
        self._started = clock()
        self._seen_well: set[str] = set()
        self._answer: Answer | None = None
        self._answered = 0.0
        self._lock = asyncio.Lock()

    async def answer(self) -> Answer:
        """Return what the checks and notes say, or said within the time for which an answer is given again."""
        async with self._lock:
            if self._answer is None or self._clock() - self._answered >= self._cache_seconds:
                checks = await _answers(self._checks, self._check_timeout_seconds)
                notes = await _notes(self._notes, self._check_timeout_seconds)
                flow = None if self._describe is None else self._describe(checks)
                self._answer = Answer(self._status(checks), checks, flow, notes)
                self._answered = self._clock()
            return self._answer

    def _status(self, answers: Mapping[str, str]) -> Status:
        self._seen_well |= {name for name, answer in answers.items() if answer == "ok"}
        starting = self._clock() - self._started < START_SECONDS
        away = {name for name, answer in answers.items() if answer != "ok"}
        needed = {name for name in away if name not in self._partial or (starting and name not in self._seen_well)}
        return "failed" if needed else "degraded" if away else "ok"


async def not_started() -> str:
    """Readiness check that stands for a part until there is one: a service that is starting is not ready."""
    return "not started yet"


async def _answers(checks: Mapping[str, Check], timeout_seconds: float) -> dict[str, str]:
    """Run all checks at once, each within the time."""

    async def run(check: Check) -> str:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await check() or "ok"
        except TimeoutError:
            return f"no answer within {timeout_seconds:g} s"
        except Exception as error:  # noqa: BLE001 - a check that fails in an unforeseen way has failed
            return f"{type(error).__name__}: {error}"

    names = list(checks)  # checks may be exchanged meanwhile
    answers = await asyncio.gather(*(run(check) for check in checks.values()))
    return dict(zip(names, answers, strict=True))


async def _notes(notes: Mapping[str, Check], timeout_seconds: float) -> dict[str, str]:
    """Return the notes; without those that can't be asked for just now, which a check says."""

    async def ask(note: Check) -> str | None:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await note()
        except Exception as error:  # noqa: BLE001 - as with checks; a missing note changes nothing for its readers
            log.debug("a note can't be asked for", error=f"{type(error).__name__}: {error}")
            return None

    names = list(notes)
    answers = await asyncio.gather(*(ask(note) for note in notes.values()))
    return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}
