"""Settings of the mock broker."""

import pytest

from sens_common.errors import SettingsError
from sens_mock_mqtt_broker.settings import MockBrokerSettings


class TestDefaults:
    def test_the_ports_are_the_platforms(self) -> None:
        settings = MockBrokerSettings.load()
        assert (settings.broker.port, settings.broker.port_v5, settings.operations.port) == (1883, 1884, 8081)

    def test_the_fleet_publishes_for_the_first_tenant(self) -> None:
        fleet = MockBrokerSettings.load().fleet
        assert (fleet.enabled, fleet.tenant, fleet.devices, fleet.rate) == (True, "demo", 10, 10)


class TestErrors:
    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("SENS_BROKER__HOST", "localhost"),
            ("SENS_BROKER__PORT", "0"),
            ("SENS_BROKER__PORT_V5", "65536"),
            ("SENS_BROKER__BUFFER_BYTES", "1"),
            ("SENS_FLEET__DEVICES", "0"),
            ("SENS_FLEET__RATE", "nan"),
            ("SENS_FLEET__RATE", "0"),
            ("SENS_FLEET__SEED", "-1"),
            ("SENS_FLEET__TENANT", "Demo"),
            ("SENS_FLEET__TENANT", "demo\n"),
            ("SENS_FLEET__MALFORMED_SHARE", "1.5"),
        ],
    )
    def test_a_wrong_value_is_named_by_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        with pytest.raises(SettingsError, match=variable):
            MockBrokerSettings.load()

    def test_both_listeners_on_one_port_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_BROKER__PORT", "2000")
        monkeypatch.setenv("SENS_BROKER__PORT_V5", "2000")
        with pytest.raises(SettingsError, match="PORT and PORT_V5 must differ"):
            MockBrokerSettings.load()
