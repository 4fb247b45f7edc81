"""The data folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sens_cli.up.data import DataFolder
from sens_common.command_line.instance import Instance
from sens_common.errors import SensError


@pytest.fixture
def instance() -> Instance:
    return Instance(
        process=1,
        version="1.2.3",
        ready=True,
        host="127.0.0.1",
        mqtt_host="0.0.0.0",  # noqa: S104 - not listened on
        api_host="::",
        docs_host="192.0.2.7",
        ports={"api": 8000, "docs": 8080},
        operations={},
        tenant="demo",
        key_file="key",
    )


class TestAddresses:
    def test_are_those_at_which_this_machine_reaches_what_listens(self, instance: Instance) -> None:
        assert instance.reachable_mqtt_host == "127.0.0.1"
        assert instance.api_url == "http://127.0.0.1:8000"
        assert instance.docs_url == "http://192.0.2.7:8080"


class TestSecrets:
    def test_are_made_once_and_kept(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.open()
        made = folder.secret("database-password")
        assert len(made) == 43
        assert folder.secret("database-password") == made
        assert folder.secret("nats-password") != made
        folder.close()

    def test_are_readable_by_their_owner_alone(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.open()
        folder.secret("database-password")
        assert (folder.secrets / "database-password").stat().st_mode & 0o777 == 0o600
        assert folder.secrets.stat().st_mode & 0o777 == 0o700
        folder.close()

    def test_that_are_empty_are_made_anew(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.open()
        (folder.secrets / "database-password").write_text("\n")
        assert folder.secret("database-password")
        folder.close()


class TestTheLock:
    def test_keeps_a_second_instance_out(self, tmp_path: Path, instance: Instance) -> None:
        first, second = DataFolder(tmp_path), DataFolder(tmp_path)
        first.open()
        first.write_instance(instance)
        with pytest.raises(SensError, match=r"in use by another sens up \(process 1, API at http://127.0.0.1:8000\)"):
            second.open()
        assert Instance.load(tmp_path) == instance
        first.close()

    def test_is_given_back(self, tmp_path: Path, instance: Instance) -> None:
        first, second = DataFolder(tmp_path), DataFolder(tmp_path)
        first.open()
        first.write_instance(instance)
        first.close()
        assert Instance.load(tmp_path) is None
        second.open()
        second.close()


class TestAFolderThatCannotBeUsed:
    def test_is_named_with_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SensError, match="--data-dir"):
            DataFolder(tmp_path / "file" / "data").open()

    def test_may_be_on_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=17 << 20))
        with pytest.raises(SensError, match="has 17 MB left"):
            DataFolder(tmp_path).open()
        monkeypatch.undo()
        again = DataFolder(tmp_path)
        again.open()  # the lock was given back
        again.close()


class TestLogs:
    def test_of_the_previous_start_are_set_aside(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path)
        folder.open()
        folder.log_file("nats").write_text("old")
        folder.rotate_logs()
        assert not folder.log_file("nats").exists()
        assert (folder.logs / "nats.log.1").read_text() == "old"
        folder.close()

    def test_are_bounded_while_they_are_written(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path)
        folder.open()
        with folder.log_file("nats").open("ab", buffering=0) as log:
            log.write(b"0123456789ab")
            folder.bound_logs(10)
            log.write(b"new")
        assert folder.log_file("nats").read_bytes() == b"new"
        assert (folder.logs / "nats.log.1").read_bytes() == b"0123456789ab"
        folder.close()
