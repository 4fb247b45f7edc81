"""The settings of the administration: those of the environment, or of the instance in a data folder."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from sens_common.command_line.instance import Instance
from sens_common.command_line.local_settings import NATS_SECRETS, administration_environment
from sens_common.errors import SensError, UnavailableError
from sens_common.nats_permissions import API_USER

SECRETS = {"database-password": "owner", "database-api-password": "api", "database-worker-password": "worker"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data folder of an instance whose PostgreSQL has port 5, and whose NATS has port 4."""
    instance = Instance(
        process=1,
        version="1.0.0",
        ready=True,
        host="127.0.0.1",
        mqtt_host="127.0.0.1",
        api_host="127.0.0.1",
        docs_host="127.0.0.1",
        ports={"postgres": 5, "nats": 4},
        operations={},
        tenant="demo",
        key_file="",
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "instance.json").write_text(json.dumps(dataclasses.asdict(instance)), encoding="utf-8")
    (tmp_path / "secrets").mkdir()
    for name, value in {**SECRETS, NATS_SECRETS[API_USER]: "nats"}.items():
        (tmp_path / "secrets" / name).write_text(f"{value}\n", encoding="ascii")
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SENS_", "PG"))]:
        monkeypatch.delenv(name)


class TestSettings:
    def test_are_those_of_the_instance_where_no_database_is_named(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGHOST", "elsewhere")
        monkeypatch.setenv("SENS_NATS__URL", "nats://elsewhere:4222")
        before = dict(os.environ)
        with administration_environment(data_dir):
            assert os.environ["SENS_DATABASE__PORT"] == "5"
            assert os.environ["SENS_DATABASE__PASSWORD"] == "owner"
            assert os.environ["SENS_API_LOGIN__PASSWORD"] == "api"
            assert os.environ["SENS_NATS__URL"] == "nats://127.0.0.1:4"
            assert os.environ["SENS_NATS__PASSWORD"] == "nats"
            assert "PGHOST" not in os.environ
        assert dict(os.environ) == before

    def test_are_taken_back_when_the_work_fails(self, data_dir: Path) -> None:
        before = dict(os.environ)
        with pytest.raises(SensError), administration_environment(data_dir):
            raise SensError
        assert dict(os.environ) == before

    def test_of_the_environment_go_first(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_DATABASE__HOST", "db.example.com")
        before = dict(os.environ)
        with administration_environment(data_dir):
            assert dict(os.environ) == before

    def test_are_missing_without_an_instance(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="or name the database"), administration_environment(tmp_path):
            pass

    def test_are_missing_without_the_secrets(self, data_dir: Path) -> None:
        (data_dir / "secrets" / "database-password").unlink()
        with pytest.raises(SensError, match="database-password can't be read"), administration_environment(data_dir):
            pass
