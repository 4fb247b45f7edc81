"""Compares the root version with the one before it, and with the other places that have it. Called by scripts/version-check; needs Python and git alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sens_cli.release.versions import ReleaseError, next_root_version
from tools.release.history import ROOT, History, Previous
from tools.release.places import check_places


def main(arguments: Sequence[str]) -> int:
    """Print what was compared; return 1 when the version is refused."""
    parser = argparse.ArgumentParser(
        prog="scripts/version-check",
        description="Compares the root version (pyproject.toml) with the previous one from git. Allowed are the same "
        "version, a later patch, the next minor with patch 0, and the next major with 0.0. The chart has to have the same version.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--base",
        help="what this work is added to: the target of a pull request (origin/main), or the branch's commit before a push; "
        "the remote's main branch when left out, empty, all zeros, or a full commit that is not there any more",
    )
    parser.add_argument("--folder", type=Path, default=ROOT, help="the clone; this repository by default")
    options = parser.parse_args(arguments)
    try:
        history = History(options.folder)
        line = compare(history, options.base)
        check_places(options.folder, history.current())
        print(line)
    except ReleaseError as error:
        print(f"scripts/version-check: {error}", file=sys.stderr)
        return 1
    return 0


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
