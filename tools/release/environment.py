"""The two files of an environment that a release writes, and no other file of the GitOps repository.

One of them is the environment's Argo CD Application, which names the product's commit, for the chart, and holds the values that
name the images: Argo CD takes both together, whenever it looks.
"""

import re
from dataclasses import dataclass
from typing import Final, Protocol

from sens_cli.release.record import Record, dump, parse, values
from sens_cli.release.versions import ENVIRONMENTS, ReleaseError
from tools.release.chart_values import find_scalar

NO_COMMIT: Final = "0" * 40
"""What an Application's line says before the first release."""

_LINE = re.compile(
    r'^(?P<before> +(?:- )?targetRevision: )(?P<quote>"?)(?P<commit>[0-9a-f]{40})(?P=quote)'
    r"(?P<after> # product commit: written with each release)$",
    re.MULTILINE,
)
_BLOCK = re.compile(
    r"^(?P<before>(?P<indent> +)# release values: written with each release\n)(?P<text>(?:.*\n)*?)"
    r"(?P<after>(?P=indent)# end of the release values)$",
    re.MULTILINE,
)
_NO_VALUES: Final = "valuesObject: {}\n"
_REGISTRY = re.compile(r"[a-zA-Z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*")


class Files(Protocol):
    """Where files at a commit are read from."""

    def read(self, commit: str, path: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class EnvironmentFiles:
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
    def record(self) -> str:
        """Return the path of the record."""
        return f"environments/{self.name}/release.json"

    @property
    def paths(self) -> frozenset[str]:
        """Return the paths of all that a release may change."""
        return frozenset({self.application, self.record})

    def read(self, files: Files, commit: str) -> Record | None:
        """Return what is released there, or None before the first release.

        Raises:
            ReleaseError: A file is broken or missing, or the two contradict each other.
        """
        application = self._application(files, commit)
        deployed, block = self._line(application)["commit"], self._block(application)
        text = files.read(commit, self.record)
        if text is None and deployed == NO_COMMIT and block["text"] == _indented(_NO_VALUES, block["indent"]):
            return None
        remedy = f"Somebody has changed it by hand: 'git log -- {self.record}' tells the last release, restore it from there."
        if text is None:
            raise ReleaseError(f"{self.record} is missing at {commit[:12]}. {remedy}")
        record = parse(text, self.record)
        if deployed != record.release.product_commit:
            raise ReleaseError(
                f"{self.application} names the product commit {deployed[:12]}, and release.json "
                f"{record.release.product_commit[:12]}. {remedy}"
            )
        if block["text"] != _values_object(record, block["indent"]):
            raise ReleaseError(
                f"The release values in {self.application} are not what follows from release.json at {commit[:12]}. {remedy}"
            )
        return record

    def write(self, files: Files, commit: str, record: Record) -> dict[str, str]:
        """Return the texts of both files for a record, by path; the rest of the Application stays as it is."""
        application = self._application(files, commit)
        line = self._line(application)
        application = _replaced(line, f'{line["before"]}"{record.release.product_commit}"{line["after"]}')
        block = self._block(application)
        application = _replaced(block, f"{block['before']}{_values_object(record, block['indent'])}{block['after']}")
        return {self.application: application, self.record: dump(record)}

    def registry(self, files: Files, commit: str) -> str:
        """Return where its images are: ``images.registry`` of the values that the chart gets.

        Raises:
            ReleaseError: It is not there, or can't be one.
        """
        path = f"environments/{self.name}/values.yaml"
        found = find_scalar(files.read(commit, path) or "", "images", "registry")
        if found is None or not _REGISTRY.fullmatch(found.value):
            raise ReleaseError(
                f"{path} does not tell where the images are. It must have one images.registry, such as "
                "ghcr.io/owner/sens-platform."
            )
        return found.value

    def _application(self, files: Files, commit: str) -> str:
        text = files.read(commit, self.application)
        if text is None:
            raise ReleaseError(f"{self.application} is missing at {commit[:12]}: is this the GitOps repository?")
        return text

    def _line(self, application: str) -> re.Match[str]:
        found = list(_LINE.finditer(application))
        if len(found) != 1:
            raise ReleaseError(
                f"{self.application} has {len(found)} lines 'targetRevision: <commit> # product commit: written with each "
                "release', and must have one: restore it from the history."
            )
        return found[0]

    def _block(self, application: str) -> re.Match[str]:
        found = list(_BLOCK.finditer(application))
        if len(found) != 1:
            raise ReleaseError(
                f"{self.application} has {len(found)} blocks between the lines '# release values: written with each release' "
                "and '# end of the release values', and must have one: restore it from the history. A repository with "
                f"environments/{self.name}/release-values.yaml is older than these scripts: infra/gitops/README.md of the "
                "product tells how it is brought up to date."
            )
        return found[0]


def _values_object(record: Record, indent: str) -> str:
    return _indented(f"valuesObject:\n{_indented(values(record), '  ')}", indent)


def _indented(text: str, indent: str) -> str:
    return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))


def _replaced(match: re.Match[str], text: str) -> str:
    return f"{match.string[: match.start()]}{text}{match.string[match.end() :]}"
