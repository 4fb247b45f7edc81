"""Releases an alpha version in test. Called by scripts/deploy-test-main of the GitOps repository; needs Python and git alone."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.record import PinnedImage, Record, Release, now, parse_digests
from sens_cli.release.versions import ReleaseError, Version, check_environment
from tools.release.clone import Clone
from tools.release.delivery import Decide, deliver
from tools.release.environment import EnvironmentFiles
from tools.release.program import add_folder, parser_of, run_program
from tools.release.published import check_published
from tools.release.registry import Registry

_NAME: Final = "scripts/deploy-test-main"
TEST: Final = EnvironmentFiles("test")


def plan(release: Release, images: Mapping[str, PinnedImage], run: str | None, *, allow_rollback: bool) -> Decide:
    """Return what becomes of test: this release, unless it has it already or has a later one.

    Args:
        release: Version and commit.
        images: The images by name.
        run: Address of the run that built them.
        allow_rollback: Whether an earlier version than the one there is meant.
    """
    check_environment(release.version, TEST.name)
    wanted = Record(release, images, now(), run)

    def follow(current: Record | None) -> Record | None:
        if current is None:
            return wanted
        if wanted.same_release(current):
            return None
        check_same_version(TEST, current, wanted)
        if release.version < current.release.version and not allow_rollback:
            raise ReleaseError(
                f"test has {current.release.version}, which is later than {release.version}: a run that was overtaken does "
                "not move it back. If that is meant, run the same again with --allow-rollback (in the workflow "
                "deploy-test-main: with allow_rollback)."
            )
        return Record(release, images, wanted.released_at, run, current.release)

    return follow


def check_same_version(environment: EnvironmentFiles, current: Record, wanted: Record) -> None:
    """See that a version still means what it meant.

    Raises:
        ReleaseError: Both records have the same version, but not the same commit and images.
    """
    before, after = current.release.product_commit, wanted.release.product_commit
    others = [name for name, image in wanted.images.items() if current.images[name].digest != image.digest]
    if current.release.version != wanted.release.version or (before == after and not others):
        return
    difference = f"the commit {before} instead of {after}" if before != after else f"other images ({', '.join(others)})"
    raise ReleaseError(
        f"{environment.name} has or had {current.release.version} with {difference}. A published version never changes: "
        "publish a new one."
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(
        _NAME, "Releases an alpha version in test: writes its two files, commits them on main, and pushes."
    )
    parser.add_argument("--image-tag", required=True, help="the version, such as 0.5.0-alpha.123.1")
    parser.add_argument("--product-commit", required=True, help="the full commit it was built from")
    parser.add_argument("--digests", required=True, help='JSON: {"platform-api": "sha256:…", …}, each image')
    parser.add_argument("--run-url", default="", help="address of the run that built the images")
    parser.add_argument("--allow-rollback", action="store_true", help="also when test has a later version")
    parser.add_argument(
        "--check-registry", action="store_true", help="see that the registry has these images of this commit"
    )
    parser.add_argument("--push", action="store_true", help="push the commit; without this it stays in the clone")
    add_folder(parser, Path.cwd(), "the working directory")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> str:
    """Release it, and return what was done.

    Raises:
        ReleaseError: It is refused.
    """
    release = Release(Version.parse(options.image_tag), options.product_commit)
    check_environment(release.version, TEST.name)
    digests = parse_digests(options.digests)
    clone = Clone(options.folder)
    registry = TEST.registry(clone, clone.fetch())
    if options.check_registry:
        check_published(Registry.logged_in(registry), release, digests)
    images = {name: PinnedImage(f"{registry}/{name}", digest) for name, digest in digests.items()}
    follow = plan(release, images, options.run_url or None, allow_rollback=options.allow_rollback)
    record = deliver(clone, TEST, follow, "Deploy", push=options.push)
    if record is None:
        return f"Nothing to do: test has {release.version} already."
    before = f", after {record.previous.version}" if record.previous else ""
    return f"{'Pushed' if options.push else 'Committed, not pushed'}: {release.version} for test{before}."


def main(arguments: Sequence[str]) -> int:
    """Print what was done; return 1 when it is refused."""
    options = parse(arguments)
    return run_program(_NAME, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
