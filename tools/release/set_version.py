"""Writes the root version in all places. Called by scripts/set-version; needs Python alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.versions import ReleaseError, Version, root_version, successors
from tools.release.history import ROOT
from tools.release.places import ROOT_PLACE, write_version, written

STEPS: Final = ("patch", "minor", "major")


def main(arguments: Sequence[str]) -> int:
    """Write it and print what has changed; return 1 when it is refused."""
    parser = argparse.ArgumentParser(
        prog="scripts/set-version",
        description="Writes the root version in all places: pyproject.toml, and the chart's version and appVersion. "
        "scripts/version-check tells whether it may follow the previous one.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "version", help="three numbers, such as 0.5.0; or patch, minor or major: the next one after the present"
    )
    parser.add_argument("--folder", type=Path, default=ROOT, help="the clone; this repository by default")
    options = parser.parse_args(arguments)
    try:
        version = wanted(options.version, options.folder)
        changes = write_version(options.folder, version)
    except ReleaseError as error:
        print(f"scripts/set-version: {error}", file=sys.stderr)
        return 1
    print("\n".join(changes) if changes else f"All places say {version} already.")
    return 0


def wanted(text: str, folder: Path) -> Version:
    """Return the version that is asked for: as written, or the one that follows the present one.

    Raises:
        ReleaseError: It is not a root version, or the present one can't be read.
    """
    if text in STEPS:
        return successors(root_version(written(folder, ROOT_PLACE)))[STEPS.index(text)]
    return root_version(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
