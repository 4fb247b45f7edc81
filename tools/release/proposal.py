"""Proposes a release: a branch with one commit, and a pull request. Safe to run twice; never over somebody's commits."""

import os
import re
from dataclasses import dataclass

from sens_cli.release.record import Record
from sens_cli.release.versions import ReleaseError
from tools.release import guard
from tools.release.clone import Clone
from tools.release.delivery import message
from tools.release.environment import Environment
from tools.release.hosting import Hosting

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

    environment: Environment
    record: Record
    branch: str
    verb: str
    title: str
    body: str


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
    place = (
        f"at {server}/{name}/compare/main...{proposal.branch}?expand=1" if name else f"from {proposal.branch} to main"
    )
    return (
        f"There is no GITHUB_TOKEN. Open the pull request {place} with this title and text:\n\n"
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
