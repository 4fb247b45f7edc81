"""Finds retired words: ``python -m tools.vocabulary``; the table in docs/contributing/vocabulary.md says which are."""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = Path("docs/contributing/vocabulary.md")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ROW = re.compile(r"^\| (?P<terms>`[^|]+`) \| (?P<where>code|text) \| (?P<say>[^|]+) \|$", re.MULTILINE)
_TEXTS: Final = {".md", ".py", ".sql", ".sh", ".yaml", ".yml", ".toml", ".tpl", ".txt", ".html", ".css", ""}


class Retired(NamedTuple):
    """A word that is not used any more.

    Attributes:
        term: A name, a part of names (in small letters), or words of a text.
        where: ``code`` for names in Python, ``text`` for all that people read.
        say: What to use instead.
    """

    term: str
    where: str
    say: str


def retired(page: str) -> list[Retired]:
    """Return the words that the page retires.

    Raises:
        ValueError: The page has no such table.
    """
    rows = [
        Retired(term, row["where"], row["say"].strip())
        for row in _ROW.finditer(page)
        for term in re.findall(r"`([^`]+)`", row["terms"])
    ]
    if not rows:
        raise ValueError(f"{PAGE} has no table of retired words")
    return rows


def found_in(name: str, text: str, words: Sequence[Retired]) -> Iterator[str]:
    """Yield a line for each retired word in a file.

    Args:
        name: The file's path; names in code are looked for in Python only.
        text: Its text.
        words: What to look for.
    """
    for word in words:
        if word.where == "text":
            pattern = re.compile(rf"\b{re.escape(word.term)}\b".replace(r"\ ", r"\s+"), re.IGNORECASE)
            for match in pattern.finditer(text):
                yield f"{name}:{text.count('\n', 0, match.start()) + 1}: {word.term!r} is retired: {word.say}"
    if name.endswith(".py"):
        whole = {word.term: word for word in words if word.where == "code"}
        for line, identifier in _names(text):
            for part in (identifier, *(piece.lower() for piece in _WORD.findall(identifier))):
                if part in whole:
                    yield f"{name}:{line}: {part!r} in {identifier} is retired: {whole[part].say}"
                    break


def _names(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def _committed() -> Iterator[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    yield from (name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file())


def main() -> int:
    """Print what is found; return the exit code."""
    words = retired((ROOT / PAGE).read_text(encoding="utf-8"))
    lines = [
        line
        for name in _committed()
        if Path(name).suffix in _TEXTS and name not in {str(PAGE), "tests/architecture/test_vocabulary.py"}
        for line in found_in(name, (ROOT / name).read_text(encoding="utf-8"), words)
    ]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
