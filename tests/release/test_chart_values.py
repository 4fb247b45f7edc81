"""One value of the chart's values, however people write YAML."""

import sys

import pytest

from sens_cli.release.versions import ReleaseError
from tools.release.chart_values import find_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("images:\n  registry: ghcr.io/a/b\n", "ghcr.io/a/b"),
        ("images:\n    registry:   'ghcr.io/a/b' # ours\n", "ghcr.io/a/b"),
        ('{"images": {"registry": "ghcr.io/a/b"}}', "ghcr.io/a/b"),
        ("images: {tag: 1, registry: ä}\n", "ä"),
        ('---\nother: [1]\nimages:\n  registry: ""\n', ""),
    ],
)
def test_is_found_with_where_it_is(text: str, value: str) -> None:
    found = find_scalar(text, "images", "registry")

    assert found is not None
    assert (found.value, text[found.start : found.end].strip("'\"")) == (value, value)


@pytest.mark.parametrize(
    "text",
    [
        "", "images", "images:\n", "images: [\n", "images: []\n", "registry: a\n", "images:\n  registry: [a]\n",
        "images:\n  registry: a\n  registry: b\n", "images:\n  registry: a\nimages:\n  registry: a\n", "a: b\n---\nimages:\n  registry: a\n",
        "images:\n\tregistry: a\n", "images:\n  registry: # a\n", "\x00",
    ],
)  # fmt: skip
def test_that_is_missing_twice_there_or_no_scalar_is_none(text: str) -> None:
    assert find_scalar(text, "images", "registry") is None


def test_can_not_be_read_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(
        ReleaseError, match=r"PyYAML is missing: install it, or name a Python that has it in SENS_PYTHON"
    ):
        find_scalar("a: b", "a")
