"""The GitOps repository, as scripts/gitops-init writes it, and its objects of Kubernetes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.services import ROOT
from support.yaml_documents import documents_of

# The scripts take this interpreter, so that they need not look for one.
ENVIRONMENT = os.environ | {"SENS_BASE_PYTHON": sys.executable, "SENS_PYTHON": sys.executable}
TEMPLATE = ROOT / "infra" / "gitops" / "template"
Document = dict[str, Any]


def gitops_init(folder: Path | str, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run scripts/gitops-init."""
    command = [str(ROOT / "scripts" / "gitops-init"), *arguments, str(folder)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def written(folder: Path, *settings: str) -> str:
    """Write a GitOps repository with these settings, ``name=value``; return what was printed."""
    done = gitops_init(folder, *(f"--set={setting}" for setting in settings))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_script(folder: Path, name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of a GitOps repository, with these variables beside those of this process."""
    command = [str(folder / "scripts" / name), *arguments]
    return subprocess.run(command, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False)


def text_of(folder: Path) -> str:
    """Return the texts of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def values_of(folder: Path, environment: str) -> dict[str, Any]:
    """Return the values of the chart that an environment has."""
    text = (folder / "environments" / environment / "values.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@pytest.fixture(scope="session")
def gitops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GitOps repository with the parameters' own values; tests only read it."""
    folder = tmp_path_factory.mktemp("gitops") / "repository"
    written(folder)
    return folder


def documents(folder: Path, pattern: str = "**/*.yaml") -> Iterator[Document]:
    """Yield the objects of Kubernetes in the files that match."""
    for file in sorted(folder.glob(pattern)):
        yield from (document for document in documents_of(file.read_text(encoding="utf-8")) if "kind" in document)


def find(folder: Path, kind: str, name: str) -> Document:
    """Return the only object with a kind and a name."""
    found = [
        document for document in documents(folder) if document["kind"] == kind and document["metadata"]["name"] == name
    ]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]
