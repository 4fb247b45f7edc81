"""Real git repositories in temporary folders, whatever git is configured like on this machine."""

import itertools
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import pytest

MAIN: Final = "main"
SETTINGS: Final = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada Author",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Carl Committer",
    "GIT_COMMITTER_EMAIL": "carl@example.org",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "maintenance.auto",
    "GIT_CONFIG_VALUE_0": "false",
    "GIT_CONFIG_KEY_1": "core.fsync",
    "GIT_CONFIG_VALUE_1": "none",
}
"""Environment of git: no configuration but the repository's own, a name for commits, no questions, English messages; and nothing that
repositories do to live long: each commit would start another git that looks whether there is something to tidy up, and wait for the disk."""

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
# Each commit has its own minute, so that the same change made twice, in two clones, is two commits.
_minutes = itertools.count()


def environment() -> dict[str, str]:
    """Return this process' environment with git's part of it replaced by SETTINGS."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | SETTINGS


@pytest.fixture
def isolated_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let code under test, which starts git by itself, have the same environment."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def repository(tmp_path: Path, isolated_git: None) -> "Repository":
    """Return an empty repository, on its branch main, in ``tmp_path / "repository"``."""
    return Repository.create(tmp_path / "repository")


class Repository:
    """A repository; what git refuses is a ``subprocess.CalledProcessError`` with git's own words.

    Attributes:
        folder: Its work tree, or the repository itself where it is bare.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, *, bare: bool = False, branch: str = MAIN) -> Self:
        """Make an empty repository; a bare one is a remote that can be pushed to."""
        folder.mkdir(parents=True, exist_ok=True)
        repository = cls(folder)
        repository.git("init", "--quiet", f"--initial-branch={branch}", *(["--bare"] if bare else []))
        return repository

    @property
    def url(self) -> str:
        """Return its address; unlike a path, it makes git transfer objects as from another machine."""
        return self.folder.resolve().as_uri()

    @property
    def head(self) -> str:
        """Return the commit that is checked out."""
        return self.revision("HEAD")

    def git(self, *arguments: str) -> str:
        """Run git and return what it prints, without the line break at its end."""
        moment = (_START + timedelta(minutes=next(_minutes))).isoformat()
        done = subprocess.run(
            ["git", "-C", self.folder, *arguments],
            env={**environment(), "GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(
                done.returncode, f"git {' '.join(arguments)}: {done.stdout}{done.stderr}"
            )
        return done.stdout.removesuffix("\n")

    def revision(self, name: str) -> str:
        """Return the full commit that a name stands for."""
        return self.git("rev-parse", "--verify", f"{name}^{{commit}}")

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write files, or delete those without a text; nothing is committed."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

    def commit(self, message: str = "Change something", files: Mapping[str, str | None] | None = None) -> str:
        """Write files, commit all that has changed, be it nothing, and return the commit."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.head

    def branch(self, name: str, start: str = "HEAD") -> None:
        """Make a branch and check it out."""
        self.git("switch", "--quiet", "--create", name, start)

    def switch(self, name: str) -> None:
        """Check a branch out, or any other commit without a branch (detached)."""
        self.git("switch", "--quiet", "--detach" if self._is_no_branch(name) else "--no-guess", name)

    def merge(self, name: str) -> str:
        """Merge a branch into the one that is checked out, always with a merge commit, and return that."""
        self.git("merge", "--quiet", "--no-ff", f"--message=Merge {name}", name)
        return self.head

    def clone(self, folder: Path, *, depth: int | None = None, branch: str | None = None) -> "Repository":
        """Clone it as from another machine, with as many commits as ``depth`` says."""
        limit = [f"--depth={depth}"] if depth else []
        chosen = [f"--branch={branch}"] if branch else []
        self.git("clone", "--quiet", "--no-local", *limit, *chosen, self.url, str(folder.absolute()))
        return Repository(folder)

    def push(self, reference: str = "HEAD", *, remote: str = "origin", force: bool = False) -> None:
        """Push a branch, a tag, or what is checked out."""
        self.git("push", "--quiet", *(["--force"] if force else []), remote, reference)

    def read(self, path: str, commit: str = "HEAD") -> str:
        """Return a file's text at a commit, whether it is checked out or not."""
        return self.git("show", f"{commit}:{path}")

    def changed(self, before: str, after: str = "HEAD") -> set[str]:
        """Return the files that differ between two commits."""
        return set(self.git("diff", "--name-only", "--no-renames", before, after).splitlines())

    def _is_no_branch(self, name: str) -> bool:
        return not self.git("for-each-ref", f"refs/heads/{name}")
