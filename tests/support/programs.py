"""Programs of a test's own in the place of real ones, which write down how they are called."""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

_BEGINNING = (
    f"#!{sys.executable} -IS\n"
    """\
import json, os, sys, time
from pathlib import Path
here, name, arguments = Path(__file__).parent, Path(__file__).name, sys.argv[1:]
given = "" if sys.stdin.isatty() else sys.stdin.read()
with (here / f"{name}.calls").open("a") as calls:
    print(json.dumps([arguments, given]), file=calls)
"""
)


class Call(NamedTuple):
    """How a program was called: its arguments, and what was on its standard input."""

    arguments: list[str]
    given: str


class Programs:
    """A folder that programs are looked for in first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, python: str = "") -> None:
        """Put a program there, which does this after it has written down its call (``arguments``, ``given``, ``here``)."""
        (self.folder / name).write_text(_BEGINNING + python, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def calls(self, name: str) -> list[Call]:
        """Return how a program was called, each time."""
        file = self.folder / f"{name}.calls"
        return [Call(*json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A folder without a program yet."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return Programs(folder)
