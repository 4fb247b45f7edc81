"""Makes the files of the GitOps repository from their template, in memory, so that nothing is written before all is known."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ENVIRONMENTS, ReleaseError
from tools.images.catalogue import IMAGES

MODULES: Final = {
    "services/cli/src": ("sens_cli/__init__", *(f"sens_cli/release/{name}" for name in ("__init__", "kubectl", "record", "versions"))),
    "": (
        "tools/__init__",
        *(
            f"tools/release/{name}"
            for name in (
                "__init__", "actions", "chart_values", "check_branch_protection", "clone", "cluster_secrets", "create_secrets", "delivery", "deploy_test",
                "description", "environment", "guard", "hosting", "http", "kubeconfig", "kubectl", "program", "promote", "proposal", "published",
                "registry", "registry_http", "released", "rollback", "secret_scan", "signatures", "store_digests",
            )
        ),
    ),
}  # fmt: skip
"""What the scripts of the GitOps repository run, by where it is in the product. It imports nothing but each other, Python and what
requirements/gitops.txt locks."""

_EACH: Final = "@environment@"
# Two at signs on both sides are used neither by GitHub's workflows, nor by Helm, Argo CD, YAML or the shell.
_PLACEHOLDER: Final = re.compile(r"@@([^@\s]*)@@")


class NewFile(NamedTuple):
    """A file to write.

    Attributes:
        path: Below the new repository.
        text: What is in it.
        executable: Whether it is a program.
    """

    path: Path
    text: str
    executable: bool


# A part of a file that is for one value of a parameter, between two lines of their own, in whatever the file takes for a comment.
_PART: Final = re.compile(r"^.*@@only ([a-z_]+)=(\S+?)@@.*\n((?:(?!.*@@end@@).*\n)*).*@@end@@.*\n", re.MULTILINE)


def fill(text: str, values: Mapping[str, str], source: Path) -> str:
    """Put the values in the places of their names, and leave out the parts that are for other values.

    Raises:
        ReleaseError: A place has a name without a value.
    """

    def part(match: re.Match[str]) -> str:
        return match[3] if known(match[1]) == match[2] else ""

    def value(match: re.Match[str]) -> str:
        return known(match[1])

    def known(name: str) -> str:
        try:
            return values[name]
        except KeyError:
            raise ReleaseError(f"{source}: @@{name}@@ is not a parameter; see infra/gitops/parameters.toml.") from None

    return _PLACEHOLDER.sub(value, _PART.sub(part, text))


def files(product: Path, values: Mapping[str, str]) -> Iterator[NewFile]:
    """Yield the files of the new repository; one that is empty but for parts that are left out is none.

    Args:
        product: The product's root, with the template and the modules that are copied as they are.
        values: The value of each parameter. The bare names of both repositories are added as product_name and gitops_name. Where a
            path has ``@environment@``, the file is written for test and for production, with what holds there: its name (environment),
            channel, hosts, images and the size of the database's volume.
    """
    names = {f"{kind}_name": values[f"{kind}_repository"].partition("/")[2] for kind in ("product", "gitops")}
    values = {**values, **names}
    template = product / "infra" / "gitops" / "template"
    for source in sorted(path for path in template.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        path = source.relative_to(template).as_posix()
        for own in _environments(values) if _EACH in path else ({"environment": ""},):
            written = Path(path.replace(_EACH, own["environment"]))
            if text := fill(source.read_text(encoding="utf-8"), {**values, **own}, Path(path)):
                yield NewFile(written, text, _is_program(source))
    for folder, modules in MODULES.items():
        for name in modules:
            text = (product / folder / f"{name}.py").read_text(encoding="utf-8")
            yield NewFile(Path("scripts/lib") / f"{name}.py", text, executable=False)
    locked = (product / "requirements" / "gitops.txt").read_text(encoding="utf-8")
    yield NewFile(Path("scripts/lib/requirements.txt"), locked, executable=False)


def write(folder: Path, contents: list[NewFile]) -> None:
    """Write the files into a folder that is empty or does not exist; a clone without a commit counts as empty.

    Raises:
        ReleaseError: There is something in it, or it can't be written to.
    """
    try:
        if folder.is_dir() and (found := sorted(path.name for path in folder.iterdir() if path.name != ".git")):
            raise ReleaseError(f"{folder} is not empty, it holds {found[0]}: name a new folder. Nothing was written.")
        for file in contents:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.text, encoding="utf-8", newline="\n")
            target.chmod(0o755 if file.executable else 0o644)
    except OSError as error:
        raise ReleaseError(f"{folder} can't be written: {error}.") from error


def _environments(values: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    for name, database_size in (("test", "10Gi"), ("production", "50Gi")):
        images = [image.name for image in IMAGES if image.production or name == "test"]
        yield {
            "environment": name,
            "channel": ENVIRONMENTS[name],
            "api_host": values[f"{name}_api_host"],
            "docs_host": values[f"{name}_docs_host"],
            "http_ingestion_host": values[f"{name}_http_ingestion_host"],
            "images": ", ".join(f"'{image}'" for image in images),
            "database_size": database_size,
        }


def _is_program(source: Path) -> bool:
    return bool(source.stat().st_mode & 0o100)
