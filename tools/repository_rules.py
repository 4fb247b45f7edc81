"""Rules for the repository's files that no linter knows: ``python -m tools.repository_rules addresses|locks``."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = ROOT / "requirements"

# Spelled so that this file itself follows the rules.
_REGISTRY = re.compile(
    r"pypi[.]org|pythonhosted[.]org|registry[.]npmjs[.]org|registry[.]yarnpkg[.]com|static[.]crates[.]io|proxy[.]golang[.]org"
    r"|repo1?[.]maven[.]|deb[.]debian[.]org|https?://[^/\s]*@?[^/\s]*/[^\s]*/simple\b|(?:extra-)?index-url[ =]+https?:"
)
_HOME = re.compile(r"(?<![\w.}~-])/(?:root|home/[a-z][\w.-]*|Users/[A-Za-z][\w.-]*|work/(?:main|shared))/")
_LOCK_ADDRESS = re.compile(r"https?:|^\s*-(?:i|f|e)\b|^\s*--(?!hash=)|\s@\s", re.MULTILINE)
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


def committed_texts() -> Iterator[tuple[str, str]]:
    """Yield the path and text of every file that is committed or about to be."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listing.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an image


def addresses() -> Iterator[str]:
    """Yield what names a package registry or a folder of somebody's machine."""
    for name, text in committed_texts():
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, what in ((_REGISTRY, "names a package registry"), (_HOME, "names a home folder")):
                if match := pattern.search(line):
                    yield f"{name}:{number}: {what}: {match[0]}"
        if name.startswith("requirements/") and name.endswith(".txt") and (match := _LOCK_ADDRESS.search(text)):
            yield f"{name}: a lock holds only names, versions and hashes, not {match[0].strip()!r}"


def locks() -> Iterator[str]:
    """Yield what a pyproject.toml asks for and its image's lock does not hold."""
    shared = (ROOT / "services" / name / "pyproject.toml" for name in ("common", "payloads"))
    own = {f"sens-{path.parent.name}": Project.read(path) for path in shared if path.exists()}
    for folder in sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml")):
        lock = LOCKS / f"{folder.name}.txt"
        if not lock.exists():  # the command line and the shared code have no image of their own
            lock = LOCKS / "dev.txt"
        held = pinned(lock)
        for requirement in Project.read(folder / "pyproject.toml").dependencies:
            wanted = own[requirement.name].with_extras(requirement.extras) if requirement.name in own else [requirement]
            for one in (each for each in wanted if each.name not in own):
                yield from missing(one, held, f"{folder.name} asks for {one}, requirements/{lock.name}")


def missing(requirement: Requirement, held: dict[str, Version], sentence: str) -> Iterator[str]:
    """Yield the sentence's end when the lock does not hold the requirement."""
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    version = held.get(canonicalize_name(requirement.name))
    if version is None:
        yield f"{sentence} lacks it: run ./scripts/lock"
    elif version not in requirement.specifier:
        yield f"{sentence} holds {version}: run ./scripts/lock"


class Project(NamedTuple):
    """What a pyproject.toml asks for."""

    dependencies: list[Requirement]
    extras: dict[str, list[Requirement]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the table ``project``."""
        table = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return cls(
            [Requirement(text) for text in table.get("dependencies", [])],
            {
                extra: [Requirement(text) for text in texts]
                for extra, texts in table.get("optional-dependencies", {}).items()
            },
        )

    def with_extras(self, names: set[str]) -> list[Requirement]:
        """Return the dependencies and those of the extras."""
        return self.dependencies + [requirement for name in sorted(names) for requirement in self.extras[name]]


def pinned(lock: Path) -> dict[str, Version]:
    """Return the versions that a lock holds, by canonical name."""
    return {
        canonicalize_name(match["name"]): Version(match["version"])
        for match in _PINNED.finditer(lock.read_text(encoding="utf-8"))
    }


def main() -> int:
    """Print what breaks the rule; return the exit code."""
    rules = {"addresses": addresses, "locks": locks}
    if len(sys.argv) != 2 or sys.argv[1] not in rules:  # noqa: PLR2004
        print(f"usage: python -m tools.repository_rules {'|'.join(rules)}", file=sys.stderr)
        return 2
    found = list(rules[sys.argv[1]]())
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
