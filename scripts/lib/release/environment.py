"""The three files of an environment that a release writes, and no other file of the GitOps repository."""

import re
from dataclasses import dataclass
from typing import Final, Protocol

from scripts.lib.release.record import Record, dump, parse, values
from scripts.lib.release.versions import ENVIRONMENTS, ReleaseError

NO_COMMIT: Final = "0" * 40
"""What an Application's line says before the first release."""

_LINE = re.compile(
    r'^(?P<before> +(?:- )?targetRevision: )(?P<quote>"?)(?P<commit>[0-9a-f]{40})(?P=quote)'
    r"(?P<after> # product commit: written with each release)$",
    re.MULTILINE,
)
# Values are written by people, and Python alone reads no YAML: this takes one way of writing, and nothing else for it.
_IMAGES = re.compile(r"^images:[ ]*\n(?:(?:[ #].*)?\n)*", re.MULTILINE)
_REGISTRY = re.compile(
    r'^  registry: ("?)([a-zA-Z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*)\1[ ]*(?:[ ]#.*)?$', re.MULTILINE
)


class Files(Protocol):
    """Where files at a commit are read from."""

    def read(self, commit: str, path: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment by name, and where its files are."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in ENVIRONMENTS:
            raise ReleaseError(f"There is no environment {self.name!r}: choose one of {', '.join(ENVIRONMENTS)}.")

    @property
    def application(self) -> str:
        """Return the path of its Argo CD Application."""
        return f"applications/sens-platform-{self.name}.yaml"

    @property
    def values(self) -> str:
        """Return the path of the values that follow from the record."""
        return f"environments/{self.name}/release-values.yaml"

    @property
    def record(self) -> str:
        """Return the path of the record."""
        return f"environments/{self.name}/release.json"

    @property
    def paths(self) -> frozenset[str]:
        """Return the paths of all that a release may change."""
        return frozenset({self.application, self.values, self.record})

    def read(self, files: Files, commit: str) -> Record | None:
        """Return what is released there, or None before the first release.

        Raises:
            ReleaseError: A file is broken or missing, or the three contradict each other.
        """
        deployed = self._line(files, commit)["commit"]
        record_text, values_text = files.read(commit, self.record), files.read(commit, self.values)
        if record_text is None and values_text is None and deployed == NO_COMMIT:
            return None
        remedy = f"Somebody has changed it by hand: 'git log -- {self.record}' tells the last release, restore it from there."
        if record_text is None or values_text is None:
            missing = self.record if record_text is None else self.values
            raise ReleaseError(f"{missing} is missing at {commit[:12]}. {remedy}")
        record = parse(record_text, self.record)
        if values_text != values(record):
            raise ReleaseError(f"{self.values} is not what follows from release.json at {commit[:12]}. {remedy}")
        if deployed != record.release.product_commit:
            raise ReleaseError(
                f"{self.application} names the product commit {deployed[:12]}, and release.json "
                f"{record.release.product_commit[:12]}. {remedy}"
            )
        return record

    def write(self, files: Files, commit: str, record: Record) -> dict[str, str]:
        """Return the texts of the three files for a record, by path; the Application's but for one line stays as it is."""
        line = self._line(files, commit)
        replaced = f'{line["before"]}"{record.release.product_commit}"{line["after"]}'
        application = f"{line.string[: line.start()]}{replaced}{line.string[line.end() :]}"
        return {self.application: application, self.values: values(record), self.record: dump(record)}

    def registry(self, files: Files, commit: str) -> str:
        """Return where its images are: ``images.registry`` of the values that the chart gets.

        Raises:
            ReleaseError: It is not there, or not in the form that is read here.
        """
        path = f"environments/{self.name}/values.yaml"
        block = _IMAGES.search(files.read(commit, path) or "")
        found = _REGISTRY.findall(block[0]) if block else []
        if len(found) != 1:
            raise ReleaseError(
                f"{path} does not tell where the images are. It must have the lines 'images:' and, two spaces further in, "
                "'registry: ghcr.io/owner/sens-platform'."
            )
        return str(found[0][1])

    def _line(self, files: Files, commit: str) -> re.Match[str]:
        text = files.read(commit, self.application)
        if text is None:
            raise ReleaseError(f"{self.application} is missing at {commit[:12]}: is this the GitOps repository?")
        found = list(_LINE.finditer(text))
        if len(found) != 1:
            raise ReleaseError(
                f"{self.application} has {len(found)} lines 'targetRevision: <commit> # product commit: written with each "
                "release', and must have one: restore it from the history."
            )
        return found[0]
