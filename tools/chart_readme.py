"""Writes the chart's README from the comments of its values: ``python -m tools.chart_readme [--check]``."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import yaml

CHART: Final = Path(__file__).parents[1] / "infra" / "helm" / "sens-platform"
_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z][\w.-]*):(?: |$)")

_HEAD: Final = """<!-- Written by scripts/generate-chart-readme from values.yaml; change that file instead. -->

# sens-platform

{description}.

How to install, upgrade and look after it: [docs/operations/kubernetes.md](../../../docs/operations/kubernetes.md). What an upgrade
asks for: [UPGRADING.md](UPGRADING.md).

```sh
kubectl create namespace sens-platform
kubectl -n sens-platform create secret generic sens-platform --from-literal=postgres-password="$(openssl rand -hex 24)"
helm -n sens-platform install sens-platform infra/helm/sens-platform --values my-values.yaml
```

The fewest values:

```yaml
images:
  registry: ghcr.io/owner/sens-platform
existingSecret: sens-platform
mqtt:
  url: mqtts://broker.example.org:8883
```

## Values

| Value | Default | Meaning |
| --- | --- | --- |
"""


class Value(NamedTuple):
    """A documented value."""

    path: tuple[str, ...]
    default: object
    meaning: str


def documented(text: str) -> Iterator[Value]:
    """Yield the values that have a comment right above them, in the file's order.

    A documented value that is a map is shown whole, unless values inside of it are documented themselves.
    """
    tree = yaml.safe_load(text)
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        match = _KEY.match(line)
        if match is not None:
            indent = len(match["indent"])
            path = [*(part for part in path if part[0] < indent), (indent, match["key"])]
            if comment:
                keys = tuple(key for _indent, key in path)
                yield Value(keys, _at(tree, keys), " ".join(comment))
        comment = []


def _at(tree: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(tree, dict):
            raise SystemExit(f"values.yaml: {'.'.join(path)} was not understood")
        tree = tree[key]
    return tree


def undocumented(text: str) -> list[str]:
    """Return the values without a comment of their own or above a group that holds them."""
    known = {value.path for value in documented(text)}

    def leaves(tree: object, path: tuple[str, ...]) -> Iterator[str]:
        if path in known:
            return
        if isinstance(tree, dict) and tree:
            for key, branch in tree.items():
                yield from leaves(branch, (*path, key))
        else:
            yield ".".join(path)

    return list(leaves(yaml.safe_load(text), ()))


def readme(values: str, chart: str) -> str:
    """Return the page."""
    rows = []
    for value in documented(values):
        default = json.dumps(value.default, ensure_ascii=False)
        rows.append(f"| `{'.'.join(value.path)}` | `{_cell(default)}` | {_cell(value.meaning)} |")
    return _HEAD.format(description=yaml.safe_load(chart)["description"]) + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> int:
    """Write the page, or compare it; return the exit code."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: scripts/generate-chart-readme [--check]", file=sys.stderr)
        return 2
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    if missing := undocumented(values):
        print(f"values.yaml: no comment says what these are: {', '.join(missing)}")
        return 1
    page = readme(values, (CHART / "Chart.yaml").read_text(encoding="utf-8"))
    path = CHART / "README.md"
    if not check:
        path.write_text(page, encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != page:
        print(f"{path.name} of the chart differs from values.yaml; run ./scripts/generate-chart-readme")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
