"""A GitOps repository whose environments take messages by HTTP."""

from pathlib import Path

import pytest

from sens_cli.verify.environment import Environment
from support.gitops import values_of, written
from support.services import ROOT
from tools.gitops.parameters import read_parameters


class TestHttpIngestion:
    @pytest.mark.parametrize("environment", ["test", "production"])
    def test_has_the_host_in_the_values_and_for_the_checks(self, tmp_path: Path, environment: str) -> None:
        folder = tmp_path / "repository"
        written(folder, "http_ingestion=on", "domain=example.org")
        values = values_of(folder, environment)
        host = "in.example.org" if environment == "production" else "in.dev.example.org"
        assert values["httpIngestion"] == {"enabled": True}
        assert values["ingress"]["httpIngestionHost"] == host
        known = Environment.read(folder, environment).http_ingestion_host
        assert known is not None
        assert known.host == host
        assert host in (folder / "README.md").read_text(encoding="utf-8")

    def test_is_off_by_default(self, gitops: Path) -> None:
        parameters = read_parameters(ROOT / "infra" / "gitops" / "parameters.toml")
        assert parameters["http_ingestion"].value == "off"
        assert "httpIngestion" not in values_of(gitops, "test")
        assert Environment.read(gitops, "test").http_ingestion_host is None
