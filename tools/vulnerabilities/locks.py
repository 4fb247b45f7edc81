"""What is locked, and which known vulnerabilities are accepted for a time."""

import re
import tomllib
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tools.vulnerabilities.osv import Package

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


class Accepted(NamedTuple):
    """A vulnerability that somebody has looked at.

    Attributes:
        id: Its name, or one of its aliases.
        reason: Why it does no harm here.
        until: The last day on which that holds without another look.
    """

    id: str
    reason: str
    until: date


def locked(files: Iterable[Path]) -> dict[Package, list[str]]:
    """Return each locked version, with the names of the locks that have it.

    Raises:
        ValueError: A file locks nothing.
    """
    found: dict[Package, list[str]] = {}
    for file in files:
        pins = _PINNED.findall(file.read_text(encoding="utf-8"))
        if not pins:
            raise ValueError(f"{file} locks nothing: is it a lock?")
        for name, version in pins:
            # PyPA's specification, "Names and normalization".
            package = Package(re.sub(r"[-_.]+", "-", name).lower(), version)
            found.setdefault(package, []).append(file.stem)
    return found


def read_accepted(file: Path) -> list[Accepted]:
    """Read the vulnerabilities that are accepted.

    Raises:
        ValueError: The file is not as it says itself.
    """
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8")).get("accepted", [])
        accepted = [Accepted(**entry) for entry in entries]
    except (TypeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file}: {error}. Each entry has id, reason and until, and nothing else.") from error
    for one in accepted:
        if not one.reason.strip() or type(one.until) is not date:
            raise ValueError(f"{file}: {one.id} needs a reason, and a day such as 2026-12-31 as until.")
    return accepted
