"""The root version and the one before it, from git, whatever kind of checkout this is."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ReleaseError, Version, root_version
from tools.release.clone import Clone

ROOT: Final = Path(__file__).parents[2]

_FILE: Final = "pyproject.toml"
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAIN: Final = ("refs/remotes/origin/HEAD", "refs/remotes/origin/main", "refs/heads/main")


class Previous(NamedTuple):
    """The version that the current one follows.

    Attributes:
        version: The version.
        commit: A commit that declares it.
    """

    version: Version
    commit: str


class History:
    """The history of a clone of the product.

    Args:
        folder: The clone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clone = Clone(folder, checked=False)

    def declared(self) -> str:
        """Return what the work tree's ``pyproject.toml`` declares as its version, which may be none at all.

        Raises:
            ReleaseError: It can't be read, or declares nothing.
        """
        file = self._folder / _FILE
        try:
            return declared(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ReleaseError(f"{file} can't be read: {error.strerror}. Is this a clone of the product?") from error
        except ValueError as error:
            raise ReleaseError(f'{file} has no version: write version = "…" below [project].') from error

    def current(self) -> Version:
        """Return the root version in the work tree.

        Raises:
            ReleaseError: There is none, or it is not a stable version.
        """
        return root_version(self.declared())

    def previous(self, base: str | None = None) -> Previous | None:
        """Return the version that the current one follows, or None when there is none.

        That is the version at the newest commit of the base's own line (its first parents) that this checkout contains:
        where a branch left main, or last merged it, and what main was before a push. When that commit is the one that is
        checked out, it is the last other version in its line of first parents. Neither depends on what is added to main
        later, so that a re-run gives the same answer.

        Args:
            base: A commit; the remote's main branch when None, empty, all zeros (what a push says of a new branch) or a
                full commit that this clone does not have (what a forced push has overwritten).

        Raises:
            ReleaseError: Git can't tell: nothing was committed yet, ``base`` is unknown, or history is missing here and can't be
                fetched.
        """
        self._clone.git("rev-parse", "--git-dir")
        head = self._commit("HEAD")
        if head is None:
            raise ReleaseError(f"{self._folder} has no commit yet: make one, then run this again.")
        self._complete()
        start = self._start(head, self._base(base))
        if start != head:
            return next(self._versions(start), None)
        declared = self.declared()
        return next((found for found in self._versions(head) if str(found.version) != declared), None)

    def _complete(self) -> None:
        if self._clone.git("rev-parse", "--is-shallow-repository") == "true":
            self._fetch("--unshallow", "origin", otherwise="check out the whole history (fetch-depth: 0)")

    def _base(self, name: str | None) -> str | None:
        if name:
            if commit := self._commit(name):
                return commit
            if not _FULL_COMMIT.fullmatch(name):
                raise ReleaseError(
                    f"{name[:100]!r} is not a commit of this clone: fetch it, or name another one as the base."
                )
        for known in _MAIN:
            if commit := self._commit(known):
                return commit
        if "origin" not in self._clone.git("remote").split():
            return None
        self._fetch("origin", "HEAD", otherwise="name the commit that this work is added to as the base (--base)")
        return self._commit("FETCH_HEAD")

    def _start(self, head: str, base: str | None) -> str:
        if base is None:
            return head
        missing = self._clone.git("rev-list", "--first-parent", base, f"^{head}").split()
        if not missing:
            return base
        # A first commit that is missing too has no parent: the two have nothing in common.
        return self._commit(f"{missing[-1]}^") or head

    def _versions(self, start: str) -> Iterator[Previous]:
        for commit in self._clone.git("rev-list", "--first-parent", start, "--", _FILE).split():
            # What could not be read at one commit must not hide the versions before it.
            try:
                document = self._clone.git("cat-file", "blob", f"{commit}:./{_FILE}")
                yield Previous(root_version(declared(document)), commit)
            except (ValueError, ReleaseError):
                continue

    def _commit(self, name: str) -> str | None:
        found = self._clone.find(name)
        # The name may be one that stands for what a commit excludes ("^main").
        return found if found and _FULL_COMMIT.fullmatch(found) else None

    def _fetch(self, *arguments: str, otherwise: str) -> None:
        try:
            self._clone.git("fetch", "--quiet", "--no-tags", *arguments)
        except ReleaseError as error:
            raise ReleaseError(
                f"The history is incomplete, and the rest of it can't be fetched. {error} "
                f"Make the remote reachable, or {otherwise}."
            ) from error


def declared(document: str) -> str:
    """Return the version that a ``pyproject.toml`` declares; ValueError when it declares none."""
    try:
        return str(tomllib.loads(document)["project"]["version"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
