"""``sens verify`` understands the GitOps repository as it is written, and a real cluster's answers about rights."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sens_cli.__main__ import app
from sens_cli.verify.environment import CHANNELS, Environment
from support.cluster import Cluster


def verify(gitops: Path, *arguments: str) -> tuple[int, str]:
    """Return exit code and output of ``sens verify`` for test."""
    command = ["verify", "--environment", "test", "--gitops", str(gitops), *arguments]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    return result.exit_code, result.output


class TestTheGitOpsRepository:
    @pytest.mark.parametrize("name", ["test", "production"])
    def test_describes_its_environments(self, gitops: Path, name: str) -> None:
        environment = Environment.read(gitops, name).completed({})

        assert environment.namespace == f"sens-{name}"
        assert environment.release == f"sens-platform-{name}"
        assert environment.channel in CHANNELS
        assert environment.account == "system:serviceaccount:sens-test:deploy-test"
        assert environment.production_namespace == "sens-production"
        assert environment.expected is None


class TestTheRightsOfDeployTest:
    @pytest.fixture(autouse=True)
    def _kubeconfig(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)

    @pytest.fixture
    def production(self, cluster: Cluster) -> Iterator[str]:
        """Give a namespace of the test's own that stands for production."""
        name = f"sens-verify-{secrets.token_hex(4)}"
        cluster.kubectl("create", "namespace", name)
        try:
            yield name
        finally:
            cluster.kubectl("delete", "namespace", name, "--wait=false")

    def test_are_those_of_the_bootstrap(self, gitops: Path) -> None:
        code, output = verify(gitops, "--check", "access")

        assert code == 0, output
        assert "2 ok, 0 failed, 0 not run" in output

    def test_are_found_when_they_are_too_many(self, gitops: Path, cluster: Cluster, production: str) -> None:
        in_production = ("--namespace", production)
        cluster.kubectl("create", "role", "extra", "--verb=patch", "--resource=deployments.apps", *in_production)
        account = "--serviceaccount=sens-test:deploy-test"
        cluster.kubectl("create", "rolebinding", "extra", "--role=extra", account, *in_production)

        code, output = verify(gitops, "--production-namespace", production, "--check", "access.production")

        assert code == 1
        assert f"can patch deployments.apps --namespace={production}" in output
