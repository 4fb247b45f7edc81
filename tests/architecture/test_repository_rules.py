"""The rules that `scripts/check` runs on the repository's files find what they are for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.services import ROOT

# In two parts, so that this file follows the rules itself.
INDEX = "https://py" + "pi.org/simple"
HOME = "/ho" + "me/somebody/"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository that follows the rules."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/repository_rules.py", tmp_path / "tools")
    for service, dependencies in {"common": '["msgspec>=0.20"]', "worker": '["sens-common", "numpy>=2.1"]'}.items():
        folder = tmp_path / "services" / service
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{service}"\ndependencies = {dependencies}\n')
    write(
        tmp_path,
        "requirements/dev.txt",
        "msgspec==0.21 \\\n    --hash=sha256:00\nnumpy==2.2 \\\n    --hash=sha256:00\n",
    )
    write(tmp_path, "requirements/worker.txt", (tmp_path / "requirements/dev.txt").read_text())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def write(repository: Path, name: str, text: str) -> None:
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def check(repository: Path, rule: str) -> tuple[int, str]:
    result = subprocess.run(
        [sys.executable, "-m", "tools.repository_rules", rule],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


class TestAddresses:
    def test_passes_a_repository_without_any(self, repository: Path) -> None:
        assert check(repository, "addresses") == (0, "")

    @pytest.mark.parametrize(
        ("name", "text", "found"),
        [
            ("docs/a.md", f"see {INDEX}/x", "docs/a.md:1: names a package registry"),
            ("settings.toml", f"a = 1\nindex-url = {INDEX}", "settings.toml:2: names a package registry"),
            ("Makefile", f"cd {HOME}project", "Makefile:1: names a home folder"),
            ("requirements/dev.txt", "a==1 --hash=sha256:00\nb @ https://example.org/b.whl", "a lock holds only names"),
            ("requirements/dev.txt", "--extra-index-url x\na==1", "a lock holds only names"),
        ],
    )
    def test_names_file_and_line(self, repository: Path, name: str, text: str, found: str) -> None:
        write(repository, name, text)

        code, output = check(repository, "addresses")

        assert code == 1
        assert found in output


class TestLocks:
    def test_passes_locks_that_hold_everything(self, repository: Path) -> None:
        assert check(repository, "locks") == (0, "")

    def test_names_a_requirement_that_is_missing(self, repository: Path) -> None:
        write(repository, "requirements/worker.txt", "msgspec==0.21\n")

        assert check(repository, "locks") == (
            1,
            "worker asks for numpy>=2.1, requirements/worker.txt lacks it: run ./scripts/lock\n",
        )

    def test_names_a_version_that_does_not_fit(self, repository: Path) -> None:
        write(repository, "requirements/worker.txt", "msgspec==0.21\nnumpy==2.0\n")

        assert check(repository, "locks") == (
            1,
            "worker asks for numpy>=2.1, requirements/worker.txt holds 2.0: run ./scripts/lock\n",
        )

    def test_looks_at_what_the_shared_code_asks_for(self, repository: Path) -> None:
        write(repository, "requirements/worker.txt", "numpy==2.2\n")

        assert "worker asks for msgspec>=0.20" in check(repository, "locks")[1]
