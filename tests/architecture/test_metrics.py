"""Every metric is declared once, in ``metrics.py``, with its meaning, a name by the rule, and labels from bounded sets."""

import ast
import importlib
import importlib.util
import re

import pytest
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from sens_common.ingestion import metrics as ingestion_metrics
from support.services import SERVICES, Service

COMPONENTS = "service|ingestion|telemetry|api|broker|fleet|docs|http"
UNITS = "seconds|bytes|ratio|count|messages|rows|info"
NAME = re.compile(rf"sens_({COMPONENTS})(_[a-z0-9]+)+_({UNITS}|total)|sens_({COMPONENTS})_({UNITS})")

# Each label's values come from a set that no device and no message can widen.
LABELS = {
    "tenant",  # tenants are made by the operator; a name in a topic that is no tenant's is never a label
    "reason",  # sens_common.dead_letters.Reason
    "method",  # HTTP's methods
    "route",  # the API's own route templates, never a path
    "status",  # HTTP's status codes
    "outcome",  # words in the code
    "state",  # words in the code: what a lane is doing
    "kind",  # number, boolean, text
    "path",  # words in the code: the ways by which rows reach a table
    "protocol",  # MQTT's two versions
    "token",  # words in the code: what the token of a network's request says of its sender
    "part",  # words in the code: the parts of a service that have problems
}
COMMON = Service("common")
CONSTRUCTORS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}


def metrics() -> list[tuple[Service, MetricWrapperBase]]:
    found = []
    for service in SERVICES:
        if importlib.util.find_spec(f"{service.package}.metrics") is None:
            continue
        module = importlib.import_module(f"{service.package}.metrics")
        found += [(service, member) for member in vars(module).values() if isinstance(member, MetricWrapperBase)]
    shared = vars(ingestion_metrics).values()
    return found + [(COMMON, member) for member in shared if isinstance(member, MetricWrapperBase)]


def description_of(metric: MetricWrapperBase) -> Metric:
    [description] = metric.describe()
    return description


METRICS = [metric for _service, metric in metrics()]


def exposed_name(metric: MetricWrapperBase) -> str:
    description = description_of(metric)
    return f"{description.name}_total" if description.type == "counter" else description.name


class TestEveryMetric:
    def test_exists(self) -> None:
        assert len(METRICS) >= 1

    def test_has_a_name_by_the_rule(self) -> None:
        for metric in METRICS:
            name = exposed_name(metric)
            assert NAME.fullmatch(name), f"{name} is not sens_<component>_<noun>_<unit or total>"
            assert name.endswith("_total") == (description_of(metric).type == "counter"), name

    def test_says_what_it_means(self) -> None:
        for metric in METRICS:
            documentation = description_of(metric).documentation
            assert len(documentation) >= len("Bytes read."), exposed_name(metric)
            assert documentation.endswith("."), exposed_name(metric)

    def test_has_labels_from_bounded_sets_only(self) -> None:
        for metric in METRICS:
            assert set(metric._labelnames) <= LABELS, exposed_name(metric)

    def test_has_a_name_of_its_own(self) -> None:
        names = [exposed_name(metric) for _service, metric in metrics()]

        assert sorted(names) == sorted(set(names))

    @pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
    def test_is_declared_in_metrics_py(self, service: Service) -> None:
        elsewhere = [
            f"{module.relative_to(service.source)}:{node.lineno}"
            for module in service.modules
            if module.name != "metrics.py"
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
            if {alias.name for alias in node.names} & CONSTRUCTORS
        ]

        assert elsewhere == []
