"""Compares the root version with the one before it. Called by scripts/version-check; needs Python and git alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.release.history import History
from scripts.lib.release.versions import ReleaseError, check_successor


def main(arguments: Sequence[str]) -> int:
    """Print what was compared; return 1 when the version is refused."""
    parser = argparse.ArgumentParser(
        prog="scripts/version-check",
        description="Compares the root version (pyproject.toml) with the previous one from git. Allowed are the same "
        "version, a later patch, the next minor with patch 0, and the next major with 0.0.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--base",
        help="the commit that this work started from: the target of a pull request, or the branch's commit before a push; "
        "found by itself when left out or empty",
    )
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="the clone; the working directory by default")
    options = parser.parse_args(arguments)
    try:
        history = History(options.folder)
        current = history.current()
        previous = history.previous(options.base)
        if previous is None:
            print(f"{current}: the first version")
            return 0
        check_successor(previous, current)
    except ReleaseError as error:
        print(f"scripts/version-check: {error}", file=sys.stderr)
        return 1
    print(f"{current}: {'unchanged' if current == previous else f'may follow {previous}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
