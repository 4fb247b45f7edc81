"""Writes the root version in all places. Called by scripts/set-version; needs Python alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.versions import Version, root_version, successors
from tools.release.history import ROOT
from tools.release.program import add_folder, parser_of, run_program
from tools.release.version_lines import ROOT_LINE, write_version, written

_NAME: Final = "scripts/set-version"
STEPS: Final = ("patch", "minor", "major")


def main(arguments: Sequence[str]) -> int:
    """Write it and print what has changed; return 1 when it is refused."""
    parser = parser_of(
        _NAME,
        "Writes the root version in all places: pyproject.toml, and the chart's version and appVersion. "
        "scripts/version-check tells whether it may follow the previous one.",
    )
    parser.add_argument(
        "version", help="three numbers, such as 0.5.0; or patch, minor or major: the next one after the present"
    )
    add_folder(parser, ROOT, "this repository")
    options = parser.parse_args(arguments)
    return run_program(_NAME, lambda: changed(options.folder, wanted(options.version, options.folder)))


def changed(folder: Path, version: Version) -> list[str]:
    """Write a version, and return what has changed."""
    return write_version(folder, version) or [f"All places say {version} already."]


def wanted(text: str, folder: Path) -> Version:
    """Return the version that is asked for: as written, or the one that follows the present one.

    Raises:
        ReleaseError: It is not a root version, or the present one can't be read.
    """
    if text in STEPS:
        return successors(root_version(written(folder, ROOT_LINE)))[STEPS.index(text)]
    return root_version(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
