"""An upgrade from any earlier version keeps what Kubernetes does not let change, and what data and clients are found by.

``identities/VERSION.json`` records it for each version of the chart; write a new version's with
``python -m pytest tests/chart/test_upgrade.py`` after ``SENS_RECORD_IDENTITY=1``.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.chart import CHART, Render, matrix_render, needs_helm

pytestmark = needs_helm

FOLDER = Path(__file__).parent / "identities"
CASES = ("test", "production", "external everything")


def identity(rendered: Render) -> dict[str, Any]:
    """Return what must not change, by kind and name."""
    found: dict[str, Any] = {}
    for manifest in rendered.manifests:
        key = f"{manifest.kind}/{manifest.name}"
        if manifest.kind == "Deployment":
            found[key] = {"selector": manifest.spec["selector"]}
        elif manifest.kind == "StatefulSet":
            found[key] = {
                name: manifest.spec.get(name)
                for name in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")
            }
            found[key]["mounts"] = {
                container["name"]: [mount for mount in container["volumeMounts"] if mount["name"] == "data"]
                for container in manifest.spec["template"]["spec"]["containers"]
            }
        elif manifest.kind == "Service":
            found[key] = {"clusterIP": manifest.spec.get("clusterIP"), "selector": manifest.spec["selector"]}
    return found


def current() -> dict[str, Any]:
    return {case: identity(matrix_render(case)) for case in CASES}


if os.environ.get("SENS_RECORD_IDENTITY"):
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]
    (FOLDER / f"{version}.json").write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")


class TestUpgrade:
    def test_is_known_from_a_version(self) -> None:
        assert list(FOLDER.glob("*.json"))

    @pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
    def test_keeps_what_may_not_change(self, file: Path) -> None:
        before = json.loads(file.read_text(encoding="utf-8"))
        after = current()
        for case in before:
            kept = {key: after[case].get(key) for key in before[case]}
            assert kept == before[case]

    def test_is_not_hindered_by_a_version_in_what_may_not_change(self) -> None:
        version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]

        assert version not in json.dumps(current())
