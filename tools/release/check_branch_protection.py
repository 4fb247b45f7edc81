"""Tells whether a protected branch makes CODEOWNERS count. Called by scripts/check-branch-protection of the GitOps repository."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from sens_cli.release.versions import ReleaseError
from tools.release.hosting import Hosting, Protection
from tools.release.program import parser_of

_TOKENS: Final = ("GITHUB_TOKEN", "GH_TOKEN")


def problems(protection: Protection) -> Iterator[str]:
    """Yield what is missing, each with its remedy."""
    where = "in the repository's settings, Rules, Rulesets, the one for this branch"
    if not protection.pull_request:
        yield f"changes need no pull request: turn on 'Require a pull request before merging' {where}"
    if not protection.code_owners:
        yield f"owners in CODEOWNERS need not approve: turn on 'Require review from Code Owners' {where}"
    if protection.administrators is False:
        yield "administrators are exempt: turn on 'Do not allow bypassing the above settings' in the branch's protection"
    if protection.force_push:
        yield f"history can be overwritten: turn on 'Block force pushes' {where}"


def read(repository: str, branch: str) -> Protection:
    """Return what is enforced on a branch.

    Raises:
        ReleaseError: There is no token, or it can't be read with it.
    """
    token = next((os.environ[name] for name in _TOKENS if os.environ.get(name)), None)
    if token is None:
        raise ReleaseError(
            f"There is no token: set {_TOKENS[0]} to one that may read the administration of {repository}."
        )
    return Hosting(token).branch_protection(repository, branch)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(
        "scripts/check-branch-protection",
        "Tells whether a branch is protected so that the owners in .github/CODEOWNERS have to approve changes. "
        f"It needs a token in {' or '.join(_TOKENS)} that may read the repository's administration.",
    )
    parser.add_argument("repository", help="owner/name")
    parser.add_argument("--branch", default="main", help="main by default")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print what is missing; return 1 when something is, or when it can't be told."""
    options = parse(arguments)
    try:
        protection = read(options.repository, options.branch)
    except ReleaseError as error:
        print(f"scripts/check-branch-protection: {error}", file=sys.stderr)
        return 1
    found = list(problems(protection))
    for problem in found:
        print(f"{options.repository}, {options.branch}: {problem}.", file=sys.stderr)
    if found:
        return 1
    print(f"{options.repository}, {options.branch}: owners in CODEOWNERS have to approve changes.")
    if protection.administrators is None:
        print(
            "A ruleset's list of exceptions can't be read with this: see to it that it names nobody but the deploy key."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
