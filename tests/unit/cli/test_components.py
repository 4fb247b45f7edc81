"""The components' settings: each service reads what it is given, and nothing else."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sens_cli.up.brokers import MALFORMED_ONE_IN
from sens_cli.up.components import Component, Options, inherited, services
from sens_cli.up.data import DataFolder
from sens_cli.up.platform import parts
from sens_cli.up.ports import ports
from sens_common.settings import ServiceSettings
from sens_docs_site.settings import DocsSiteSettings
from sens_mock_mqtt_broker.settings import MockBrokerSettings
from sens_mqtt_ingestion_worker.settings import IngestionSettings
from sens_platform_api.settings import ApiSettings
from sens_telemetry_worker.settings import TelemetrySettings

TABLE = ports(100)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    folder.open()
    yield folder
    folder.close()


def load[S: ServiceSettings](
    settings: type[S], name: str, data: DataFolder, monkeypatch: pytest.MonkeyPatch, options: Options | None = None
) -> S:
    """Return the settings that a component reads from the environment it gets."""
    component = next(each for each in parts(data, TABLE, options or Options())[0] if each.name == name)
    for variable in [each for each in os.environ if each.startswith("SENS_")]:
        monkeypatch.delenv(variable)
    for variable, value in component.environment.items():
        monkeypatch.setenv(variable, value)
    return settings.load()


class TestEachService:
    def test_reads_the_ports_of_the_table(self, data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        broker = load(MockBrokerSettings, "mock-mqtt-broker", data, monkeypatch)
        assert (broker.broker.port, broker.broker.port_v5, broker.operations.port) == (1983, 1984, 8183)
        ingestion = load(IngestionSettings, "mqtt-ingestion-worker", data, monkeypatch)
        assert (ingestion.mqtt.url, ingestion.operations.port) == ("mqtt://127.0.0.1:1983", 8181)
        telemetry = load(TelemetrySettings, "telemetry-worker", data, monkeypatch)
        assert (telemetry.database.port, telemetry.nats.url) == (5532, "nats://127.0.0.1:4322")
        assert load(ApiSettings, "platform-api", data, monkeypatch).http.port == 8100
        assert load(DocsSiteSettings, "docs", data, monkeypatch).http.port == 8180

    def test_reads_the_fleet_of_the_options(self, data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        options = Options(simulator=False, devices=7, rate=2.5, mqtt_host="0.0.0.0")  # noqa: S104 - not listened on
        broker = load(MockBrokerSettings, "mock-mqtt-broker", data, monkeypatch, options)
        assert (broker.fleet.enabled, broker.fleet.devices, broker.fleet.rate) == (False, 7, 2.5)
        assert broker.broker.host == "0.0.0.0"  # noqa: S104 - same
        ingestion = load(IngestionSettings, "mqtt-ingestion-worker", data, monkeypatch, options)
        assert ingestion.mqtt.url == "mqtt://127.0.0.1:1983"

    def test_listens_where_the_options_say(self, data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        options = Options(api_host="192.0.2.1", docs_host="::1")
        assert load(ApiSettings, "platform-api", data, monkeypatch, options).http.host == "192.0.2.1"
        assert load(DocsSiteSettings, "docs", data, monkeypatch, options).http.host == "::1"

    def test_a_quiet_fleet_makes_no_malformed_messages(self, data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        options = Options(quiet_fleet=True)
        assert load(MockBrokerSettings, "mock-mqtt-broker", data, monkeypatch, options).fleet.malformed_share == 0
        default = load(MockBrokerSettings, "mock-mqtt-broker", data, monkeypatch).fleet.malformed_share
        assert default == 1 / MALFORMED_ONE_IN

    def test_gets_its_passwords_from_the_secrets(self, data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        telemetry = load(TelemetrySettings, "telemetry-worker", data, monkeypatch)
        database = telemetry.worker_database()
        assert database.user == "sens_platform_worker"
        assert database.password is not None
        assert database.password.get_secret_value() == data.secret("database-worker-password")
        assert telemetry.database.password is None  # the owner's
        assert telemetry.nats.user == "telemetry-worker"
        assert telemetry.nats.password is not None
        assert telemetry.nats.password.get_secret_value() == data.secret("nats-telemetry-password")

    def test_does_not_inherit_settings_of_other_instances(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_DATABASE__CA_FILE", "/elsewhere")
        monkeypatch.setenv("SENS_NATS__TOKEN", "other")
        monkeypatch.setenv("PGPASSWORD", "other")
        monkeypatch.setenv("SENS_LOG__LEVEL", "debug")
        environment = inherited("abc")
        assert not {"SENS_DATABASE__CA_FILE", "SENS_NATS__TOKEN", "PGPASSWORD"} & set(environment)
        assert environment["SENS_LOG__LEVEL"] == "debug"
        assert environment["SENS_PRODUCT_COMMIT"] == "abc"


class TestTheOrder:
    def test_waits_only_for_what_exists_and_never_in_a_circle(self, data: DataFolder) -> None:
        for key in (None, "sens_key"):
            if key is not None:
                data.write_secret("demo-api-key", key)
            components, steps = parts(data, TABLE, Options())
            waits = {component.name: set(component.after) for component in components}
            waits |= {step.name: set(step.after) for step in steps}
            done: set[str] = set()
            while remaining := {name for name in waits if name not in done}:
                free = {name for name in remaining if waits[name] <= done}
                assert free, f"these wait for each other, or for what does not exist: {remaining}"
                done |= free

    def test_stops_sources_first_and_stores_last(self, data: DataFolder) -> None:
        everything: list[Component] = parts(data, TABLE, Options())[0]
        names = [component.name for component in sorted(everything, key=lambda component: component.stop_stage)]
        assert names[0] == "mock-mqtt-broker"
        assert names[1:4] == ["mqtt-ingestion-worker", "http-ingestion-worker", "telemetry-worker"]
        assert set(names[-2:]) == {"postgresql", "nats"}

    def test_lets_no_message_meet_a_missing_tenant(self, data: DataFolder) -> None:
        telemetry = next(
            each for each in services(data, TABLE, Options(), data.site) if each.name == "telemetry-worker"
        )
        assert "first tenant" in telemetry.after
