"""The previous root version, from git, whatever kind of checkout this is."""

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

from scripts.lib.release.versions import ReleaseError, Version, root_version

_NO_COMMIT = "0" * 40
_FILE = "pyproject.toml"


class History:
    """The history of a checkout of the product.

    Args:
        folder: The checkout.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Version:
        """Return the root version in the work tree.

        Raises:
            ReleaseError: There is none, or it is not a stable version.
        """
        try:
            text = (self._folder / _FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ReleaseError(f"{self._folder / _FILE} can't be read: {error}.") from error
        try:
            version = tomllib.loads(text)["project"]["version"]
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise ReleaseError(
                f'{self._folder / _FILE} has no version: write version = "…" below [project].'
            ) from error
        return root_version(str(version))

    def previous(self, base: str | None = None) -> Version | None:
        """Return the version that the current one follows, or None when there is none.

        Where the work comes from is, first of all, the last commit that it shares with ``base``: the branch that it is to
        be merged into, or what that branch was before a push. Where there is no such commit but this one, it is the last
        commit in the line of first parents, merges included, that had another version than the current one. Neither
        depends on what has happened since, so that a re-run gives the same answer.

        Args:
            base: A commit; the remote's main branch when None or all zeros (a branch that is new).

        Raises:
            ReleaseError: Git can't tell: there is no repository, ``base`` is unknown, or the clone is shallow and the rest
                can't be fetched.
        """
        self._complete()
        head = self._git("rev-parse", "--verify", "HEAD^{commit}")
        if start := self._fork(base, head):
            return next(self._versions(start), None)
        current = self.current()
        return next((version for version in self._versions(head) if version != current), None)

    def _fork(self, base: str | None, head: str) -> str | None:
        if base and base != _NO_COMMIT:
            commit = self._try("rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}")
            if commit is None:
                raise ReleaseError(f"{base!r} is no commit of this clone: fetch it, or name another one as the base.")
        else:
            names = ("refs/remotes/origin/HEAD", "refs/remotes/origin/main", "refs/heads/main")
            commit = next((found for name in names if (found := self._try("rev-parse", "--verify", name))), None)
        shared = self._try("merge-base", commit, head) if commit else None
        return None if shared == head else shared

    def _versions(self, start: str) -> Iterator[Version]:
        # A file that could not be read at one commit must not hide the versions before it.
        commits = self._git("log", "--first-parent", "--format=%H", start, "--", _FILE).split()
        for commit in commits:
            text = self._try("show", f"{commit}:{_FILE}")
            try:
                yield root_version(str(tomllib.loads(text or "")["project"]["version"]))
            except (tomllib.TOMLDecodeError, KeyError, TypeError, ReleaseError):
                continue

    def _complete(self) -> None:
        if self._try("rev-parse", "--is-shallow-repository") == "true":
            fetched = self._try("fetch", "--quiet", "--unshallow", "--no-tags", "origin")
            if fetched is None:
                raise ReleaseError(
                    "This clone is shallow, and the rest of its history can't be fetched: "
                    "run 'git fetch --unshallow', or check out with the whole history (fetch-depth: 0)."
                )

    def _git(self, *arguments: str) -> str:
        output = self._try(*arguments)
        if output is None:
            raise ReleaseError(f"'git {' '.join(arguments)}' failed in {self._folder}: is this a clone with a commit?")
        return output

    def _try(self, *arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", self._folder, *arguments], capture_output=True, text=True, check=False, timeout=300
        )
        return done.stdout.strip() if done.returncode == 0 else None
