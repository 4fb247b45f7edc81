"""What a release does with git: read files at a commit, write a commit without touching the work tree, push it, never by force."""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from sens_cli.release.versions import ReleaseError
from tools.release.program import printable

MAXIMUM_BYTES: Final = 1024 * 1024
"""Size of a file that is read at a commit."""

_TIMEOUT_SECONDS: Final = 300
_REGULAR: Final = "100644"
_OVERTAKEN = re.compile(
    r"fetch first|non-fast-forward|failed to update ref|cannot lock ref|incorrect old value|reference already exists"
)
_PROTECTED = re.compile(r"protected branch|GH006|GH013|rule violations|hook declined", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/\s]+@")  # up to the last at sign: a password may have one too


class Clone:
    """A clone of a repository whose main branch is what counts.

    Args:
        folder: The clone.
        checked: Whether it has to be one already.

    Raises:
        ReleaseError: It is none.
    """

    def __init__(self, folder: Path, *, checked: bool = True) -> None:
        self.folder = folder
        if checked and self.attempt("rev-parse", "--git-dir") is None:
            raise ReleaseError(f"{folder} is not a clone of a repository: name one, or call this from inside of it.")

    @classmethod
    def of(cls, address: str, folder: Path) -> Self:
        """Clone a repository, without its files, into a folder that does not exist yet.

        Raises:
            ReleaseError: It can't be reached.
        """
        cls(folder.parent, checked=False).git("clone", "--quiet", "--bare", "--", address, folder.name)
        return cls(folder)

    def git(self, *arguments: str, text: str | None = None, settings: Mapping[str, str] | None = None) -> str:
        """Run git and return what it prints, to the last character but a line break.

        Raises:
            ReleaseError: It failed; the text is git's own, without what an address may carry in secrets.
        """
        output = self.raw(*arguments, content=None if text is None else text.encode(), settings=settings)
        return _decoded(output, arguments[0]).removesuffix("\n")

    def attempt(self, *arguments: str) -> str | None:
        """Run git and return what it prints, or None when it fails."""
        done = self._run(arguments)
        return None if done.returncode else _decoded(done.stdout, arguments[0]).removesuffix("\n")

    def show(self, *arguments: str) -> str:
        """Run git and return what it prints for people to read; what is not UTF-8 is replaced."""
        return self.raw(*arguments).decode(errors="replace")

    def raw(self, *arguments: str, content: bytes | None = None, settings: Mapping[str, str] | None = None) -> bytes:
        """Run git with a content on its standard input and return what it prints; raises as `git`."""
        done = self._run(arguments, content, settings or {})
        if done.returncode:
            raise ReleaseError(f"'git {arguments[0]}' failed in {self.folder}: {_shown(done.stderr or done.stdout)}")
        return done.stdout

    def require_clean(self) -> None:
        """See that nothing in the work tree differs from the last commit.

        Raises:
            ReleaseError: Something does; the text names it.
        """
        changed = self.git("status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none").splitlines()
        if changed:
            names = ", ".join(repr(line[3:103]) for line in changed[:5])
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""  # noqa: PLR2004 - as many as are shown
            raise ReleaseError(
                f"There are changes in {self.folder} that are in no commit: {names}{more}. "
                "Commit them, or put them away with 'git stash --include-untracked', and run this again."
            )

    def fetch(self) -> str:
        """Fetch the remote's main branch and return its commit."""
        self.git("fetch", "--quiet", "--no-tags", "origin", "+refs/heads/main:refs/remotes/origin/main")
        return self.git("rev-parse", "--verify", "refs/remotes/origin/main^{commit}")

    def complete(self) -> None:
        """Fetch the rest of the history where the clone is shallow."""
        if self.git("rev-parse", "--is-shallow-repository") == "true":
            self.git("fetch", "--quiet", "--no-tags", "--unshallow", "origin")

    def fetch_branch(self, branch: str) -> str | None:
        """Fetch a branch of the remote and return its commit, or None when there is no such branch."""
        reference = f"refs/heads/{branch}"
        if not self.git("ls-remote", "origin", reference):
            return None
        self.git("fetch", "--quiet", "--no-tags", "origin", f"+{reference}:refs/remotes/origin/{branch}")
        return self.git("rev-parse", "--verify", f"refs/remotes/origin/{branch}^{{commit}}")

    def find(self, name: str) -> str | None:
        """Return the full commit that a name stands for, None when it stands for none."""
        return self.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")

    def commit(self, name: str) -> str:
        """Return the full commit that a name stands for.

        Raises:
            ReleaseError: It stands for none.
        """
        found = self.find(name)
        if found is None:
            raise ReleaseError(f"{name[:100]!r} is not a commit in {self.folder}: fetch it, or name another one.")
        return found

    def contains(self, descendant: str, ancestor: str) -> bool:
        """Tell whether a commit is another one, or comes before it."""
        return self.attempt("merge-base", "--is-ancestor", ancestor, descendant) is not None

    def read(self, commit: str, path: str) -> str | None:
        """Return a file's text at a commit, or None when it is not there.

        Raises:
            ReleaseError: It is not a regular file, too long, or no UTF-8.
        """
        entry = self.git("ls-tree", "-z", "--long", "--full-tree", commit, "--", path)
        if not entry:
            return None
        mode, _kind, blob, size = entry.split("\t", 1)[0].split()
        if mode != _REGULAR:
            raise ReleaseError(
                f"{path} is not a regular file at {commit[:12]} (mode {mode}): restore it from the history."
            )
        if int(size) > MAXIMUM_BYTES:
            raise ReleaseError(f"{path} has {size} bytes at {commit[:12]}: at most {MAXIMUM_BYTES} are read.")
        return _decoded(self.raw("cat-file", "blob", blob), f"show {commit[:12]}:{path}")

    def write(self, parent: str, texts: Mapping[str, str], message: str) -> str:
        """Make a commit on top of another one, in which these files have these texts; no branch and no file is changed.

        Raises:
            ReleaseError: Git refuses, for instance because it does not know who commits.
        """
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            self.git("read-tree", parent, settings=index)
            for path, text in texts.items():
                blob = self.git("hash-object", "-w", "--stdin", text=text)
                self.git("update-index", "--add", "--cacheinfo", f"{_REGULAR},{blob},{path}", settings=index)
            tree = self.git("write-tree", settings=index)
        return self.git("commit-tree", tree, "-p", parent, "-F", "-", text=message)

    def push(self, commit: str, branch: str) -> bool:
        """Push a commit as a branch's new end, without force.

        Returns:
            Whether it was taken; not when somebody else has pushed in between.

        Raises:
            ReleaseError: The remote refuses it whatever is fetched before.
        """
        done = self._run(("push", "--porcelain", "origin", f"{commit}:refs/heads/{branch}"))
        said = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        if done.returncode == 0:
            return True
        if _PROTECTED.search(said):
            raise ReleaseError(
                f"The remote does not let this push to {branch}: {_shown(done.stderr)} Its rules have to except who pushes "
                "here (a deploy key, in the ruleset's bypass list); docs/operations/promotion.md tells how."
            )
        if _OVERTAKEN.search(said):
            return False
        raise ReleaseError(f"{branch} can't be pushed: {_shown(done.stderr or done.stdout)}")

    def _run(
        self, arguments: Sequence[str], content: bytes | None = None, settings: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[bytes]:
        fixed = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
        try:
            return subprocess.run(
                ["git", "-C", self.folder, *arguments],
                input=content,
                stdin=subprocess.DEVNULL if content is None else None,
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_SECONDS,
                env={**os.environ, **fixed, **settings},
            )
        except subprocess.TimeoutExpired:
            raise ReleaseError(
                f"'git {arguments[0]}' did not end within {_TIMEOUT_SECONDS} s: is the remote reachable?"
            ) from None
        except (OSError, ValueError) as error:
            raise ReleaseError(f"git can't be run in {self.folder}: {error}.") from None


def _decoded(output: bytes, what: str) -> str:
    try:
        return output.decode()
    except UnicodeDecodeError:
        raise ReleaseError(f"'git {what}' printed something that is not UTF-8.") from None


def _shown(output: bytes) -> str:
    return printable(_SECRET.sub("", output.decode(errors="replace")))[:500]
