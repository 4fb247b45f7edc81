"""What an environment's values say, and what ``sens verify`` is told of it, is the same."""

import tomllib
from pathlib import Path

import pytest
import yaml

from sens_cli.verify.environment import Environment
from support.chart import RELEASE, needs_helm, render


@pytest.mark.parametrize("name", ["test", "production"])
class TestAnEnvironment:
    def test_says_itself_what_is_public_and_tells_verify_the_same(self, gitops: Path, name: str) -> None:
        folder = gitops / "environments" / name
        ingress = yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8"))["ingress"]
        written = tomllib.loads((folder / "environment.toml").read_text(encoding="utf-8"))
        environment = Environment.read(gitops, name)

        # Written out in both, not left to a default.
        assert {"public_data", "public_metrics"} <= written.keys()
        assert (ingress["publicData"], ingress["publicMetrics"]) == (
            environment.public_data,
            environment.public_metrics,
        )

    @needs_helm
    def test_gives_the_metrics_of_the_api_on_its_public_host(self, gitops: Path, name: str) -> None:
        values = yaml.safe_load((gitops / "environments" / name / "values.yaml").read_text(encoding="utf-8"))
        ingress = render(values, base=None).of("Ingress")[f"{RELEASE}-platform-api"]
        [rule] = ingress.spec["rules"]

        assert "/metrics" in {path["path"] for path in rule["http"]["paths"]}
