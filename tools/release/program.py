"""What the programs of releases have in common: how they end, and the options that several of them take."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from sens_cli.release.versions import ReleaseError


def printable(text: str) -> str:
    """Return a foreign text as one line without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def parsed(text: str | bytes, maximum: int) -> object:
    """Return the document that a foreign text is as JSON; None when it is none, or longer than the maximum."""
    try:
        return json.loads(text) if len(text) <= maximum else None
    except (ValueError, RecursionError):
        return None


def run_program(name: str, work: Callable[[], str | Iterable[str]]) -> int:
    """Print what a program has done, and return its exit code: 1, with the reason on the standard error, when it is refused."""
    try:
        said = work()
        for line in [said] if isinstance(said, str) else said:
            print(line)
    except (ReleaseError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def parser_of(name: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of a program's command line; what is wrong there ends it with exit code 2."""
    return argparse.ArgumentParser(prog=name, description=description, epilog=epilog, allow_abbrev=False)


def add_folder(parser: argparse.ArgumentParser, default: Path, said: str) -> None:
    """Add the option that names the clone; ``said`` tells what it is by default."""
    parser.add_argument("--folder", type=Path, default=default, help=f"the clone; {said} by default")
