"""What is built: a commit of this repository, found by what a person or an event calls it."""

import re
from pathlib import Path
from typing import Final

from sens_cli.release.versions import ReleaseError, Version, root_version
from tools.release.clone import Clone
from tools.release.history import declared

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Of git's rules (git-check-ref-format) the names that people give, and no other.
_NAME = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|$)))[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}(?<![./])")
_MAIN: Final = "refs/remotes/origin/main"
_MAINTENANCE: Final = "refs/remotes/origin/release/"


class Source:
    """A clone of this repository, with all of its history.

    Args:
        folder: The clone.
    """

    def __init__(self, folder: Path) -> None:
        self._clone = Clone(folder, checked=False)

    def resolve(self, ref: str) -> str:
        """Return the full commit that a branch or tag of origin, or a full commit, stands for; main's when empty.

        Raises:
            ReleaseError: There is none, or a branch and a tag of this name are different commits.
        """
        if _COMMIT.fullmatch(ref):
            names = [ref]
        elif not ref:
            names = [_MAIN]
        else:
            names = _candidates(ref)
        found = {name: commit for name in names if (commit := self._clone.find(name))}
        if not found:
            raise ReleaseError(
                f"There is no branch, tag or full commit {_shown(ref) if ref else 'main'} in this clone: write it as it is called "
                "in the repository, and fetch the whole history (fetch-depth: 0)."
            )
        if len(set(found.values())) > 1:
            raise ReleaseError(
                f"{_shown(ref)} is a branch and a tag, of different commits: write refs/heads/{ref}, refs/tags/{ref}, "
                "or the full commit."
            )
        return next(iter(found.values()))

    def version(self, commit: str) -> Version:
        """Return the root version at a commit.

        Raises:
            ReleaseError: There is none, or it is not a stable version.
        """
        try:
            version = declared(self._clone.attempt("show", f"{commit}:pyproject.toml") or "")
        except ValueError:
            raise ReleaseError(f"The pyproject.toml of {commit} has no version: it can't be published.") from None
        return root_version(version)

    def is_reviewed(self, commit: str) -> bool:
        """Tell whether a commit is in main, or in a branch ``release/…`` that older versions are maintained in."""
        listed = self._clone.attempt("for-each-ref", "--format=%(refname)", "--contains", commit, _MAIN, _MAINTENANCE)
        return bool(listed)


def _candidates(ref: str) -> list[str]:
    if not _NAME.fullmatch(ref):
        raise ReleaseError(
            f"{_shown(ref)} is not a name of a branch or tag, and not a full commit (40 hexadecimal digits)."
        )
    if ref.startswith("refs/heads/"):
        return [f"refs/remotes/origin/{ref.removeprefix('refs/heads/')}"]
    if ref.startswith("refs/tags/"):
        return [ref]
    return [f"refs/remotes/origin/{ref}", f"refs/tags/{ref}"]


def _shown(text: str) -> str:
    """Return a foreign text as it may stand in a log: in quotes, on one line, not too long."""
    return repr(text[:100])
