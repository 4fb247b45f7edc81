"""Settings of the ingestion worker."""

import pytest

from sens_common.errors import SettingsError
from sens_mqtt_ingestion_worker.settings import IngestionSettings


class TestTopicFilters:
    @pytest.mark.parametrize("value", ["sens/v1/+/+/telemetry", "#", "$share/sens/sens/v1/+/+/telemetry", "a/b/#"])
    def test_of_the_standard_are_taken(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_MQTT__TOPIC_FILTERS", f'["{value}"]')
        assert IngestionSettings.load().mqtt.topic_filters == [value]

    @pytest.mark.parametrize("value", ["", "a+/b", "#/a", "a/b#", "$share/group", "$share//a", "$share/g+/a"])
    def test_that_are_wrong_are_refused_with_the_variable(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_MQTT__TOPIC_FILTERS", f'["{value}"]')
        with pytest.raises(SettingsError, match="SENS_MQTT__TOPIC_FILTERS"):
            IngestionSettings.load()

    def test_that_overlap_are_refused_with_both_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_MQTT__TOPIC_FILTERS", '["sens/v1/+/+/telemetry", "sens/v1/demo/#"]')
        with pytest.raises(
            SettingsError, match=r"SENS_MQTT__TOPIC_FILTERS.*sens/v1/\+/\+/telemetry and sens/v1/demo/#"
        ):
            IngestionSettings.load()


class TestUrl:
    @pytest.mark.parametrize("value", ["http://x:1", "mqtt://", "mqtt://user:secret@host:1883", "host:1883"])
    def test_that_is_none_is_refused_without_repeating_it(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_MQTT__URL", value)
        with pytest.raises(SettingsError, match="SENS_MQTT__URL") as caught:
            IngestionSettings.load()
        assert "secret" not in str(caught.value)


class TestClientId:
    def test_may_not_be_the_replays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_MQTT__CLIENT_ID", "replay")
        with pytest.raises(SettingsError, match="reserved"):
            IngestionSettings.load()
