"""The chart's README is written from its values, and each value says what it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.services import ROOT

VALUES = """\
# The comment above a value is its description.

# What a is.
a: 1
b:
  # What c is,
  # and more.
  c: {x: "y|z"}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a small chart."""
    chart = tmp_path / "infra/helm/sens-platform"
    chart.mkdir(parents=True)
    (chart / "values.yaml").write_text(VALUES)
    (chart / "Chart.yaml").write_text("description: A chart")
    (tmp_path / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools/chart_readme.py", tmp_path / "tools")
    return chart


def generate(chart: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = chart.parents[2] / "tools/chart_readme.py"
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


class TestReadme:
    def test_has_a_row_for_each_value_with_the_comment_right_above_it(self, repository: Path) -> None:
        assert generate(repository).returncode == 0
        rows = [line for line in (repository / "README.md").read_text().splitlines() if line.startswith("| `")]

        assert rows == ["| `a` | `1` | What a is. |", '| `b.c` | `{"x": "y\\|z"}` | What c is, and more. |']

    def test_is_checked_against_the_values(self, repository: Path) -> None:
        generate(repository)
        assert generate(repository, "--check").returncode == 0

        (repository / "values.yaml").write_text(VALUES.replace("a: 1", "a: 2"))
        result = generate(repository, "--check")

        assert result.returncode == 1
        assert "differs from values.yaml" in result.stdout

    def test_needs_a_comment_for_each_value(self, repository: Path) -> None:
        (repository / "values.yaml").write_text(VALUES + "  d: 2\n")
        result = generate(repository)

        assert result.returncode == 1
        assert "no comment says what these are: b.d" in result.stdout
