"""Makes, reads and checks the versions that are published. Called by scripts/release-version; needs Python alone."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Final

from sens_cli.release.versions import (
    Version,
    alpha_version,
    check_environment,
    release_version,
)
from tools.release.history import ROOT, History
from tools.release.program import add_folder, parser_of, run_program

_NAME: Final = "scripts/release-version"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(_NAME, "Makes, reads and checks the versions that images are published with.")
    add_folder(parser, ROOT, "this repository")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, says: str, *names: str) -> argparse.ArgumentParser:
        # Without --help, which would make a success of a version that a stranger has named "--help".
        added = commands.add_parser(name, help=says, add_help=False, allow_abbrev=False)
        for argument in names:
            added.add_argument(argument)
        return added

    alpha = command("alpha", "print the tag for test: <root version>-alpha.<run number>.<run attempt>")
    alpha.add_argument("run_number", type=_number)
    alpha.add_argument("run_attempt", type=_number)
    command("check", "print a version that was asked for, without its leading v, or refuse it", "version")
    command("channel", "print the channel of a tag: alpha, rc or stable", "tag")
    command("allow", "refuse a tag that an environment does not take", "tag", "environment")
    command("stable", "print the stable version that an alpha or rc tag leads to", "tag")
    return parser.parse_args(arguments)


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of a run")
    return int(text)


def answer(options: argparse.Namespace) -> str:
    """Return what the command prints.

    Raises:
        ReleaseError: It is refused.
    """
    match options.command:
        case "alpha":
            return str(alpha_version(History(options.folder).current(), options.run_number, options.run_attempt))
        case "check":
            return str(release_version(options.version, History(options.folder).current()))
        case "channel":
            return Version.parse(options.tag).channel
        case "allow":
            check_environment(Version.parse(options.tag), options.environment)
            return f"{options.environment} takes {options.tag}"
        case _:
            version = Version.parse(options.tag)
            _ = version.channel
            return str(version.core)


def main(arguments: Sequence[str]) -> int:
    """Print the answer; return 1 when it is refused."""
    options = parse(arguments)
    return run_program(_NAME, lambda: answer(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
