"""What is built: one commit of this repository, with its version and time."""

import re
import shutil
import subprocess
import tarfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Self

from sens_cli.release.versions import ReleaseError, Version

ROOT: Final = Path(__file__).parents[2]

_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


class ImageError(Exception):
    """An image can't be built or does not work; the text says what to do."""


def checked_version(text: str) -> str:
    """Return a version that can be a tag.

    Raises:
        ImageError: It is not one; the text says why.
    """
    try:
        return str(Version.parse(text))
    except ReleaseError as error:
        raise ImageError(str(error)) from error


class Commit(NamedTuple):
    """A commit.

    Attributes:
        revision: Full SHA.
        epoch: Time of the commit, seconds since 1970.
        product_version: The version in the root ``pyproject.toml``, which ``/version`` answers.
        source: Where the repository is for others, without credentials; ``unknown`` where it has no such place.
        modified: Whether there are changes that are not committed, and so not built.
    """

    revision: str
    epoch: int
    product_version: str
    source: str
    modified: bool

    @classmethod
    def read(cls, source: str | None, commit: str = "HEAD") -> Self:
        """Read a commit of this repository, the newest one by default.

        Raises:
            ImageError: There is none.
        """
        revision, epoch = _git("log", "-1", "--format=%H %ct", "--end-of-options", commit).split()
        project = tomllib.loads(_git("show", f"{revision}:pyproject.toml"))["project"]
        return cls(
            revision=revision,
            epoch=int(epoch),
            product_version=checked_version(project["version"]),
            source=public_address(source or _origin()),
            modified=bool(_git("status", "--porcelain", "--untracked-files=no")),
        )

    @property
    def created(self) -> str:
        """Return the time of the commit as RFC 3339, which is the time of its images."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def unpack(self, folder: Path) -> None:
        """Write the commit's files into a folder: what is built is what is committed, nothing that lies beside it."""
        git = _program("git")
        with subprocess.Popen([git, "archive", self.revision], cwd=ROOT, stdout=subprocess.PIPE) as archive:
            with tarfile.open(fileobj=archive.stdout, mode="r|") as files:
                files.extractall(folder, filter="data")
            if archive.wait() != 0:
                raise ImageError("git archive failed; its own message is above.")


def public_address(remote: str) -> str:
    """Return where others find the repository: an https address without credentials, or ``unknown``."""
    remote = remote.strip()
    return _CREDENTIALS.sub("", remote).removesuffix(".git") if remote.startswith("https://") else "unknown"


def _origin() -> str:
    result = subprocess.run(
        [_program("git"), "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.stdout


def _git(*arguments: str) -> str:
    result = subprocess.run([_program("git"), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ImageError(f"Images are built from a commit, and git says: {result.stderr.strip()}")
    return result.stdout.strip()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ImageError(f"{name} is missing: install it.")
    return found
