"""The chart's commands print what Helm makes, and say what is missing where there is no Helm."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support.chart import needs_helm
from support.services import ROOT

COMMANDS = ("helm-lint", "helm-template", "helm-template-production")


@needs_helm
class TestCommands:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_succeed(self, name: str) -> None:
        result = subprocess.run([ROOT / "scripts" / name], capture_output=True, text=True, check=False)

        assert result.returncode == 0, result.stderr
        assert result.stdout

    def test_take_further_arguments(self) -> None:
        script = ROOT / "scripts" / "helm-template"
        result = subprocess.run([script, "--set", "docs.enabled=false"], capture_output=True, text=True, check=True)

        names = [document["metadata"]["name"] for document in yaml.safe_load_all(result.stdout) if document]
        assert "sens-platform-test-platform-api" in names
        assert "sens-platform-test-docs" not in names


class TestWithoutHelm:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_and_without_go_they_fail_and_say_so(self, name: str, tmp_path: Path) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        for program in ("bash", "dirname", "env"):
            found = shutil.which(program)
            assert found is not None
            (programs / program).symlink_to(found)
        (tmp_path / "scripts" / "lib").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
        shutil.copy(ROOT / "scripts" / "lib" / "helm.sh", tmp_path / "scripts" / "lib")

        result = subprocess.run(
            [tmp_path / "scripts" / name],
            env={"PATH": str(programs), "SENS_GO_FOLDER": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

        assert result.returncode != 0
        assert "Helm is missing: install helm, or Go" in result.stderr
