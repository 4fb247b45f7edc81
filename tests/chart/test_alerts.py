"""Each alert fires at its time and not before, and keeps silent at what comes close: promtool on the series of alerts.yaml."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from support.chart import RELEASE, go_environment, matrix_render, needs_helm
from support.yaml_documents import documents_of

pytestmark = [needs_helm, pytest.mark.skipif(shutil.which("promtool") is None, reason="not run: no promtool")]

MINUTES: Final = 30

type Series = Mapping[str, str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Firing(_Strict):
    """What makes an alert fire."""

    true_from: int = Field(alias="from")
    labels: dict[str, str] = {}
    series: dict[str, str]


class Case(_Strict):
    """An alert's entry in alerts.yaml."""

    fires: Firing
    silent: dict[str, dict[str, str]]


class Rule(BaseModel):
    """An alert of the rendered chart."""

    alert: str
    time: str = Field(alias="for", pattern=r"^[0-9]+m$")
    labels: dict[str, str]
    annotations: dict[str, str]


class Group(BaseModel):
    """Rules that are evaluated together."""

    rules: list[Rule]


class Groups(BaseModel):
    """The specification of a PrometheusRule."""

    groups: list[Group]


CASES: Final = {
    name: Case.model_validate(entry)
    for name, entry in documents_of(Path(__file__).with_name("alerts.yaml").read_text(encoding="utf-8"))[0].items()
}


@cache
def groups() -> dict[str, object]:
    """Return the rules as Prometheus reads them."""
    [manifest] = matrix_render("everything on").of("PrometheusRule").values()
    return manifest.spec


@cache
def rules_file() -> str:
    """Return the file that Prometheus reads them from."""
    return yaml.safe_dump(groups())


@cache
def rules() -> dict[str, Rule]:
    """Return the alerts by name."""
    return {rule.alert: rule for rule in Groups.model_validate(groups()).groups[0].rules}


def in_namespace(series: str) -> str:
    """Return a series of the release's namespace, unless it names one.

    >>> in_namespace('up{pod="a"}')
    'up{namespace="sens-platform-test",pod="a"}'
    """
    match = re.fullmatch(r"(\w+)(?:\{(.+)\})?", series)
    assert match is not None, series
    name, labels = match[1], match[2] or ""
    if "namespace=" not in labels:
        labels = f'namespace="{RELEASE}",{labels}'.removesuffix(",")
    return f"{name}{{{labels}}}"


def promtool(folder: Path, *arguments: str) -> None:
    """Run promtool in a folder that has the rules."""
    (folder / "rules.yaml").write_text(rules_file(), encoding="utf-8")
    result = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, env=go_environment()
    )
    assert result.returncode == 0, result.stdout + result.stderr


def expect(folder: Path, alert: str, series: Series, firing: Mapping[int, list[dict[str, object]]]) -> None:
    """Check which alerts fire at which minute (Prometheus, "Unit Testing for Rules")."""
    test = {
        "interval": "1m",
        "input_series": [{"series": in_namespace(name), "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": alerts} for minute, alerts in firing.items()
        ],
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    promtool(folder, "test", "rules", "test.yaml")


class TestRules:
    def test_are_rules_for_prometheus(self, tmp_path: Path) -> None:
        promtool(tmp_path, "check", "rules", "rules.yaml")

    def test_all_have_a_case(self) -> None:
        assert rules().keys() == CASES.keys()


@pytest.mark.parametrize("alert", CASES)
class TestAlert:
    def test_fires_when_its_time_is_over_and_not_a_minute_earlier(self, alert: str, tmp_path: Path) -> None:
        rule, fires = rules()[alert], CASES[alert].fires
        due = fires.true_from + int(rule.time.removesuffix("m"))
        expected: dict[str, object] = {
            "exp_labels": rule.labels | fires.labels,
            "exp_annotations": rule.annotations,
        }
        before: dict[int, list[dict[str, object]]] = {minute: [] for minute in range(due)}

        expect(tmp_path, alert, fires.series, before | {due: [expected]})

    def test_keeps_silent_at_what_comes_close(self, alert: str, tmp_path: Path) -> None:
        for situation, series in CASES[alert].silent.items():
            folder = tmp_path / situation
            folder.mkdir()

            expect(folder, alert, series, {minute: [] for minute in range(MINUTES + 1)})
