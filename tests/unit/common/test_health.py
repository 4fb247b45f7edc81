"""Problems by key."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from sens_common.health import Problems
from support.clocks import Clock


class TestProblems:
    async def test_one_that_is_solved_leaves_the_others(self) -> None:
        problems = Problems("store")
        problems.set("lane 0", "the database holds")
        problems.set("lane 1", "the log holds")
        problems.clear("lane 1")
        assert await problems.check() == "the database holds"

    def test_all_that_stand_are_told_each_once(self) -> None:
        problems = Problems("store")
        for key, problem in (("a", "one"), ("b", "two"), ("c", "one")):
            problems.set(key, problem)
        assert problems.problem == "one; two"

    def test_a_reason_that_says_all_stands_alone(self) -> None:
        problems = Problems("mqtt")
        problems.set("connection", "not connected", "the broker is away", why_says_all=True)
        assert problems.problem == "the broker is away"

    def test_none_is_well(self) -> None:
        problems = Problems("store")
        problems.set("a", "one")
        problems.clear("a")
        problems.clear("never set")
        assert problems.problem is None


class TestLog:
    """One event makes the log line, the metric and the answer of ``/readyz``."""

    def test_a_problem_is_logged_once_however_often_it_is_set(self) -> None:
        problems = Problems("store")
        with capture_logs() as lines:
            for _ in range(5):
                problems.set("lane 0", "the database does not store", "no answer in time", details={"messages": 3})

        assert lines == [
            {
                "event": "the database does not store",
                "error": "no answer in time",
                "part": "store",
                "messages": 3,
                "log_level": "warning",
            }
        ]

    def test_another_reason_is_logged(self) -> None:
        problems = Problems("store")
        with capture_logs() as lines:
            problems.set("lane 0", "the database does not store", "no answer in time")
            problems.set("lane 0", "the database does not store", "connection refused")

        assert [line["error"] for line in lines] == ["no answer in time", "connection refused"]

    def test_the_end_is_logged_once_with_how_long_it_lasted(self) -> None:
        clock = Clock(0.0)
        problems = Problems("store", clock=clock)
        problems.set("lane 0", "the database does not store", "no answer in time")
        clock.now = 4
        problems.set("lane 0", "the database does not store", "connection refused")
        clock.now = 12.34
        with capture_logs() as lines:
            problems.clear("lane 0")
            problems.clear("lane 0")

        assert lines == [
            {
                "event": "problem is over",
                "problem": "the database does not store",
                "part": "store",
                "seconds": 12.3,
                "log_level": "info",
            }
        ]

    def test_what_is_no_trouble_yet_is_told_and_not_logged_as_trouble(self) -> None:
        problems = Problems("mqtt")
        with capture_logs() as lines:
            problems.set("connection", "not connected yet", level="debug")
            told = problems.problem
            problems.clear("connection")

        assert told == "not connected yet"
        assert {line["log_level"] for line in lines} == {"debug"}

    def test_the_metric_counts_the_problems_of_the_part(self) -> None:
        problems = Problems("part of a test")
        counts = []
        for key in ("a", "b", "a"):
            problems.set(key, "it does not work")
            counts.append(count_of("part of a test"))
        for key in ("a", "b", "b"):
            problems.clear(key)
            counts.append(count_of("part of a test"))

        assert counts == [1, 2, 2, 1, 0, 0]


def count_of(part: str) -> float | None:
    return REGISTRY.get_sample_value("sens_service_problems_count", {"part": part})


class TestProblemsOfOneOfSeveral:
    def test_are_the_parts_and_its_own_until_they_are_over(self) -> None:
        every = Problems("brokers")
        first, second = every.of("broker a"), every.of("broker b")
        first.set("connection", "not connected", "no answer")
        second.set("connection", "not connected", "a can't be reached", why_says_all=True)
        told = every.problem
        first.clear("connection")
        left = (every.problem, first.problem, second.problem)
        second.clear_all()

        assert told == "broker a: not connected: no answer; broker b: a can't be reached"
        assert left == ("broker b: a can't be reached", None, "a can't be reached")
        assert every.problem is None
