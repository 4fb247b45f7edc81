"""The lines of files in which the root version is written, which have to say the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ReleaseError, Version


class VersionLine(NamedTuple):
    """A line of a file that holds the root version.

    Attributes:
        path: The file, below the product's root.
        key: What the version is called there.
        pattern: Matches the line; its group ``version`` is what is written there.
    """

    path: str
    key: str
    pattern: re.Pattern[str]


_CHART: Final = "infra/helm/sens-platform/Chart.yaml"

ROOT_LINE: Final = VersionLine(
    "pyproject.toml",
    "version",
    re.compile(r'^\[project\]\r?\n(?:(?!\[).*\n)*?version = "(?P<version>[^"\n]*)"', re.MULTILINE),
)
"""The line that all others follow."""

FOLLOWERS: Final = tuple(
    VersionLine(_CHART, key, re.compile(rf'^{key}:[ ]*"?(?P<version>[^"\s#]*)"?[ ]*(?:#.*)?\r?$', re.MULTILINE))
    for key in ("version", "appVersion")
)
"""The chart and the images are released together, under one version."""


def written(folder: Path, line: VersionLine) -> str:
    """Return the version that a line has.

    Args:
        folder: The product's root.
        line: Which one.

    Raises:
        ReleaseError: The file can't be read, or has not one such line.
    """
    return _match(folder, line)["version"]


def disagreements(folder: Path, version: Version) -> Iterator[str]:
    """Yield a sentence for each line that says something else than the root version.

    Raises:
        ReleaseError: A file can't be read, or lacks its line.
    """
    for line in FOLLOWERS:
        if (found := written(folder, line)) != str(version):
            yield f"{line.path} has the {line.key} {found or '(nothing)'}, and the root version is {version}."


def check_version_lines(folder: Path, version: Version) -> None:
    """See that all lines say the root version.

    Raises:
        ReleaseError: One does not; the text names each of them, and the command that mends them.
    """
    if found := list(disagreements(folder, version)):
        raise ReleaseError(f"{' '.join(found)} 'scripts/set-version {version}' writes it in all places.")


def write_version(folder: Path, version: Version) -> list[str]:
    """Write the root version in all lines, and nothing else; return a sentence for each that has changed.

    Raises:
        ReleaseError: A line is not as expected (nothing was written then), or a file can't be written.
    """
    lines = (ROOT_LINE, *FOLLOWERS)
    for line in lines:
        _match(folder, line)
    changes = []
    for line in lines:
        match = _match(folder, line)
        if match["version"] == str(version):
            continue
        text = f"{match.string[: match.start('version')]}{version}{match.string[match.end('version') :]}"
        try:
            (folder / line.path).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise ReleaseError(f"{folder / line.path} can't be written: {error.strerror}.") from error
        changes.append(f"{line.path}: {line.key} {match['version']} -> {version}")
    return changes


def _match(folder: Path, line: VersionLine) -> re.Match[str]:
    file = folder / line.path
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
    except OSError as error:
        raise ReleaseError(f"{file} can't be read: {error.strerror}. Is this a clone of the product?") from error
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{file} is not UTF-8: restore it from git.") from error
    found = list(line.pattern.finditer(text))
    if len(found) != 1:
        raise ReleaseError(f"{file} has {len(found)} lines with the {line.key}, and must have one.")
    return found[0]
