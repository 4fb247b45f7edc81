"""Attempts: doing something again until it succeeds, with growing pauses, until the stop; written once for every service.

::

    attempts = Attempts(
        problems, "publish", "the stream does not take envelopes",
        retry_on=(NatsError, TimeoutError), backoff=Backoff(0.1, 5), stop=stop,
    )

    async for attempt in attempts:
        with attempt:
            ...

    stored_as = await attempts.run(lambda: publish(envelope))  # the same for a single call

What happens, and who is told:

- The body ends, also by ``return``: that was a success. The problem is over, and so are the attempts.
- The body raises one of the errors in ``retry_on`` (or an exception group of nothing else): the problem is set under its key, with the
  error's words; see `sens_common.health.Problems` for what is logged, counted and answered, once for each change and not for each attempt.
  After a pause there is another attempt.
- The body raises anything else: it passes through, and the problem stays as it is.
- The stop comes during a pause or an attempt: there is no further attempt, and the loop ends. The attempt itself is not cut short: who wants
  that races its work with the stop (`sens_common.stopping.Race`); a `StoppedError` passes through like any other error.

Work that lasts, such as a connection, calls `Attempt.succeed` as soon as it works. Work that is done at intervals gives ``interval_seconds``:
it goes on after a success.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from sens_common.errors import StoppedError, words_of
from sens_common.health import Problems
from sens_common.stopping import before_stop


class Backoff(NamedTuple):
    """How long to pause after a failure: each time twice as long as before.

    Attributes:
        first_seconds: The first pause.
        last_seconds: The longest one.
        stable_seconds: What had succeeded (`Attempt.succeed`) and then failed begins again with the first pause if the attempt lasted at
            least so long.
    """

    first_seconds: float
    last_seconds: float
    stable_seconds: float = 0.0


class EventCounter(Protocol):
    """Counts what happens; a metric, for example."""

    def inc(self) -> None:
        """Count one more."""


class AttemptOutcome(Enum):
    """What became of an attempt."""

    UNDER_WAY = "under way"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It may be tried again."""


class Attempts:
    """How something is attempted. Holds no state of a run: each ``async for`` begins with the first attempt and the first pause."""

    def __init__(
        self,
        problems: Problems,
        key: str,
        what: str,
        *,
        retry_on: tuple[type[Exception], ...],
        backoff: Backoff | None = None,
        interval_seconds: float | None = None,
        stop: asyncio.Event | None = None,
        words: Callable[[Exception], str] = words_of,
        why_says_all: bool = False,
        retries: EventCounter | None = None,
        details: Mapping[str, object] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Say how.

        Args:
            problems: Where to tell what is wrong, and when it is over.
            key: Of the problem there.
            what: What is wrong while attempts fail, as a sentence without its reason.
            retry_on: Errors after which it may be tried again.
            backoff: The pauses after failures; without it, they are ``interval_seconds`` long.
            interval_seconds: The pause after a success, where the work is done again and again; None where a success is the end.
            stop: Ends the attempts; without it, only success and errors that are not in ``retry_on`` do.
            words: Gives an error's reason, the part of the problem that follows ``what``.
            why_says_all: Whether that reason is a sentence of its own; see `Problems.set`.
            retries: Counts the attempts that failed and are tried again.
            details: More fields of the log lines about failures.
            sleep: Sleeps for so many seconds.
            clock: Seconds; tells how long an attempt lasted.
        """
        if backoff is None:
            if interval_seconds is None:
                raise ValueError("attempts need a back-off, an interval, or both")
            backoff = Backoff(interval_seconds, interval_seconds)
        self.backoff = backoff
        self.interval_seconds = interval_seconds
        self.retry_on = retry_on
        self.clock = clock
        self._problems = problems
        self._key = key
        self._what = what
        self._stop = stop
        self._words = words
        self._why_says_all = why_says_all
        self._retries = retries
        self._details = details
        self._sleep = sleep

    def __aiter__(self) -> "_Run":
        """Begin a run of attempts."""
        return _Run(self)

    async def run[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Attempt the work until it succeeds; return its result.

        Raises:
            StoppedError: The stop came first.
            Exception: What the work raises and is not in ``retry_on``.
        """
        async for attempt in self:
            with attempt:
                return await work()
        raise StoppedError("told to stop")

    @property
    def is_stopped(self) -> bool:
        """Whether the stop has come."""
        return self._stop is not None and self._stop.is_set()

    async def pause(self, seconds: float) -> None:
        """Wait for the time or for the stop, whichever comes first."""
        if self._stop is None:
            await self._sleep(seconds)
            return
        with suppress(StoppedError):
            await before_stop(self._stop, self._sleep(seconds))

    def tell_success(self) -> None:
        """Say that nothing is wrong any more."""
        self._problems.clear(self._key)

    def tell_failure(self, error: Exception) -> None:
        """Say what is wrong."""
        if self._retries is not None:
            self._retries.inc()
        why = "; ".join(dict.fromkeys(self._words(leaf) for leaf in _leaves(error)))
        self._problems.set(self._key, self._what, why, why_says_all=self._why_says_all, details=self._details)


class Attempt:
    """One attempt, a context manager for its body.

    Attributes:
        number: 1 for the first one of the run.
        outcome: What became of it so far.
    """

    __slots__ = ("_attempts", "_has_worked", "_seconds", "_started", "number", "outcome")

    def __init__(self, attempts: Attempts, number: int) -> None:
        self.number = number
        self.outcome = AttemptOutcome.UNDER_WAY
        self._attempts = attempts
        self._started = attempts.clock()
        self._has_worked = False
        self._seconds = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        """Note what became of it; an error that may be tried again ends here."""
        if error is None:
            self.succeed()
            self.outcome = AttemptOutcome.SUCCEEDED
            return False
        self._seconds = self._attempts.clock() - self._started
        if not isinstance(error, Exception) or not _may_retry(error, self._attempts.retry_on):
            return False
        self.outcome = AttemptOutcome.FAILED
        self._attempts.tell_failure(error)
        return True

    def succeed(self) -> None:
        """Say that it works, for work that goes on after that: the problem is over."""
        self._has_worked = True
        self._attempts.tell_success()

    @property
    def was_stable(self) -> bool:
        """Whether it has worked, and lasted for long enough to begin again with the first pause."""
        return self._has_worked and self._seconds >= self._attempts.backoff.stable_seconds


class _Run:
    """The attempts of one ``async for``."""

    __slots__ = ("_attempt", "_attempts", "_number", "_pause_seconds")

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._attempt: Attempt | None = None
        self._number = 0
        self._pause_seconds = attempts.backoff.first_seconds

    def __aiter__(self) -> Self:
        """Return the run itself."""
        return self

    async def __anext__(self) -> Attempt:
        """Return the next attempt, after a pause where there was one before."""
        attempts = self._attempts
        if self._attempt is not None:
            await attempts.pause(self._next_pause(self._attempt))
        if attempts.is_stopped:
            raise StopAsyncIteration
        self._number += 1
        self._attempt = Attempt(attempts, self._number)
        return self._attempt

    def _next_pause(self, attempt: Attempt) -> float:
        """Return how long to pause after an attempt.

        Raises:
            StopAsyncIteration: It succeeded, and that is the end.
        """
        backoff = self._attempts.backoff
        if attempt.outcome is AttemptOutcome.UNDER_WAY:
            raise RuntimeError("an attempt's body belongs into `with attempt:`")
        if attempt.outcome is AttemptOutcome.SUCCEEDED:
            if self._attempts.interval_seconds is None:
                raise StopAsyncIteration
            self._pause_seconds = backoff.first_seconds
            return self._attempts.interval_seconds
        if attempt.was_stable:
            self._pause_seconds = backoff.first_seconds
        seconds = self._pause_seconds
        self._pause_seconds = min(seconds * 2, backoff.last_seconds)
        return seconds


def _leaves(error: Exception) -> list[Exception]:
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


def _may_retry(error: Exception, retry_on: tuple[type[Exception], ...]) -> bool:
    return isinstance(error, retry_on) or (
        isinstance(error, ExceptionGroup) and all(_may_retry(each, retry_on) for each in error.exceptions)
    )
