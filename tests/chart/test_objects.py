"""Every rendered object is one that Kubernetes takes, in every combination of values."""

import json
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from support.chart import CHART, KUBERNETES, RELEASE, Manifest, every_render, matrix_render, needs_helm, render

pytestmark = needs_helm

VERSIONS = {"ServiceMonitor": "v1", "PodMonitor": "v1", "PrometheusRule": "v1", "ScaledObject": "v1alpha1"}
RESOURCES = {  # of others: their definitions, as their projects publish them
    kind: Path(__file__).parent / "schemas" / f"{kind.lower()}_{version}.json" for kind, version in VERSIONS.items()
}


def problem(manifest: Manifest) -> str | None:
    if manifest.kind in RESOURCES:
        schema = json.loads(RESOURCES[manifest.kind].read_text(encoding="utf-8"))
        errors = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(manifest.document)]
        return f"{manifest.kind} {manifest.name}: {errors}" if errors else None
    try:
        kubernetes_validate.validate(manifest.document, KUBERNETES.rpartition(".")[0], strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{manifest.kind} {manifest.name}: {error.message}"
    return None


class TestEveryObject:
    @every_render
    def test_agrees_with_the_definitions_of_kubernetes_and_of_its_extensions(self, name: str) -> None:
        manifests = matrix_render(name).manifests

        assert [found for found in map(problem, manifests) if found] == []
        assert len(manifests) >= 1

    def test_would_be_found_when_it_disagreed(self) -> None:
        [service, *_] = matrix_render("test").of("Service").values()
        document = json.loads(json.dumps(service.document))
        document["spec"]["portz"] = []

        assert problem(Manifest(document))

    @pytest.mark.parametrize("kind", sorted(VERSIONS))
    def test_of_an_extension_would_be_found_too(self, kind: str) -> None:
        [manifest, *_] = matrix_render("everything on").of(kind).values()

        assert problem(Manifest(manifest.document | {"spec": manifest.spec | {"unknown": 1}}))

    @every_render
    def test_has_a_name_of_its_own(self, name: str) -> None:
        names = [(manifest.kind, manifest.name) for manifest in matrix_render(name).manifests]

        assert len(names) == len(set(names))

    @every_render
    def test_is_in_the_namespace_of_the_release(self, name: str) -> None:
        assert {manifest.document["metadata"]["namespace"] for manifest in matrix_render(name).manifests} == {RELEASE}

    def test_of_the_default_values_comes_from_a_release_without_extensions(self) -> None:
        versions = {manifest.document["apiVersion"] for manifest in matrix_render("test").manifests}

        assert not {version for version in versions if "." in version} - {"networking.k8s.io/v1"}


class TestNames:
    def test_are_those_of_the_runbooks(self) -> None:
        rendered = matrix_render("test")

        assert {f"{RELEASE}-platform-api", f"{RELEASE}-docs"} <= rendered.of("Deployment").keys()
        assert {f"{RELEASE}-timescaledb", f"{RELEASE}-nats"} <= rendered.of("StatefulSet").keys()

    def test_can_be_given(self) -> None:
        assert "sens-platform-api" in render({"fullnameOverride": "sens"}).of("Deployment")

    def test_stay_within_the_limit_of_63_characters(self) -> None:
        rendered = render({"fullnameOverride": "a" * 30})

        for manifest in rendered.manifests:
            # A StatefulSet's pods carry its name and a hash of ten characters in a label.
            assert len(manifest.name) + (11 if manifest.kind == "StatefulSet" else 0) <= 63


class TestVersion:
    def test_of_the_chart_is_the_product_s(self) -> None:

        product = tomllib.loads((CHART.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

        assert chart["version"] == product
        assert chart["appVersion"] == product


@pytest.mark.parametrize("kind", sorted(RESOURCES))
class TestResourcesOfOthers:
    def test_appear_when_they_are_asked_for(self, kind: str) -> None:
        assert matrix_render("everything on").of(kind)

    def test_do_not_appear_by_themselves(self, kind: str) -> None:
        assert not matrix_render("production").of(kind)
