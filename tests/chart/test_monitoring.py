"""Alerts and dashboards ask for metrics that the services have, and each alert's runbook section exists."""

import importlib
import json
import re

import pytest
from prometheus_client.metrics import MetricWrapperBase

from support.chart import CHART, MATRIX, matrix_render, needs_helm, render
from support.services import ROOT, SERVICES

pytestmark = needs_helm

NAME = re.compile(r"\bsens_[a-z0-9_]+")


def exposed() -> set[str]:
    """Return the names that the services' metrics have in Prometheus."""
    names = set()
    packages = [service.package for service in SERVICES if (service.source / "metrics.py").is_file()]
    for package in (*packages, "sens_common.ingestion"):
        for member in vars(importlib.import_module(f"{package}.metrics")).values():
            if isinstance(member, MetricWrapperBase):
                [description] = member.describe()
                ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(description.type, [""])
                names |= {description.name + end for end in ends}
    return names


def rules() -> list[dict[str, object]]:
    [rule] = matrix_render("everything on").of("PrometheusRule").values()
    found: list[dict[str, object]] = rule.spec["groups"][0]["rules"]
    return found


def dashboards() -> list[dict[str, list[dict[str, list[dict[str, str]]]]]]:
    return [
        json.loads(content)
        for manifest in matrix_render("everything on").of("ConfigMap").values()
        for file, content in manifest.document["data"].items()
        if file.endswith(".json")
    ]


class TestMetrics:
    def test_of_alerts_exist(self) -> None:
        asked = {name for rule in rules() for name in NAME.findall(str(rule["expr"]))}

        assert len(rules()) >= 5
        assert asked
        assert asked <= exposed()

    def test_of_dashboards_exist(self) -> None:
        asked = {
            name
            for dashboard in dashboards()
            for panel in dashboard["panels"]
            for target in panel["targets"]
            for name in NAME.findall(target["expr"])
        }

        assert asked
        assert asked <= exposed()


class TestAlerts:
    def test_name_a_section_of_the_runbook_that_exists(self) -> None:
        page = (ROOT / "docs" / "operations" / "alerts.md").read_text(encoding="utf-8")
        sections = {title.lower() for title in re.findall(r"^## (\S+)$", page, re.MULTILINE)}

        assert sections == {str(rule["alert"]).lower() for rule in rules()}
        for rule in rules():
            annotations = rule["annotations"]
            assert isinstance(annotations, dict)
            url, _, anchor = annotations["runbook_url"].partition("#")
            assert url == "https://docs.example.org/operations/alerts/"
            assert anchor in sections

    def test_take_their_limits_from_the_values(self) -> None:
        assert "$" not in json.dumps([rule["expr"] for rule in rules()])
        assert any("0.9 * 4096" in str(rule["expr"]) for rule in rules())

    def test_have_the_times_that_the_runbook_tells(self) -> None:
        page = (ROOT / "docs" / "operations" / "alerts.md").read_text(encoding="utf-8")
        sections = dict(re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))

        assert {
            name: f"{'1' if minutes == 'a' else minutes}m"
            for name, text in sections.items()
            for minutes in re.findall(r"\b[Ff]or\s+(a|\d+)\s+minutes?\b", text)
        } == {rule["alert"]: rule["for"] for rule in rules()}


class TestSwitches:
    @pytest.mark.parametrize(
        ("value", "kind"),
        [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor"), ("prometheusRule", "PrometheusRule")],
    )
    def test_make_one_thing_each(self, value: str, kind: str) -> None:
        peers: list[dict[str, dict[str, str]]] = [{"podSelector": {}}]
        rendered = render({"monitoring": {value: True}, "networkPolicy": {"metricsFrom": peers}})

        kinds = {manifest.kind for manifest in rendered.manifests if "monitoring" in manifest.document["apiVersion"]}
        assert kinds == {kind}

    def test_find_the_port_that_has_the_metrics(self) -> None:
        rendered = matrix_render("everything on")
        found = {}
        for monitor in rendered.of("ServiceMonitor").values():
            labels = monitor.spec["selector"]["matchLabels"]
            [service] = [each for each in rendered.of("Service").values() if labels.items() <= each.labels.items()]
            [endpoint] = monitor.spec["endpoints"]
            [port] = [port for port in service.spec["ports"] if port["name"] == endpoint["port"]]
            rules = rendered.find("NetworkPolicy", service.component).spec["ingress"]
            peers = MATRIX["everything on"][1]["networkPolicy"]["metricsFrom"]  # type: ignore[index] # values are of many shapes
            assert {"from": peers, "ports": [{"protocol": "TCP", "port": port["port"]}]} in rules
            found[service.component] = port["port"]

        assert found == {"platform-api": 8000, "docs": 8081}

    def test_for_dashboards_make_config_maps(self) -> None:
        files = list((CHART / "files" / "dashboards").glob("*.json"))

        assert len(dashboards()) == len(files) >= 1
        assert dashboards()[0].keys() >= {"title", "panels", "uid"}
