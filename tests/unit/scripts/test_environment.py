"""What ``scripts/lib/environment.sh`` says when no Python will do. The interpreters and package managers are stand-ins."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "lib" / "environment.sh"
TOOLS = ("bash", "grep", "sed", "id", "cat")


def stand_in(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!{shutil.which('bash')}\n{script}\n")
    file.chmod(0o755)


def python(folder: Path, name: str, version: str, *, venv: bool) -> None:
    """Make an interpreter that tells its version, and has the venv module or not."""
    major_minor = tuple(map(int, version.split(".")[:2]))
    lines = [
        f'case "$2" in *print*) echo {version};;',
        f"*version_info*venv*|*venv*version_info*) exit {int(not (venv and major_minor >= (3, 12)))};;",
        f"*version_info*) exit {int(major_minor < (3, 12))};;",
        f"*venv*) exit {int(not venv)};; esac",
    ]
    stand_in(folder, name, "\n".join(lines))


def explanation(folder: Path) -> str:
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        if not (folder / tool).exists():
            (folder / tool).symlink_to(found)
    result = subprocess.run(
        [str(folder / "bash"), "-c", f"set -euo pipefail; . {shlex.quote(str(SCRIPT))}; sens_explain_python"],
        capture_output=True,
        text=True,
        env={"PATH": str(folder), "HOME": str(folder)},
        check=True,
    )
    assert result.stderr == ""
    return result.stdout


class TestAPythonThatIsTooOld:
    def test_is_named_with_its_version(self, tmp_path: Path) -> None:
        python(tmp_path, "python3", "3.9.2", venv=True)
        assert f"Python 3.9.2 ({tmp_path}/python3) is too old.\n" in explanation(tmp_path)

    def test_brings_a_newer_one_where_the_system_has_none(self, tmp_path: Path) -> None:
        python(tmp_path, "python3", "3.11.2", venv=True)
        stand_in(tmp_path, "apt-get", "")
        stand_in(tmp_path, "apt-cache", "echo '  Candidate: (none)'")
        assert f"On this system: {tmp_path}/python3 -m venv" in explanation(tmp_path)
        assert "uv python install 3.13\n" in explanation(tmp_path)

    @pytest.mark.parametrize(
        ("program", "script", "advice"),
        [
            (
                "apt-cache",
                "[ $2 = python3.12 ] && echo '  Candidate: 3.12.3'",
                "sudo apt install python3.12 python3.12-venv",
            ),
            ("uv", "", "uv python install 3.13"),
            ("brew", "", "brew install python@3.13"),
            ("dnf", "", "sudo dnf install python3.12"),
            ("apk", "", "apk add python3"),
        ],
    )
    def test_comes_with_the_command_of_the_systems_own(
        self, tmp_path: Path, program: str, script: str, advice: str
    ) -> None:
        python(tmp_path, "python3", "3.10.12", venv=False)
        stand_in(tmp_path, program, script)
        assert f"On this system: {advice}\n" in explanation(tmp_path)


class TestAPythonWithoutItsVenvModule:
    def test_is_told_from_one_that_is_too_old(self, tmp_path: Path) -> None:
        python(tmp_path, "python3", "3.13.5", venv=False)
        stand_in(tmp_path, "apt-get", "")
        told = explanation(tmp_path)
        assert "Python 3.13.5" in told
        assert "lacks its venv module" in told
        assert "On this system: sudo apt install python3.13-venv\n" in told


class TestNoPython:
    def test_is_said(self, tmp_path: Path) -> None:
        told = explanation(tmp_path)
        assert "No Python was found." in told
        assert "https://www.python.org/downloads/" in told


class TestTheFirstStart:
    def test_shows_how_far_it_is_while_it_installs(self, tmp_path: Path) -> None:
        for tool in ("bash", "cat", "cksum", "cp", "grep", "mkdir"):
            found = shutil.which(tool)
            assert found is not None
            (tmp_path / tool).symlink_to(found)
        # In the place of an interpreter that makes an environment, and of what is in it then.
        stand_in(tmp_path, "installed", "exit 0")
        stand_in(tmp_path, "base", "mkdir -p .venv/bin; cp installed .venv/bin/python; cp installed .venv/bin/uv")
        for file, text in {
            "requirements/bootstrap.txt": "",
            "requirements/run.txt": "one==1\ntwo==2\n",
            "services/cli/pyproject.toml": "",
            "pyproject.toml": "",
        }.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        script = f"set -euo pipefail; . {shlex.quote(str(SCRIPT))}; SENS_PYTHON=.venv/bin/python SENS_UV=.venv/bin/uv; "
        result = subprocess.run(
            [str(tmp_path / "bash"), "-c", f"{script} sens_make_environment run ./base"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
            check=False,
        )
        assert result.returncode == 0, result.stderr
        said = result.stderr.splitlines()
        assert said[0] == "Making the environment in .venv with ./base; this is done once, and takes a minute or so"
        assert said[1:] == [
            "  1 of 4: an empty environment",
            "  2 of 4: the installer",
            "  3 of 4: 2 packages from the package index",
            "  4 of 4: the platform itself",
        ]
