"""Attempts: how often, after which pauses, until when, and who is told."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sens_common.attempts import Attempt, Attempts, Backoff
from sens_common.errors import StoppedError
from sens_common.health import Problems

WHAT = "the stream does not take envelopes"


FROM_1_TO_5 = Backoff(1, 5)


class Time:
    """A clock that only sleeping, and the test, move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Retries:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def inc(self) -> None:
        self.count += 1


class Scene:
    """Attempts with a clock of the test's."""

    def __init__(
        self,
        *,
        backoff: Backoff | None = FROM_1_TO_5,
        interval_seconds: float | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.time = Time()
        self.problems = Problems("stream", clock=self.time.clock)
        self.retries = Retries()
        self.attempts = Attempts(
            self.problems,
            "publish",
            WHAT,
            retry_on=(ConnectionError, TimeoutError),
            backoff=backoff,
            interval_seconds=interval_seconds,
            stop=stop,
            retries=self.retries,
            details={"messages": 7},
            sleep=self.time.sleep,
            clock=self.time.clock,
        )

    async def run(self, *bodies: Exception | Callable[[Attempt], Awaitable[None]] | None) -> int:
        """Run attempts whose bodies raise, do or just end; return how many there were."""
        count = 0
        async for attempt in self.attempts:
            count += 1
            with attempt:
                body = bodies[attempt.number - 1]
                if isinstance(body, Exception):
                    raise body
                if body is not None:
                    await body(attempt)
        return count


class TestUntilItSucceeds:
    async def test_a_success_is_the_only_attempt(self) -> None:
        scene = Scene()

        assert await scene.run(None) == 1
        assert scene.time.slept == []

    async def test_the_pauses_double_up_to_the_longest(self) -> None:
        scene = Scene(backoff=Backoff(0.5, 3))

        assert await scene.run(*[ConnectionResetError()] * 5, None) == 6
        assert scene.time.slept == [0.5, 1, 2, 3, 3]

    async def test_each_run_begins_with_the_first_pause(self) -> None:
        scene = Scene()
        for _ in range(2):
            await scene.run(TimeoutError(), TimeoutError(), None)

        assert scene.time.slept == [1, 2, 1, 2]

    async def test_a_return_within_the_body_is_a_success(self) -> None:
        scene = Scene()

        async def publish() -> str:
            async for attempt in scene.attempts:
                with attempt:
                    if attempt.number < 3:
                        raise TimeoutError
                    return f"stored at attempt {attempt.number}"
            raise AssertionError

        assert await publish() == "stored at attempt 3"
        assert scene.problems.problem is None

    async def test_other_errors_pass_through(self) -> None:
        scene = Scene()
        with pytest.raises(ZeroDivisionError):
            await scene.run(ZeroDivisionError(), None)

        assert scene.time.slept == []

    async def test_a_group_is_tried_again_when_each_of_its_errors_may_be(self) -> None:
        scene = Scene()
        inner = ExceptionGroup("inner", [TimeoutError()])
        group = ExceptionGroup("tasks", [ConnectionResetError("reset"), inner, ConnectionResetError("reset")])
        with capture_logs() as lines:
            await scene.run(group, None)

        assert lines[0]["error"] == "reset; no answer in time"
        with pytest.raises(ExceptionGroup):
            await scene.run(ExceptionGroup("tasks", [TimeoutError(), ZeroDivisionError()]), None)

    async def test_a_body_outside_of_the_attempt_is_a_fault(self) -> None:
        scene = Scene()

        with pytest.raises(RuntimeError, match="with attempt"):
            async for _ in scene.attempts:
                pass

    def test_without_any_pause_they_are_refused(self) -> None:
        with pytest.raises(ValueError, match="back-off"):
            Scene(backoff=None)

    @given(first=st.floats(0.01, 10), factor=st.floats(1, 100), failures=st.integers(0, 12))
    def test_no_pause_is_shorter_than_the_one_before_or_longer_than_the_longest(
        self, first: float, factor: float, failures: int
    ) -> None:
        scene = Scene(backoff=Backoff(first, first * factor))

        assert asyncio.run(scene.run(*[TimeoutError()] * failures, None)) == failures + 1
        assert scene.time.slept == sorted(scene.time.slept)
        assert len(scene.time.slept) == failures
        assert all(first <= seconds <= first * factor for seconds in scene.time.slept)


class TestRun:
    async def test_returns_what_the_work_returns_in_the_end(self) -> None:
        answers = iter([TimeoutError(), TimeoutError(), None])

        async def work() -> str:
            answer = next(answers)
            if answer is not None:
                raise answer
            return "stored"

        scene = Scene()

        assert await scene.attempts.run(work) == "stored"
        assert scene.time.slept == [1, 2]

    async def test_says_that_the_stop_came_first(self) -> None:
        async def scenario() -> None:
            stop = asyncio.Event()

            async def work() -> None:
                stop.set()
                raise TimeoutError

            await Scene(stop=stop).attempts.run(work)

        with pytest.raises(StoppedError):
            await scenario()


class TestWhoIsTold:
    async def test_health_is_told_what_is_wrong_and_when_it_is_over(self) -> None:
        scene = Scene()
        told: list[str | None] = []

        async def look(_attempt: Attempt) -> None:
            told.append(scene.problems.problem)

        await scene.run(TimeoutError(), look)

        assert told == [f"{WHAT}: no answer in time"]
        assert scene.problems.problem is None

    async def test_the_log_gets_a_line_for_each_change_and_none_for_each_attempt(self) -> None:
        scene = Scene()
        with capture_logs() as lines:
            await scene.run(*[TimeoutError()] * 4, *[ConnectionResetError("reset")] * 4, None)

        assert [(line["event"], line.get("error"), line["log_level"]) for line in lines] == [
            (WHAT, "no answer in time", "warning"),
            (WHAT, "reset", "warning"),
            ("problem is over", None, "info"),
        ]
        assert lines[0]["messages"] == 7

    async def test_nobody_is_told_of_a_success_without_a_failure(self) -> None:
        scene = Scene()
        with capture_logs() as lines:
            await scene.run(None)

        assert lines == []
        assert scene.retries.count == 0

    async def test_each_attempt_that_is_tried_again_is_counted(self) -> None:
        scene = Scene()
        await scene.run(*[TimeoutError()] * 4, None)

        assert scene.retries.count == 4

    async def test_the_problem_stays_when_an_error_passes_through(self) -> None:
        scene = Scene()
        with pytest.raises(ZeroDivisionError):
            await scene.run(TimeoutError(), ZeroDivisionError())

        assert scene.problems.problem == f"{WHAT}: no answer in time"
        assert scene.retries.count == 1


class TestTheStop:
    async def test_there_is_no_attempt_after_it(self) -> None:
        stop = asyncio.Event()
        stop.set()
        assert (await Scene(stop=stop).run(None)) == 0

    async def test_it_ends_a_pause(self) -> None:
        stop = asyncio.Event()
        scene = Scene(stop=stop)

        async def sleep(_seconds: float) -> None:
            stop.set()
            await asyncio.get_running_loop().create_future()

        scene.attempts = Attempts(
            scene.problems, "publish", WHAT, retry_on=(TimeoutError,), backoff=Backoff(1, 1), stop=stop, sleep=sleep
        )
        assert (await scene.run(TimeoutError(), None)) == 1

    async def test_it_cuts_no_attempt_short(self) -> None:
        stop = asyncio.Event()
        finished = []

        async def body(_attempt: Attempt) -> None:
            stop.set()
            await asyncio.sleep(0)
            finished.append("attempt")
            raise TimeoutError

        assert await Scene(stop=stop).run(body, None) == 1
        assert finished == ["attempt"]


class TestWorkThatLasts:
    """A connection: it succeeds first, and fails later."""

    async def test_the_problem_is_over_while_the_attempt_goes_on(self) -> None:
        scene = Scene()
        told: list[str | None] = []

        async def connection(attempt: Attempt) -> None:
            attempt.succeed()
            told.append(scene.problems.problem)
            raise ConnectionResetError

        await scene.run(TimeoutError(), connection, None)

        assert told == [None]

    async def test_it_begins_with_the_first_pause_after_it_was_stable(self) -> None:
        scene = Scene(backoff=Backoff(1, 8, stable_seconds=30))

        def lasting(seconds: float) -> Callable[[Attempt], Awaitable[None]]:
            async def connection(attempt: Attempt) -> None:
                attempt.succeed()
                scene.time.now += seconds
                raise ConnectionResetError

            return connection

        await scene.run(TimeoutError(), TimeoutError(), lasting(29), lasting(30), lasting(1), None)

        assert scene.time.slept == [1, 2, 4, 1, 2]

    async def test_a_slow_failure_is_not_stable(self) -> None:
        scene = Scene(backoff=Backoff(1, 8, stable_seconds=30))

        async def slow(_attempt: Attempt) -> None:
            scene.time.now += 60
            raise TimeoutError

        await scene.run(slow, slow, None)

        assert scene.time.slept == [1, 2]


class TestWorkAtIntervals:
    async def test_it_goes_on_after_a_success(self) -> None:
        stop = asyncio.Event()
        scene = Scene(backoff=None, interval_seconds=60, stop=stop)

        async def last(_attempt: Attempt) -> None:
            stop.set()

        assert await scene.run(None, TimeoutError(), None, last) == 4
        assert scene.time.slept == [60, 60, 60]

    async def test_failures_have_their_own_pauses(self) -> None:
        stop = asyncio.Event()
        scene = Scene(interval_seconds=60, stop=stop)

        async def last(_attempt: Attempt) -> None:
            stop.set()

        await scene.run(None, TimeoutError(), TimeoutError(), None, TimeoutError(), last)
        assert scene.time.slept == [60, 1, 2, 60, 1]

    async def test_a_success_ends_the_problem(self) -> None:
        stop = asyncio.Event()
        scene = Scene(interval_seconds=60, stop=stop)

        async def last(_attempt: Attempt) -> None:
            stop.set()

        await scene.run(TimeoutError(), last)
        assert scene.problems.problem is None
