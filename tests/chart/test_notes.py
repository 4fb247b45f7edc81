"""What Helm prints after an installation: commands that name objects of the release."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from support.chart import CHART, MATRIX, RELEASE, Values, matrix_render, needs_helm, run_helm

pytestmark = needs_helm

SHOW = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  notes: |
    {{- tpl (.Files.Get "files/NOTES.txt") . | nindent 4 }}
"""


def notes(folder: Path, name: str, change: Values) -> str:
    """Render the notes, which ``helm template`` leaves out, as an object of a copy of the chart."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "files" / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text(SHOW, encoding="utf-8")
    base, values = MATRIX[name]
    result = run_helm(dict(values) | dict(change), "--show-only", "templates/notes.yaml", base=base, chart=chart)
    assert result.returncode == 0, result.stderr
    text: str = yaml.safe_load(result.stdout)["data"]["notes"]
    return text


class TestNotes:
    @pytest.mark.parametrize("name", ["test", "production", "external everything"])
    def test_tell_the_next_three_commands(self, name: str, tmp_path: Path) -> None:
        text = notes(tmp_path, name, {})

        assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == ["1", "2", "3"]
        assert "tenants create demo" in text
        assert "keys create --tenant demo" in text
        for deployment in re.findall(r"deployment/(\S+)", text):
            assert deployment in matrix_render(name).of("Deployment")

    def test_warn_of_what_is_for_trials_only(self, tmp_path: Path) -> None:
        text = notes(tmp_path, "trial", {})

        assert "The mock broker keeps everything in memory" in text
        assert "make a secret of your own" in text

    def test_warn_of_services_without_credentials_of_their_own(self, tmp_path: Path) -> None:
        for number, (value, warned) in enumerate([("auto", True), (False, True), (True, False)]):
            text = notes(tmp_path / str(number), "production", {"perServiceCredentials": value})

            assert ("log in to the database as its owner" in text) == warned
            assert ("NATS asks for no password" in text) == warned
        assert "as its owner" not in notes(tmp_path / "trial", "trial", {})

    def test_say_that_nothing_is_taken_from_a_broker(self, tmp_path: Path) -> None:
        assert "The ingestion is switched off" in notes(tmp_path, "everything off", {})

    def test_say_where_messages_are_posted(self, tmp_path: Path) -> None:
        assert f"port-forward service/{RELEASE}-http-ingestion-worker 8090" in notes(tmp_path / "test", "test", {})
        assert "posted to https://in.example.org" in notes(tmp_path / "all", "everything on", {})
        assert "posted" not in notes(tmp_path / "production", "production", {})

    def test_name_the_public_address(self, tmp_path: Path) -> None:
        assert "https://api.example.org" in notes(tmp_path, "production", {})
