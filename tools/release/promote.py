"""Proposes for production what test runs. Called by scripts/promote-production-from-test.sh of the GitOps repository."""

import argparse
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.record import PinnedImage, Record, Release, now
from sens_cli.release.versions import ReleaseError, Version, check_environment
from tools.release import actions
from tools.release.clone import Clone
from tools.release.description import describe, open_product
from tools.release.environment import EnvironmentFiles
from tools.release.program import run_program
from tools.release.proposal import Proposal, propose, proposing_parser
from tools.release.published import check_published
from tools.release.registry import Registry
from tools.release.rollback import history
from tools.release.signatures import Signer

_NAME: Final = "scripts/promote-production-from-test.sh"
TEST: Final = EnvironmentFiles("test")
PRODUCTION: Final = EnvironmentFiles("production")


def release_of_test(clone: Clone, base: str) -> Release:
    """Return what test runs, as main says.

    Raises:
        ReleaseError: There is none, it is not an alpha version, or the clone holds something else than main.
    """
    for path in sorted(TEST.paths):
        if clone.read("HEAD", path) != clone.read(base, path):
            raise ReleaseError(
                f"{path} is not what main has: what would be promoted is not what you look at. 'git switch main', "
                "'git pull', then run this again."
            )
    record = TEST.read(clone, base)
    if record is None:
        raise ReleaseError(
            "test has no release yet: there is nothing to promote. deploy-test-main makes the first one."
        )
    check_environment(record.release.version, TEST.name)
    return record.release


def follow_up(current: Record | None, test: Release, had: Container[Version]) -> Release | None:
    """Return the stable release that production gets, or None when it has it.

    Args:
        current: What production has.
        test: What test has.
        had: The versions that production had at any time.

    Raises:
        ReleaseError: Production has a later version, or the same one of another commit.
    """
    wanted = Release(test.version.core, test.product_commit)
    if current is None or current.release.version < wanted.version:
        return wanted
    if current.release == wanted:
        return None
    if current.release.version == wanted.version:
        raise ReleaseError(
            f"production has {wanted.version} already, of the commit {current.release.product_commit}; test has "
            f"{test.version} of the commit {test.product_commit}. Raise the root version of the product (scripts/set-version), and publish that."
        )
    way = (
        f"If that is meant: scripts/rollback production {wanted.version}"
        if wanted.version in had
        else f"It never had {wanted.version}. Raise the root version of the product above {current.release.version} "
        "(scripts/set-version), and deploy that to test first"
    )
    raise ReleaseError(
        f"production has {current.release.version}, which is later than {wanted.version} of test: a promotion does not go "
        f"back. {way}."
    )


def promotion(
    clone: Clone, base: str, registry: Registry, signer: Signer, *, product: str | None, run: str | None
) -> Proposal | None:
    """Return the promotion of what test runs, or None when production has it.

    Args:
        clone: The GitOps repository.
        base: Main's commit.
        registry: Where the images have to be.
        signer: Who has to have signed them.
        product: Folder or address of the product repository.
        run: Address of the run that does this.

    Raises:
        ReleaseError: It is refused.
    """
    test = release_of_test(clone, base)
    current = PRODUCTION.read(clone, base)
    had = {record.release.version for record in history(clone, PRODUCTION, base)}
    release = follow_up(current, test, had)
    if release is None:
        return None
    digests = check_published(registry, release)
    images = {name: PinnedImage(registry.repository(name), digest) for name, digest in digests.items()}
    signed = signer.verify(images)
    record = Record(release, images, now(), run, current.release if current else None)
    reason = (
        f"Promotes to production what test runs as {test.version}. The stable images are in the registry, and were built "
        f"from the same commit.{signed} After the merge, production is synchronised by hand in Argo CD."
    )
    with open_product(product) as source:
        body = describe(PRODUCTION, record, reason, source)
    title = f"Promote {release.version} to production"
    return Proposal(PRODUCTION, record, f"promote/{release.version}", "Promote", title, body)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = proposing_parser(
        _NAME,
        "Proposes for production what test runs: a branch and a pull request with the stable version of the same commit. "
        "It may be run again at any time.",
    )
    parser.add_argument(
        "--gitops", type=Path, default=Path.cwd(), metavar="DIR", help="the clone; the working directory by default"
    )
    parser.add_argument("--branch-only", action="store_true", help="push the branch, and open no pull request yet")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> str:
    """Propose it, and return what was done.

    Raises:
        ReleaseError: It is refused.
    """
    clone = Clone(options.gitops)
    clone.require_clean()
    base = clone.fetch()
    registry = Registry.logged_in(PRODUCTION.registry(clone, base))
    signer = Signer.of(options.signer, options.unsigned_because)
    proposed = promotion(clone, base, registry, signer, product=options.product, run=options.run_url or None)
    if proposed is None:
        return "Nothing to do: production has what test runs."
    actions.set_output("branch", proposed.branch)
    return propose(clone, base, proposed, options.repository, branch_only=options.branch_only)


def main(arguments: Sequence[str]) -> int:
    """Print what was done; return 1 when it is refused."""
    options = parse(arguments)
    return run_program(_NAME, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
