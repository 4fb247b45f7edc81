"""Problems by key."""

import asyncio

from sens_common.health import Problems


class TestProblems:
    def test_one_that_is_solved_leaves_the_others(self) -> None:
        problems = Problems()
        problems.set("lane 0", "the database holds")
        problems.set("lane 1", "the log holds")
        problems.clear("lane 1")
        assert asyncio.run(problems.check()) == "the database holds"

    def test_all_that_stand_are_told_each_once(self) -> None:
        problems = Problems()
        for key, problem in (("a", "one"), ("b", "two"), ("c", "one")):
            problems.set(key, problem)
        assert problems.problem == "one; two"

    def test_none_is_well(self) -> None:
        problems = Problems()
        problems.set("a", "one")
        problems.clear("a")
        problems.clear("never set")
        assert problems.problem is None
