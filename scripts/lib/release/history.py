"""The root version and the one before it, from git, whatever kind of checkout this is."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from scripts.lib.release.versions import ReleaseError, Version, root_version

ROOT: Final = Path(__file__).parents[3]

_FILE: Final = "pyproject.toml"
_TIMEOUT_SECONDS: Final = 300
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAIN: Final = ("refs/remotes/origin/HEAD", "refs/remotes/origin/main", "refs/heads/main")
_SETTINGS: Final = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


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

    def declared(self) -> str:
        """Return what the work tree's ``pyproject.toml`` declares as its version, which may be none at all.

        Raises:
            ReleaseError: It can't be read, or declares nothing.
        """
        file = self._folder / _FILE
        try:
            return _declared(file.read_bytes())
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
            ReleaseError: Git can't tell: there is no commit, ``base`` is unknown, or history is missing here and can't be
                fetched.
        """
        head = self._git("rev-parse", "--verify", "HEAD^{commit}")
        self._complete()
        start = self._start(head, self._base(base))
        if start != head:
            return next(self._versions(start), None)
        declared = self.declared()
        return next((found for found in self._versions(head) if str(found.version) != declared), None)

    def _complete(self) -> None:
        if self._git("rev-parse", "--is-shallow-repository") == "true":
            self._fetch("--unshallow", "origin", otherwise="check out the whole history (fetch-depth: 0)")

    def _base(self, name: str | None) -> str | None:
        if name:
            if commit := self._commit(name):
                return commit
            if not _FULL_COMMIT.fullmatch(name):
                raise ReleaseError(
                    f"{name[:100]!r} is no commit of this clone: fetch it, or name another one as the base."
                )
        for known in _MAIN:
            if commit := self._commit(known):
                return commit
        if "origin" not in self._git("remote").split():
            return None
        self._fetch("origin", "HEAD", otherwise="name the commit that this work is added to as the base (--base)")
        return self._commit("FETCH_HEAD")

    def _start(self, head: str, base: str | None) -> str:
        if base is None:
            return head
        missing = self._git("rev-list", "--first-parent", base, f"^{head}").split()
        if not missing:
            return base
        # A first commit that is missing too has no parent: the two have nothing in common.
        return self._commit(f"{missing[-1]}^") or head

    def _versions(self, start: str) -> Iterator[Previous]:
        for commit in self._git("rev-list", "--first-parent", start, "--", _FILE).split():
            # What could not be read at one commit must not hide the versions before it.
            try:
                yield Previous(
                    root_version(_declared(self._run("cat-file", "blob", f"{commit}:./{_FILE}").stdout)), commit
                )
            except (ValueError, ReleaseError):
                continue

    def _commit(self, name: str) -> str | None:
        done = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        found = done.stdout.decode().strip()
        # The name may be one that stands for what a commit excludes ("^main").
        return found if done.returncode == 0 and _FULL_COMMIT.fullmatch(found) else None

    def _fetch(self, *arguments: str, otherwise: str) -> None:
        # Git's own words are left out, because they can hold the remote's address with a password in it.
        if self._run("fetch", "--quiet", "--no-tags", *arguments).returncode:
            raise ReleaseError(
                f"The history in {self._folder} is incomplete, and 'git fetch {' '.join(arguments)}' fails: "
                f"make the remote reachable, or {otherwise}."
            )

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            raise ReleaseError(
                f"'git {' '.join(arguments)}' failed in {self._folder}: is this a clone with a commit? "
                f"Git says: {done.stderr.decode(errors='replace').strip()}"
            )
        return done.stdout.decode().strip()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["git", "-C", self._folder, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_SECONDS,
                env={**os.environ, **_SETTINGS},
            )
        except subprocess.TimeoutExpired:
            raise ReleaseError(
                f"'git {arguments[0]}' did not end within {_TIMEOUT_SECONDS} s in {self._folder}: is the remote reachable?"
            ) from None
        except (OSError, ValueError) as error:
            raise ReleaseError(f"'git {arguments[0]}' can't be run in {self._folder}: {error}.") from None


def _declared(document: bytes) -> str:
    """Return the version that a ``pyproject.toml`` declares; ValueError when it declares none."""
    try:
        return str(tomllib.loads(document.decode())["project"]["version"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
