"""The check of retired words finds them, and nothing else."""

import pytest

from tools.vocabulary import Retired, found_in, retired

WORDS = [
    Retired("place", "code", "position"),
    Retired("LogEntry", "code", "envelope"),
    Retired("_settle", "code", "process"),
    Retired("stands twice", "text", "is there twice"),
]


class TestTable:
    def test_gives_each_term_with_where_and_what_to_say(self) -> None:
        page = "| Retired | Where | Say |\n| --- | --- | --- |\n| `rig`, `Rig` | code | stack |\n| `anew` | text | again, new |\n"

        assert retired(page) == [
            Retired("rig", "code", "stack"),
            Retired("Rig", "code", "stack"),
            Retired("anew", "text", "again, new"),
        ]

    def test_that_is_missing_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no table of retired words"):
            retired("# Vocabulary\n")


class TestNames:
    @pytest.mark.parametrize(
        "line",
        ["place = 1", "def take_place(): ...", "class PlaceOf: ...", "x.place()", "class LogEntry: ...", "_settle()"],
    )
    def test_with_a_retired_word_are_found(self, line: str) -> None:
        [found] = found_in("a.py", f"\n{line}\n", WORDS)

        assert found.startswith("a.py:2: ")
        assert "is retired: " in found

    @pytest.mark.parametrize(
        "line",
        ["replace = 1", "placeholder()", "# the place\n", "'place'", "LogEntries()", "x_settle()", "marketplace"],
    )
    def test_that_only_look_like_one_are_not(self, line: str) -> None:
        assert list(found_in("a.py", line, WORDS)) == []

    def test_are_looked_for_in_python_only(self) -> None:
        assert list(found_in("a.md", "place", WORDS)) == []


class TestTexts:
    @pytest.mark.parametrize("text", ["it stands twice there", "It Stands\ntwice."])
    def test_with_retired_words_are_found(self, text: str) -> None:
        assert list(found_in("a.md", f"# A\n{text}", WORDS)) == ["a.md:2: 'stands twice' is retired: is there twice"]

    def test_without_are_not(self) -> None:
        assert list(found_in("a.md", "it understands twice as much", WORDS)) == []
