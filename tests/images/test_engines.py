"""What docker and podman are told is what their own help says they accept; no service of theirs has to run."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from support.images import understands_secrets
from tools.images.builders import Build, Engine, Run

BUILD = Build(
    context=Path("/context"),
    target="docs",
    reference="localhost/docs:1.2.3",
    arguments={"SERVICE": "docs"},
    secrets={"pip.conf": Path("/secrets/pip.conf")},
    epoch=1_700_000_000,
    uncached=True,
)
RUN = Run("localhost/docs:1.2.3", {"SENS_HTTP__PORT": "8080"}, ("/tmp",), ("python", "-m", "x"))  # noqa: S108

OPTION = re.compile(r"^\s+(?:-\w, )?--([\w-]+)(?: (\S+))?(?:\s{2,}|$)", re.MULTILINE)


# Writes its arguments into a file of its own, and answers with a number.
STAND_IN = """#!/bin/sh
file=$(mktemp "$SENS_TEST_TOLD/XXXXXXXX")
printf '%s\\0' "$@" >"$file"
echo 1
"""


class Command(NamedTuple):
    """A command line, as the engine's own help divides it."""

    words: str
    options: tuple[str, ...]
    operands: tuple[str, ...]


class Told(NamedTuple):
    """An engine whose command is a stand-in that writes down what it is told, and the real command, which is asked for its help."""

    engine: Engine
    program: str
    folder: Path

    @property
    def commands(self) -> dict[str, Command]:
        """Return what it was told, by the words before the first option."""
        commands = [self._divide(file.read_text().split("\0")[:-1]) for file in self.folder.iterdir()]
        return {command.words: command for command in commands}

    def _divide(self, arguments: list[str]) -> Command:
        count = 2 if arguments[0] == "image" else 1
        words, rest = arguments[:count], arguments[count:]
        shown = subprocess.run([self.program, *words, "--help"], capture_output=True, text=True, check=True).stdout
        takes_value = {name: bool(kind) for name, kind in OPTION.findall(shown)}
        options = []
        while rest and rest[0].startswith("--"):
            name = rest.pop(0).removeprefix("--")
            assert name in takes_value, f"{self.engine.name} {' '.join(words)} has no --{name}"
            options.append(name)
            if takes_value[name]:
                rest.pop(0)
        return Command(" ".join(words), tuple(options), tuple(rest))


@pytest.fixture(params=["docker", "podman"])
def told(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Each of the two, where its command is installed."""
    name: str = request.param
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"not run: no {name}")
    programs, folder = tmp_path / "programs", tmp_path / "told"
    programs.mkdir()
    folder.mkdir()
    stand_in = programs / name
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SENS_TEST_TOLD", str(folder))
    return Told(Engine(name), program, folder)


class TestBuilding:
    def test_names_the_folder_after_options_that_exist(self, told: Told) -> None:
        if not understands_secrets(told.program):
            pytest.skip(f"not run: {told.engine.name} has no buildx")
        told.engine.build(BUILD)

        command = told.commands["build"]
        assert command.operands == ("/context",)
        assert {"target", "tag", "build-arg", "secret", "no-cache"} <= set(command.options)


class TestRunning:
    def test_keeps_the_root_read_only_and_names_the_image_after_options_that_exist(
        self, told: Told, tmp_path: Path
    ) -> None:
        with told.engine.start(RUN, tmp_path / "log") as process:
            process.ask_to_end()
            process.wait(20)

        commands = told.commands
        assert commands["run"].operands == ("localhost/docs:1.2.3", "-m", "x")
        assert {"read-only", "cap-drop", "security-opt", "tmpfs", "env", "entrypoint"} <= set(commands["run"].options)
        assert commands["kill"].options == ("signal",)
        assert commands["kill"].operands == commands["rm"].operands
        assert len(commands["rm"].operands) == 1


class TestImages:
    def test_are_made_asked_for_and_removed_by_commands_that_exist(self, told: Told) -> None:
        told.engine.load(Path("base.tar"), "localhost/base:1")
        assert told.engine.exists("localhost/base:1")
        told.engine.size_bytes("localhost/base:1")
        told.engine.remove("localhost/base:1")

        assert {words: command.operands for words, command in told.commands.items()} == {
            "import": ("base.tar", "localhost/base:1"),
            "image inspect": ("localhost/base:1",),
            "image rm": ("localhost/base:1",),
        }
