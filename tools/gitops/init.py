"""Writes the GitOps repository. Called by scripts/gitops-init; needs Python alone."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.gitops.parameters import Parameter, ResolvedParameters, parse_setting, read_parameters, read_values, resolve
from tools.gitops.template import files, write
from tools.release.program import parser_of, run_program

_NAME: Final = "scripts/gitops-init"
_ROOT: Final = Path(__file__).resolve().parents[2]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(
        _NAME,
        "Writes the GitOps repository of an installation, from infra/gitops, into an empty folder.",
        "The parameters are in infra/gitops/parameters.toml.",
    )
    parser.add_argument("folder", type=Path, help="where it is written to: a new or an empty folder")
    parser.add_argument("--parameters", type=Path, metavar="FILE", help='values that differ: name = "value" (TOML)')
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the repository and say what to do next; return 1 when it is refused."""
    options = parse(arguments)
    return run_program(_NAME, lambda: made(options))


def made(options: argparse.Namespace) -> Iterator[str]:
    """Write the repository, and yield what was done and what to do next.

    Raises:
        ReleaseError: A value is refused, or the folder is; nothing was written then.
    """
    given = list(read_values(options.parameters).items()) if options.parameters else []
    given += [parse_setting(text) for text in options.set]
    known = read_parameters(_ROOT / "infra" / "gitops" / "parameters.toml")
    resolved = resolve(known, given)
    values = resolved.values
    contents = list(files(_ROOT, values))
    write(options.folder, contents)
    yield f"{len(contents)} files are in {options.folder}."
    yield from told(known, resolved)
    yield "\nNext:"
    yield f"1. Commit them on a branch main, and push it to the private repository {values['gitops_repository']}."
    yield f"2. Protect main there; scripts/check-branch-protection {values['gitops_repository']} tells what is missing."
    yield "3. Bring up the cluster as the README.md there says."
    yield from publishing(values)


def told(known: Mapping[str, Parameter], resolved: ResolvedParameters) -> Iterator[str]:
    """Yield what nobody has set: what follows from the rest, and what is left at its default, each with its value."""
    groups = (
        ("These follow from what you set:", [name for name in known if name in resolved.followed]),
        (
            "These name the installation that the template was written for. Set those that are not yours, and write it again:",
            resolved.left(known, example=True),
        ),
        ("These were left at their default:", resolved.left(known, example=False)),
    )
    for title, names in groups:
        if names:
            yield f"\n{title}"
            yield from (f"  {name} = {resolved.values[name] or '(nothing)'}    {known[name].meaning}" for name in names)


def publishing(values: Mapping[str, str]) -> Iterator[str]:
    """Yield what the workflows of both repositories have to be told, where it is not what they take by themselves."""
    product, registry = values["product_repository"], values["registry"]
    variables = {}
    if registry != f"ghcr.io/{product}".lower():
        variables["SENS_PLATFORM_REGISTRY"] = registry
    if values["gitops_repository"] != f"{values['owner']}/sens-platform-infra":
        variables["SENS_PLATFORM_INFRA_REPOSITORY"] = values["gitops_repository"]
    if variables:
        yield "4. Tell the workflows that publish:"
        for name, value in variables.items():
            yield f"   gh variable set {name} --repo {product} --body {value}"
    if not registry.startswith("ghcr.io/"):
        yield f"5. Let them log in to {registry.partition('/')[0]}, here to write and there to read:"
        for repository in (product, values["gitops_repository"]):
            for name in ("SENS_PLATFORM_REGISTRY_USER", "SENS_PLATFORM_REGISTRY_PASSWORD"):
                yield f"   gh secret set {name} --repo {repository}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
