"""The brokers of ``sens up``, and what people are told about them."""

from pathlib import Path

import pytest

from sens_cli.up import brokers
from sens_cli.up.components import Options
from sens_cli.up.data import DataFolder
from sens_cli.up.platform import cautions
from sens_cli.up.ports import ports
from sens_common.errors import SensError

ANYWHERE = "0.0.0.0"  # noqa: S104 - not listened on


class TestMosquitto:
    def test_keeps_sessions_and_bounds_what_waits_for_them(self) -> None:
        lines = brokers.mosquitto_configuration(ports(0), "192.0.2.1", Path("/data/mosquitto")).splitlines()
        assert "listener 1883 192.0.2.1" in lines
        assert "persistence_location /data/mosquitto/" in lines
        assert "max_queued_bytes 268435456" in lines

    def test_that_is_not_installed_is_said_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
        with pytest.raises(SensError, match="mosquitto is not installed: install it"):
            brokers.brokers(DataFolder(tmp_path), ports(0), Options(broker="mosquitto"))


class TestCautions:
    def test_are_none_for_a_quiet_platform_of_this_machine(self) -> None:
        assert cautions(Options(quiet_fleet=True)) == []
        assert cautions(Options(simulator=False)) == []
        assert cautions(Options(simulator=False, mqtt_host="::1")) == []

    def test_name_what_others_can_do(self) -> None:
        (mqtt,) = cautions(Options(simulator=False, mqtt_host=ANYWHERE))
        assert mqtt.endswith("whoever reaches it can write and read everything")
        (api,) = cautions(Options(simulator=False, api_host="192.0.2.1"))
        assert "in plain HTTP" in api

    def test_announce_the_odd_messages_of_the_simulator(self) -> None:
        (odd,) = cautions(Options())
        assert odd.startswith("1 in 1,000 messages of the simulated sensors is malformed on purpose")
        assert "--quiet-fleet" in odd
