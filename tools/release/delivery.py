"""Puts a release on the main branch of the GitOps repository: one commit, pushed without force, made again when overtaken."""

from collections.abc import Callable
from typing import Final

from sens_cli.release.record import Record
from sens_cli.release.versions import ReleaseError
from tools.release import guard
from tools.release.clone import Clone
from tools.release.environment import EnvironmentFiles

ATTEMPTS: Final = 5
"""How often a release is applied again because somebody else has pushed."""

type Decide = Callable[[Record | None], Record | None]
"""Takes what is released now and returns what shall be, or None when there is nothing to do."""


def message(environment: EnvironmentFiles, record: Record, verb: str) -> str:
    """Return the message of a release's commit."""
    previous = record.previous
    lines = [
        f"{verb} {record.release.version} {'in' if verb == 'Roll back to' else 'to'} {environment.name}",
        "",
        f"Product commit: {record.release.product_commit}",
        f"Before: {previous.version if previous else 'no release'}",
    ]
    return "\n".join([*lines, *([f"Run: {record.run}"] if record.run else [])]) + "\n"


def deliver(clone: Clone, environment: EnvironmentFiles, plan: Decide, verb: str, *, push: bool) -> Record | None:
    """Apply a plan to main, and leave the clone at the commit.

    Args:
        clone: The GitOps repository, on its branch main.
        environment: Whose release it is.
        plan: Called again when somebody else has pushed.
        verb: What the commit's message begins with.
        push: Whether it is pushed; a commit that was only made is made again by a later call.

    Returns:
        What was released, or None when there was nothing to do.

    Raises:
        ReleaseError: It is refused; neither the remote nor the clone has changed.
    """
    clone.require_clean()
    if clone.attempt("symbolic-ref", "--short", "HEAD") != "main":
        raise ReleaseError(f"{clone.folder} is not on its branch main: 'git switch main', then run this again.")
    for _ in range(ATTEMPTS):
        base = clone.fetch()
        _require_known(clone, environment, base)
        record = plan(environment.read(clone, base))
        commit = base
        if record is not None:
            commit = clone.write(base, environment.write(clone, base, record), message(environment, record, verb))
            guard.check(clone, environment, base, commit)
        if record is None or not push or clone.push(commit, "main"):
            clone.git("reset", "--quiet", "--keep", commit)
            return record
    raise ReleaseError(
        f"main was pushed to by others {ATTEMPTS} times while this was running: nothing was changed. Run it again."
    )


def _require_known(clone: Clone, environment: EnvironmentFiles, base: str) -> None:
    """See that the clone holds nothing but main, and at most the commit of an earlier call that was not pushed."""
    ahead = clone.git("rev-list", f"{base}..HEAD").split()
    try:
        if len(ahead) == 1:
            guard.check(clone, environment, base, ahead[0])
            return
    except ReleaseError:
        pass
    if ahead:
        raise ReleaseError(
            f"{clone.folder} has {len(ahead)} commits on main that are not on the remote: push them by a pull request, or "
            "use another clone."
        )
