"""A run's plan and result, without a run."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tools.torture.faults import faults
from tools.torture.results import Group, Result, insert, table
from tools.torture.schedule import chosen

RESULT = Result(
    7,
    "mosquitto",
    300,
    2,
    90,
    1000,
    3,
    999,
    5,
    2,
    0,
    [],
    {"a process killed": Group(2, 1000, [1.5, 0.5])},
    {"kill": {}},
    "PostgreSQL 18.6",
    {"partitions dropped": 1234, "DeadlockDetectedError": 1},
)


class TestPlan:
    def test_is_the_same_for_the_same_seed(self) -> None:
        every = faults(broker_restarts=True, disks=True)
        first, second = (chosen(every, 200, random.Random(5)) for _ in range(2))
        assert first == second
        assert first != chosen(every, 200, random.Random(6))

    def test_leaves_out_what_would_last_too_long(self) -> None:
        order = chosen(faults(broker_restarts=True, disks=True), 500, random.Random(1), short=(0.1, 1), longest=2)
        assert all(planned.seconds <= 2 for planned in order)
        assert not any("minutes" in planned.fault.name for planned in order)

    def test_holds_every_kind_that_it_can(self) -> None:
        every = faults(broker_restarts=True, disks=True)
        assert {planned.fault.name for planned in chosen(every, 500, random.Random(1))} == {
            fault.name for fault in every
        }


class TestResult:
    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        RESULT.write(tmp_path / "result.json")
        assert Result.read(tmp_path / "result.json") == RESULT

    def test_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "other.json").write_text("{}")
        with pytest.raises(ValueError, match="is not a result"):
            Result.read(tmp_path / "other.json")

    def test_adds_up_runs_in_a_table(self) -> None:
        lines = table([RESULT, RESULT]).splitlines()
        assert (
            lines[2]
            == lines[3]
            == "| mosquitto | PostgreSQL 18.6 | 7 | 2 | 2 | 1,000 | 999 | 2 | 5 | 0 | 1,234 | none |"
        )
        assert lines[-1] == "| A process killed | 4 | 2,000 | 1.5 s | 1.5 s |"

    def test_says_what_the_broker_has_lost(self) -> None:
        line = table([replace(RESULT, broker_lost=1234)]).splitlines()[2]
        assert line.endswith("| none; 1,234 lost by the killed broker |")

    def test_goes_between_the_marks_of_a_page(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("a\n<!-- scripts/torture --table: begin -->\nold\n<!-- scripts/torture --table: end -->\nb\n")
        insert(page, "new\n")
        assert page.read_text().splitlines()[2] == "new"
        page.write_text("nothing\n")
        with pytest.raises(ValueError, match="no place for the table"):
            insert(page, "new\n")
