"""The commands in the documentation's pages, read as a shell reads them, so that tests can see whether they would work."""

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from support.services import ROOT

PAGES = ROOT / "docs"
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SEPARATORS = {"&&", "||", "|", ";"}


class Command(NamedTuple):
    """One command.

    Attributes:
        page: Where it stands, below ``docs``.
        words: Program and arguments, quotes removed; assignments before it and redirections left out.
    """

    page: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """Its first word."""
        return self.words[0]

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{self.page}: {shlex.join(self.words)}"

    def option(self, *names: str) -> str | None:
        """Return an option's value, ``--name value`` or ``--name=value``."""
        for index, word in enumerate(self.words):
            name, equals, value = word.partition("=")
            if name in names:
                return value if equals else self.words[index + 1]
        return None


def commands(page: str) -> Iterator[Command]:
    """Yield a page's commands; substitutions ``$(…)`` are commands of their own."""
    text = (PAGES / page).read_text(encoding="utf-8")
    for block in _BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield from _commands(page, line)


def _commands(page: str, line: str) -> Iterator[Command]:
    for inner in re.findall(r"\$\(([^()]*)\)", line):
        yield from _commands(page, inner)
    lexer = shlex.shlex(re.sub(r"\$\([^()]*\)", "SUBSTITUTED", line), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if word in _SEPARATORS:
            if program := _without_surroundings(words):
                yield Command(page, program)
            words = []
        elif word in {"<", ">", ">>", "<<<"}:
            redirected = True
        elif redirected:
            redirected = False
        else:
            words.append(word)


def _without_surroundings(words: list[str]) -> tuple[str, ...]:
    before = itertools.takewhile(lambda word: word == "sudo" or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", word), words)
    rest = tuple(words[len(list(before)) :])
    # Of "sudo -l" it is sudo itself that is called.
    return ("sudo", *rest) if rest and rest[0].startswith("-") else rest
