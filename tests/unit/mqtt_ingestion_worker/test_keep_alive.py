"""How often a broker is asked whether it is there."""

import pytest

from sens_mqtt_ingestion_worker.mqtt.keep_alive import KeepAlive


class TestAgree:
    @pytest.mark.parametrize(("told", "seconds"), [(None, 30), (0, 30), (10, 10), (600, 30)])
    def test_takes_a_shorter_interval_and_never_none(self, told: int | None, seconds: int) -> None:
        watch = KeepAlive(30)
        watch.agree(told)
        assert watch.seconds == seconds
