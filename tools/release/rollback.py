"""Goes back to a release that an environment had before. Called by scripts/rollback of the GitOps repository.

The release is taken from the history of its record, as it was then. Which version may follow which is of no concern here.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sens_cli.release.record import Image, Record, now, parse
from sens_cli.release.versions import ENVIRONMENTS, ReleaseError, Version, check_environment
from tools.release import proposal
from tools.release.clone import Clone
from tools.release.delivery import deliver
from tools.release.deploy_test import check_same_version
from tools.release.description import describe, open_product
from tools.release.environment import Environment
from tools.release.proposal import Proposal
from tools.release.published import check_published
from tools.release.registry import Registry
from tools.release.signatures import Signer

VERB: Final = "Roll back to"
_SHOWN: Final = 10


def history(clone: Clone, environment: Environment, base: str) -> Iterator[Record]:
    """Yield the records that an environment had, the latest first; those that were broken are left out."""
    clone.complete()
    for commit in clone.git("log", "--first-parent", "--format=%H", base, "--", environment.record).split():
        try:
            if text := clone.read(commit, environment.record):
                yield parse(text, environment.record)
        except ReleaseError:
            continue


def earlier(clone: Clone, environment: Environment, base: str, version: Version) -> Record:
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
    images = {name: Image(f"{registry}/{name}", image.digest) for name, image in found[0].images.items()}
    return replace(found[0], images=images)


def replacement(environment: Environment, current: Record | None, target: Record, run: str | None) -> Record | None:
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
    parser = argparse.ArgumentParser(
        prog="scripts/rollback",
        description="Goes back to a release that an environment had before, taken from the history of its record: test by a "
        "commit on main, production by a branch and a pull request.",
        epilog="GITHUB_TOKEN opens the pull request; without it the text is printed. SENS_REGISTRY_USER and "
        "SENS_REGISTRY_PASSWORD log in to the registry.",
        allow_abbrev=False,
    )
    parser.add_argument("environment", choices=sorted(ENVIRONMENTS))
    parser.add_argument("version", help="a version that the environment had before")
    parser.add_argument("--push", action="store_true", help="test: push the commit; without this it stays in the clone")
    parser.add_argument("--check-registry", action="store_true", help="see that the registry still has the images")
    parser.add_argument(
        "--signer",
        metavar="IDENTITY",
        help="the workflow that has to have signed the images; the script names it by itself",
    )
    parser.add_argument(
        "--unsigned-because", metavar="REASON", help="verify no signatures, for this reason: cosign's servers are away"
    )
    parser.add_argument("--product", metavar="DIR|URL", help="the product repository, to show what changes in it")
    parser.add_argument(
        "--repository", metavar="OWNER/NAME", help="the GitOps repository on GitHub; that of the remote by default"
    )
    parser.add_argument("--run-url", default="", help="address of the run that does this")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="the clone; the working directory by default")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> str:
    """Go back, and return what was done.

    Raises:
        ReleaseError: It is refused.
    """
    clone, environment = Clone(options.folder), Environment(options.environment)
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
    clone: Clone, base: str, environment: Environment, record: Record, *, signed: str, options: argparse.Namespace
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
    name = proposal.hosted_name(clone, options.repository)
    pushed = proposal.push(clone, base, proposed)
    done = f"The branch {proposed.branch} {'was pushed' if pushed else 'is on the remote already, with this release'}."
    return f"{done}\n{proposal.pull_request(name, proposed)}"


def main(arguments: Sequence[str]) -> int:
    """Print what was done; return 1 when it is refused."""
    try:
        print(run(parse_arguments(arguments)))
    except ReleaseError as error:
        print(f"scripts/rollback: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
