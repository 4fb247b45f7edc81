"""Compares the root version with the one before it, and with the other places that have it. Called by scripts/version-check; needs Python and git alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.versions import ReleaseError, next_root_version
from tools.release.history import ROOT, History, Previous
from tools.release.program import add_folder, parser_of, run_program
from tools.release.version_lines import check_version_lines

_NAME: Final = "scripts/version-check"


def main(arguments: Sequence[str]) -> int:
    """Print what was compared; return 1 when the version is refused."""
    parser = parser_of(
        _NAME,
        "Compares the root version (pyproject.toml) with the previous one from git. Allowed are the same "
        "version, a later patch, the next minor with patch 0, and the next major with 0.0. The chart has to have the same version.",
    )
    parser.add_argument(
        "--base",
        help="what this work is added to: the target of a pull request (origin/main), or the branch's commit before a push; "
        "the remote's main branch when left out, empty, all zeros, or a full commit that is not there any more",
    )
    add_folder(parser, ROOT, "this repository")
    options = parser.parse_args(arguments)
    return run_program(_NAME, lambda: checked(options.folder, options.base))


def checked(folder: Path, base: str | None) -> str:
    """Compare the versions, see that all lines have the same one, and return what was compared.

    Raises:
        ReleaseError: The version is refused, or a line has another one.
    """
    history = History(folder)
    line = compare(history, base)
    check_version_lines(folder, history.current())
    return line


def compare(history: History, base: str | None) -> str:
    """Return what was compared, as one line.

    Raises:
        ReleaseError: The version is refused, or git can't tell the one before it.
    """
    text = history.declared()
    previous = history.previous(base)
    if previous is None:
        return f"{next_root_version(text, None)}: the first version"
    try:
        current = next_root_version(text, previous.version)
    except ReleaseError as error:
        raise ReleaseError(f"{error} {_seen(previous)}") from error
    relation = "unchanged" if current == previous.version else f"may follow {previous.version}"
    return f"{current}: {relation}. {_seen(previous)}"


def _seen(previous: Previous) -> str:
    return f"{previous.version} is the version of commit {previous.commit[:12]}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
