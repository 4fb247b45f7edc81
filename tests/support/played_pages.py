"""Pages of the documentation as a reader plays them: files from blocks with a title, commands from shell blocks, and the output that is shown."""

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from support.command_line import sens
from support.services import ROOT

_BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```', re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)
_KEY = re.compile(r"\bsens_[A-Za-z0-9_-]{43}\b")


class Outcome(NamedTuple):
    """What a command did.

    Attributes:
        code: Exit code.
        output: Standard output and errors.
    """

    code: int
    output: str


class Shown(NamedTuple):
    """A row of a table of latest values."""

    metric: str
    value: str


@dataclass(slots=True)
class Command:
    """A command.

    Attributes:
        program: ``sens``, or ``curl``.
        words: Its arguments.
        stdin: Name of the file that it reads.
        shown: The output that the page shows below it, empty where it shows none.
    """

    program: str
    words: tuple[str, ...]
    stdin: str | None = None
    shown: str = ""

    def __str__(self) -> str:
        """Return it as it is typed."""
        return shlex.join((self.program, *self.words))

    @property
    def sends(self) -> bool:
        """Tell whether it sends the message of the page."""
        return self.program == "curl" or self.words[0] == "publish"


@dataclass(slots=True)
class Section:
    """What a reader does in a page, or in one of its sections.

    Attributes:
        name: Of the page, and of the section.
        files: Texts of the files that are made, by their names.
        commands: In their order.
        scripts: What the operator does beside them, for a shell.
    """

    name: str
    files: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    def parts(self) -> tuple[list[Command], Command, Command, list[Command]]:
        """Return the commands before the message is sent, the one that sends it, the one that shows its values, and those behind."""
        at = next(index for index, command in enumerate(self.commands) if command.sends)
        return self.commands[:at], self.commands[at], self.commands[at + 1], self.commands[at + 2 :]


def page(name: str, replaced: Mapping[str, str]) -> Section:
    """Return a page of the documentation, in which some texts are others."""
    return _section(name, _text(name, replaced))


def sections(name: str, replaced: Mapping[str, str]) -> Iterator[Section]:
    """Yield the sections of a page that have commands."""
    _, *parts = _SECTION.split(_text(name, replaced))
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        section = _section(f"{name}, {title}", text)
        if section.commands:
            yield section


def latest_values(text: str) -> set[Shown]:
    """Return metrics and values of what ``sens latest DEVICE`` shows."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[1:]]
    return {Shown(row[0], row[1]) for row in rows if len(row) > 1}


def _text(name: str, replaced: Mapping[str, str]) -> str:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for old, new in replaced.items():
        text = text.replace(old, new)
    return text


def _section(name: str, text: str) -> Section:
    section = Section(name)
    for block in _BLOCK.finditer(text):
        if block["title"]:
            section.files[block["title"]] = block["text"]
        elif block["language"] == "sh":
            section.commands += [_command(line) for line in block["text"].replace("\\\n", " ").splitlines()]
        elif block["language"] == "bash":
            section.scripts.append(block["text"])
        elif block["language"] == "text" and section.commands:
            section.commands[-1].shown = block["text"]
    return section


def _command(line: str) -> Command:
    program, *words = shlex.split(line, comments=True)
    assert program in {"sens", "curl"}, f"{line}: only sens and curl are played"
    if "<" in words:
        at = words.index("<")
        return Command(program, tuple(words[:at]), words[at + 1])
    return Command(program, tuple(words))


class Reader:
    """Plays commands in the process of the test, in a folder, as a tenant.

    Attributes:
        folder: Where files are made.
        ingest_key: The last one that a command has shown; it stands for ``KEY``.
    """

    def __init__(self, folder: Path, api_key: str, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._api_key = api_key
        self._capture = capture
        self.ingest_key = ""

    def write(self, section: Section) -> None:
        """Make the files of a section."""
        for name, text in section.files.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def run(self, script: str) -> None:
        """Do what the operator does, in the folder."""
        subprocess.run(["bash", "-euc", script], cwd=self.folder, check=True)

    def play(self, command: Command) -> Outcome:
        """Run a command."""
        words = [word.replace("KEY", self.ingest_key) if self.ingest_key else word for word in command.words]
        outcome = self._post(words) if command.program == "curl" else self._sens(words, command.stdin)
        if key := _KEY.search(outcome.output):
            self.ingest_key = key[0]
        return outcome

    def _sens(self, words: list[str], stdin: str | None) -> Outcome:
        self._capture.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("SENS_API_KEY", self._api_key)
            if stdin is not None:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((self.folder / stdin).read_bytes())))
            code = sens(*words)
        written = self._capture.readouterr()
        return Outcome(code, written.out + written.err)

    def _post(self, words: list[str]) -> Outcome:
        """Do what ``curl -H HEADER --data-binary @FILE URL`` does."""
        assert [words[0], words[2]] == ["-H", "--data-binary"], words
        name, _, value = words[1].partition(": ")
        body = (self.folder / words[3].removeprefix("@")).read_bytes()
        try:
            answer = httpx2.post(words[4], content=body, headers={name: value}, trust_env=False)
        except httpx2.TransportError as error:
            return Outcome(7, str(error))
        return Outcome(0 if answer.is_success else 22, f"{answer.status_code} {answer.text}")
