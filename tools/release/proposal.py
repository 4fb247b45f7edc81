"""Proposes a release: a branch with one commit, and a pull request. Safe to run twice; never over somebody's commits."""

import argparse
import os
import re
from dataclasses import dataclass

from sens_cli.release.record import Record
from sens_cli.release.versions import ReleaseError
from tools.release import guard
from tools.release.clone import Clone
from tools.release.delivery import message
from tools.release.environment import EnvironmentFiles
from tools.release.hosting import Hosting
from tools.release.program import parser_of

_ORIGIN = re.compile(r"(?:^[^:/@]+@[^:/]+:|^[a-z+]+://[^/]+/)([A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?$")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed.

    Attributes:
        environment: Whose release.
        record: The release.
        branch: Where its commit goes.
        verb: What the commit's message begins with.
        title: Of the pull request.
        body: Of the pull request, Markdown.
    """

    environment: EnvironmentFiles
    record: Record
    branch: str
    verb: str
    title: str
    body: str


def proposing_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a program that proposes a release, with the options that all of these have."""
    parser = parser_of(
        name,
        description,
        "GITHUB_TOKEN opens the pull request; without it the text is printed. SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD log in to "
        "the registry.",
    )
    parser.add_argument("--product", metavar="DIR|URL", help="the product repository, to show what changes in it")
    parser.add_argument(
        "--repository", metavar="OWNER/NAME", help="the GitOps repository on GitHub; that of the remote by default"
    )
    parser.add_argument(
        "--signer",
        metavar="IDENTITY",
        help="the workflow that has to have signed the images; the script names it by itself",
    )
    parser.add_argument(
        "--unsigned-because", metavar="REASON", help="verify no signatures, for this reason: cosign's servers are away"
    )
    parser.add_argument("--run-url", default="", help="address of the run that does this")
    return parser


def propose(clone: Clone, base: str, proposal: Proposal, repository: str | None, *, branch_only: bool = False) -> str:
    """See that the proposal's branch is on the remote, open its pull request unless it is for the branch only, and say so.

    Raises:
        ReleaseError: It is refused.
    """
    name = hosted_name(clone, repository)
    pushed = push(clone, base, proposal)
    done = f"The branch {proposal.branch} {'was pushed' if pushed else 'is on the remote already, with this release'}."
    return done if branch_only else f"{done}\n{pull_request(name, proposal)}"


def push(clone: Clone, base: str, proposal: Proposal) -> bool:
    """See that the proposal's branch is on the remote.

    Args:
        clone: The GitOps repository.
        base: Main's commit.
        proposal: What is proposed.

    Returns:
        Whether it was pushed now; not when it was there.

    Raises:
        ReleaseError: There is such a branch with something else in it.
    """
    environment, record = proposal.environment, proposal.record
    if (existing := clone.fetch_branch(proposal.branch)) and not clone.contains(base, existing):
        _require_same(clone, base, existing, proposal)
        return False
    texts = environment.write(clone, base, record)
    commit = clone.write(base, texts, message(environment, record, proposal.verb))
    guard.check(clone, environment, base, commit)
    if clone.push(commit, proposal.branch):
        return True
    # Another run was faster.
    if existing := clone.fetch_branch(proposal.branch):
        _require_same(clone, base, existing, proposal)
    return False


def hosted_name(clone: Clone, given: str | None) -> str | None:
    """Return ``owner/name`` of the GitOps repository: as given, GITHUB_REPOSITORY's, or that of the remote's address.

    Raises:
        ReleaseError: There is a token to open a pull request with, but no name.
    """
    if name := given or os.environ.get("GITHUB_REPOSITORY"):
        return name
    match = _ORIGIN.search(clone.git("remote", "get-url", "origin"))
    if match is None and os.environ.get("GITHUB_TOKEN"):
        raise ReleaseError(
            "The remote's address is not one of GitHub: name the repository with --repository owner/name."
        )
    return match[1] if match else None


def pull_request(name: str | None, proposal: Proposal) -> str:
    """Open the pull request with the token GITHUB_TOKEN, or return how a person opens it.

    Args:
        name: ``owner/name`` of the GitOps repository.
        proposal: What is proposed.

    Raises:
        ReleaseError: It can't be opened.
    """
    if name and (token := os.environ.get("GITHUB_TOKEN")):
        url = Hosting(token).open_pull_request(name, proposal.branch, "main", proposal.title, proposal.body)
        return f"The pull request: {url}"
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    where = (
        f"at {server}/{name}/compare/main...{proposal.branch}?expand=1" if name else f"from {proposal.branch} to main"
    )
    return (
        f"There is no GITHUB_TOKEN. Open the pull request {where} with this title and text:\n\n"
        f"{proposal.title}\n\n{proposal.body}"
    )


def _require_same(clone: Clone, base: str, existing: str, proposal: Proposal) -> None:
    remedy = (
        f"Look at its pull request: merge it, or close it and delete the branch ('git push origin --delete "
        f"{proposal.branch}'), and run this again."
    )
    where = f"The branch {proposal.branch} is on the remote already (at {existing[:12]})"
    environment, start = proposal.environment, clone.attempt("merge-base", base, existing) or base
    try:
        guard.check(clone, environment, base, existing)
        found = environment.read(clone, existing)
        moved_on = environment.read(clone, start) != environment.read(clone, base)
    except ReleaseError as error:
        raise ReleaseError(f"{where}, with something else in it: {error} {remedy}") from None
    if moved_on:
        raise ReleaseError(f"{where}, but {environment.name} has had another release since it was made. {remedy}")
    if found is None or not proposal.record.same_release(found) or found.previous != proposal.record.previous:
        other = f"{found.release.version} of the commit {found.release.product_commit}" if found else "none"
        raise ReleaseError(f"{where}, with another release in it: {other}. {remedy}")
