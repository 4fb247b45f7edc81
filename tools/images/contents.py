"""What an image holds, file by file: two builds of one commit hold the same."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tools.images.builders import Build, Builder
from tools.images.source import ImageError

_SHOWN: Final = 20


class FileStatus(NamedTuple):
    """A file, folder, link or device, without its times.

    Attributes:
        mode: Type and permissions, as ``stat`` has them.
        user: Number of the owner.
        group: Number of the group.
        content: Digest of a file, target of a link, number of a device.
    """

    mode: int
    user: int
    group: int
    content: str


def files_of(root: Path) -> dict[str, FileStatus]:
    """Return everything below a folder, by path."""
    return {str(path.relative_to(root)): _file(path) for path in root.rglob("*")}


def _file(path: Path) -> FileStatus:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)  # noqa: PTH115 - as it is written
    else:
        content = str(status.st_rdev)
    return FileStatus(status.st_mode, status.st_uid, status.st_gid, content)


def differences(first: Mapping[str, FileStatus], second: Mapping[str, FileStatus]) -> list[str]:
    """Return the paths that are not the same in both, each with what is not."""
    found = [f"only in the first: {path}" for path in sorted(first.keys() - second.keys())]
    found += [f"only in the second: {path}" for path in sorted(second.keys() - first.keys())]
    for path in sorted(first.keys() & second.keys()):
        names = [name for name in FileStatus._fields if getattr(first[path], name) != getattr(second[path], name)]
        if names:
            found.append(f"another {' and '.join(names)}: {path}")
    return found


def check_reproducible(builder: Builder, build: Build) -> int:
    """Do every step of a build again and compare its files with the image that is there; return their number.

    Raises:
        ImageError: Some are not the same.
    """
    again = build._replace(reference=f"{build.reference}-again", uncached=True)
    builder.build(again)
    try:
        with builder.mounted(build.reference) as root:
            first = files_of(root)
        with builder.mounted(again.reference) as root:
            second = files_of(root)
    finally:
        builder.remove(again.reference)
    found = differences(first, second)
    if found:
        more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise ImageError("\n".join([f"two builds of {build.target} differ:", *found[:_SHOWN], *more]))
    return len(first)
