"""The text of a pull request that releases something: what changes, in Markdown that nothing in it can break out of."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sens_cli.release.record import Record, Release
from sens_cli.release.versions import ReleaseError
from tools.release.clone import Clone
from tools.release.environment import EnvironmentFiles

CHART: Final = "infra/helm/sens-platform"
VALUES: Final = f"{CHART}/values.yaml"
MIGRATIONS: Final = "services/common/src/sens_common/schema"

# GitHub takes 65,536 characters, and there are six sections at most that can be long.
_MAXIMUM_SECTION: Final = 8_000
_MAXIMUM_LINE: Final = 300
_ADDRESS = re.compile(r"(?:https|ssh|file)://[^-\s][^\s]*|[A-Za-z0-9._]+@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s]+")


@contextmanager
def open_product(named: str | None) -> Iterator[Clone | None]:
    """Open the product repository while the context lasts: a clone's folder, or an address that is cloned for it.

    Raises:
        ReleaseError: It is neither, or can't be cloned.
    """
    if not named:
        yield None
    elif Path(named).is_dir():
        yield Clone(Path(named))
    elif _ADDRESS.fullmatch(named):
        with tempfile.TemporaryDirectory() as folder:
            yield Clone.of(named, Path(folder, "product"))
    else:
        raise ReleaseError(f"--product {named[:100]!r} is neither a clone's folder nor the address of a repository.")


def describe(environment: EnvironmentFiles, record: Record, reason: str, product: Clone | None) -> str:
    """Return what a release changes in an environment, as Markdown.

    Args:
        environment: Where it goes.
        record: The release, with what it replaces.
        reason: A sentence about it.
        product: The product repository, for what has changed in it; left out when None.

    Raises:
        ReleaseError: The product repository lacks one of the commits.
    """
    before, after = record.previous, record.release
    sections = [
        reason,
        _table(before, after),
        _details("Images", "\n".join(f"{image.repository}@{image.digest}" for image in record.images.values())),
    ]
    if product is None:
        sections.append("What has changed in the product is not shown here: `--product` names its repository.")
    else:
        sections += _changes(product, before, after)
    sections.append(_way_back(environment, before))
    return "\n\n".join(sections) + "\n"


def fenced(text: str, language: str = "text") -> str:
    """Return a text as a code block that it can't end: the fence is longer than any run of backticks in it.

    Characters that are not seen, but for tabs, are made visible (CommonMark 0.31, section 4.5, for fences).
    """
    lines, length = [], 0
    for line in text.split("\n"):
        shown = "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in line)
        shown = shown if len(shown) <= _MAXIMUM_LINE else f"{shown[:_MAXIMUM_LINE]} …"
        length += len(shown) + 1
        if length > _MAXIMUM_SECTION:
            lines.append("… (cut here: the rest is in the product repository)")
            break
        lines.append(shown)
    shown = "\n".join(lines)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def _table(before: Release | None, after: Release) -> str:
    return "\n".join(
        [
            "| | now | with this |",
            "|---|---|---|",
            f"| version | {before.version if before else 'no release'} | {after.version} |",
            f"| product commit | {f'`{before.product_commit}`' if before else '-'} | `{after.product_commit}` |",
        ]
    )


def _details(title: str, text: str, language: str = "text") -> str:
    return f"### {title}\n\n{fenced(text, language)}"


def _changes(product: Clone, before: Release | None, after: Release) -> Iterator[str]:
    """Yield a section for each kind of change between two commits of the product."""
    for release in (before, after):
        if release is not None and product.attempt("cat-file", "-e", f"{release.product_commit}^{{commit}}") is None:
            raise ReleaseError(
                f"{product.folder} lacks the product commit {release.product_commit} of {release.version}: fetch it there "
                "('git fetch origin'), with the whole history."
            )
    if before is None:
        yield "This is the first release here: there is nothing to compare with."
        yield _migrations(product.git("ls-tree", "--name-only", f"{after.product_commit}:{MIGRATIONS}").split("\n"), [])
        return
    old, new = before.product_commit, after.product_commit
    yield _details("Commits", _log(product, old, new) or "none")
    if taken_back := _log(product, new, old):
        yield _details("Commits that are taken back", taken_back)
    yield _details("The chart's default values", _diff(product, old, new, VALUES) or "unchanged", "diff")
    chart = _diff(product, old, new, CHART, f":(exclude){VALUES}", f":(exclude){CHART}/README.md")
    yield _details("The rest of the chart", chart or "unchanged", "diff")
    status = product.git("diff", "--no-renames", "--name-status", "-z", old, new, "--", MIGRATIONS).split("\0")
    pairs = list(zip(status[0::2], status[1::2], strict=False))
    names = [(kind, path.removeprefix(f"{MIGRATIONS}/")) for kind, path in pairs]
    yield _migrations([name for kind, name in names if kind == "A"], [name for kind, name in names if kind != "A"])


def _log(product: Clone, start: str, end: str) -> str:
    options = ("--no-color", "--no-decorate", "--no-show-signature", "--format=%h %s", "--max-count=200")
    return product.show("log", *options, f"{start}..{end}", "--").rstrip("\n")


def _diff(product: Clone, old: str, new: str, *paths: str) -> str:
    options = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
    return product.show("diff", *options, old, new, "--", *paths).rstrip("\n")


def _migrations(new: list[str], others: list[str]) -> str:
    text = _details("New migrations of the database", "\n".join(name for name in new if name) or "none")
    if others:
        text += (
            "\n\n**Migrations that databases may have run already are changed or missing.** "
            f"They would not run again:\n\n{fenced(chr(10).join(others))}"
        )
    return text


def _way_back(environment: EnvironmentFiles, before: Release | None) -> str:
    if before is None:
        return "### The way back\n\nThere is no earlier release to go back to."
    return (
        f"### The way back\n\n{fenced(f'scripts/rollback {environment.name} {before.version}', 'bash')}\n\n"
        "Migrations of the database are not taken back by it: the earlier version has to run with the later schema."
    )
