"""How pytest hands the tests out to several processes (tests/support/processes.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import SHARED, THE_PLATFORM

ROOT = Path(__file__).parents[3]

NOTES_ITS_PROCESS = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(6))
def test_notes_its_process(number):
    with pathlib.Path(__file__).with_suffix(".processes").open("a") as file:
        file.write(f"{os.getpid()}\\n")
"""
ENDS_ITS_PROCESS = """
import os, pathlib

def test_ends_its_process():
    with pathlib.Path(__file__).with_suffix(".processes").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    os._exit(1)
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder in two processes, as those of the repository are handed out."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        folder,
        "-p",
        "support.processes",
        "-p",
        "no:schemathesis",
        "-n",
        "2",
        folder,
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=110
    )


def processes(file: Path) -> list[str]:
    return file.with_suffix(".processes").read_text().split()


def test_the_repository_s_tests_are_handed_out_so(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("support.processes")


def test_the_tests_of_a_file_share_a_process(tmp_path: Path) -> None:
    files = [tmp_path / f"test_{name}.py" for name in ("one", "two", "three")]
    for file in files:
        file.write_text(NOTES_ITS_PROCESS)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [len(processes(file)) for file in files] == [6, 6, 6]
    assert [len(set(processes(file))) for file in files] == [1, 1, 1]


def test_a_test_that_ends_its_process_fails_and_is_not_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "test_end.py"
    file.write_text(ENDS_ITS_PROCESS)
    done = run(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "crashed while running 'test_end.py::test_ends_its_process'" in done.stdout
    assert len(processes(file)) == 1


def test_files_that_share_the_platform_share_a_process() -> None:
    using = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "tests/connected").rglob("test_*.py")
        if "platform: Platform" in file.read_text(encoding="utf-8")
    }
    assert using == {file for file, shared in SHARED.items() if shared == THE_PLATFORM}
