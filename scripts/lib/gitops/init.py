"""Writes the GitOps repository. Called by scripts/gitops-init; needs Python alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.lib.gitops.parameters import choose, parse_setting, read_parameters, read_values
from scripts.lib.gitops.template import files, write
from scripts.lib.release.versions import ReleaseError

_ROOT: Final = Path(__file__).resolve().parents[3]
_GITOPS: Final = _ROOT / "infra" / "gitops"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="scripts/gitops-init",
        description="Writes the GitOps repository of an installation, from infra/gitops, into an empty folder.",
        epilog="The parameters are in infra/gitops/parameters.toml.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="where it is written to: a new or an empty folder")
    parser.add_argument("--parameters", type=Path, metavar="FILE", help='values that differ: name = "value" (TOML)')
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the repository and say what to do next; return 1 when it is refused."""
    options = parse(arguments)
    try:
        given = list(read_values(options.parameters).items()) if options.parameters else []
        given += [parse_setting(text) for text in options.set]
        values = choose(read_parameters(_GITOPS / "parameters.toml"), given)
        contents = list(files(_GITOPS / "template", _ROOT / "scripts" / "lib" / "release", values))
        write(options.folder, contents)
    except ReleaseError as error:
        print(f"scripts/gitops-init: {error}", file=sys.stderr)
        return 1
    print(f"{len(contents)} files are in {options.folder}. Next:")
    print(f"1. Commit them on a branch main, and push it to the private repository {values['gitops_repository']}.")
    print(
        f"2. Protect main there; scripts/check-branch-protection {values['gitops_repository']} tells what is missing."
    )
    print("3. Bring up the cluster as the README.md there says.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
