"""Goes back to a release that an environment had before. Called by scripts/rollback of the GitOps repository.

The release is taken from the history of its record, as it was then. Which version may follow which is of no concern here.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sens_cli.release.record import PinnedImage, Record, now, parse
from sens_cli.release.versions import ENVIRONMENTS, ReleaseError, Version, check_environment
from tools.release.clone import Clone
from tools.release.delivery import deliver
from tools.release.deploy_test import check_same_version
from tools.release.description import describe, open_product
from tools.release.environment import EnvironmentFiles
from tools.release.program import add_folder, run_program
from tools.release.proposal import Proposal, propose, proposing_parser
from tools.release.published import check_published
from tools.release.registry import Registry
from tools.release.signatures import Signer

_NAME: Final = "scripts/rollback"
VERB: Final = "Roll back to"
_SHOWN: Final = 10


def history(clone: Clone, environment: EnvironmentFiles, base: str) -> Iterator[Record]:
    """Yield the records that an environment had, the latest first; those that were broken are left out."""
    clone.complete()
    for commit in clone.git("log", "--first-parent", "--format=%H", base, "--", environment.record).split():
        try:
            if text := clone.read(commit, environment.record):
                yield parse(text, environment.record)
        except ReleaseError:
            continue


def earlier(clone: Clone, environment: EnvironmentFiles, base: str, version: Version) -> Record:
    """Return the record of a version from the history, with the images where they are today.

    Raises:
        ReleaseError: The environment does not take it, or never had it; the text names those it had.
    """
    check_environment(version, environment.name)
    records = list(history(clone, environment, base))
    found = [record for record in records if record.release.version == version]
    if not found:
        had = list(dict.fromkeys(str(record.release.version) for record in records))
        known = (
            f"It had {', '.join(had[:_SHOWN])}{' and others before' if len(had) > _SHOWN else ''}."
            if had
            else "It had none."
        )
        raise ReleaseError(f"{environment.name} never had {version}. {known}")
    for other in found[1:]:
        check_same_version(environment, found[0], other)
    registry = environment.registry(clone, base)
    images = {name: PinnedImage(f"{registry}/{name}", image.digest) for name, image in found[0].images.items()}
    return replace(found[0], images=images)


def replacement(
    environment: EnvironmentFiles, current: Record | None, target: Record, run: str | None
) -> Record | None:
    """Return the record that goes back, or None when the environment is there.

    What it had before may have a later version: a rollback is taken back by another one.

    Raises:
        ReleaseError: There is no release, or the version means something else now.
    """
    if current is None:
        raise ReleaseError(f"{environment.name} has no release: there is nothing to go back from.")
    if target.same_release(current):
        return None
    check_same_version(environment, current, target)
    return Record(target.release, target.images, now(), run, current.release)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = proposing_parser(
        _NAME,
        "Goes back to a release that an environment had before, taken from the history of its record: test by a "
        "commit on main, production by a branch and a pull request.",
    )
    parser.add_argument("environment", choices=sorted(ENVIRONMENTS))
    parser.add_argument("version", help="a version that the environment had before")
    parser.add_argument("--push", action="store_true", help="test: push the commit; without this it stays in the clone")
    parser.add_argument("--check-registry", action="store_true", help="see that the registry still has the images")
    add_folder(parser, Path.cwd(), "the working directory")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> str:
    """Go back, and return what was done.

    Raises:
        ReleaseError: It is refused.
    """
    clone, environment = Clone(options.folder), EnvironmentFiles(options.environment)
    version = Version.parse(options.version)
    clone.require_clean()
    base = clone.fetch()
    target = earlier(clone, environment, base, version)
    if options.check_registry:
        registry = Registry.logged_in(environment.registry(clone, base))
        digests = {name: image.digest for name, image in target.images.items()}
        check_published(registry, target.release, digests)
    signed = Signer.of(options.signer, options.unsigned_because).verify(target.images)
    by = options.run_url or None
    if environment.name == "test":
        record = deliver(
            clone, environment, lambda current: replacement(environment, current, target, by), VERB, push=options.push
        )
        if record is None:
            return f"Nothing to do: test has {version}."
        return f"{'Pushed' if options.push else 'Committed, not pushed'}: test goes back to {version}.{signed}"
    record = replacement(environment, environment.read(clone, base), target, by)
    if record is None:
        return f"Nothing to do: {environment.name} has {version}."
    return _propose(clone, base, environment, record, signed=signed, options=options)


def _propose(
    clone: Clone, base: str, environment: EnvironmentFiles, record: Record, *, signed: str, options: argparse.Namespace
) -> str:
    previous = record.previous
    if previous is None:
        raise ReleaseError(f"{environment.name} has no release: there is nothing to go back from.")
    version = record.release.version
    reason = f"Takes {environment.name} back from {previous.version} to {version}, which it has had before.{signed}"
    with open_product(options.product) as source:
        body = describe(environment, record, reason, source)
    title = f"Roll {environment.name} back to {version}"
    branch = f"rollback/{environment.name}/{previous.version}-to-{version}"
    proposed = Proposal(environment, record, branch, VERB, title, body)
    return propose(clone, base, proposed, options.repository)


def main(arguments: Sequence[str]) -> int:
    """Print what was done; return 1 when it is refused."""
    options = parse_arguments(arguments)
    return run_program(_NAME, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
