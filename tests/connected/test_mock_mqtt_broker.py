"""The mock broker as its users meet it."""

import json
import urllib.request

from support.brokers import MqttBroker


class TestOperations:
    def test_is_ready_when_both_listeners_take_connections(self, mqtt_broker: MqttBroker) -> None:
        with urllib.request.urlopen(f"http://{mqtt_broker.host}:{mqtt_broker.operations_port}/readyz") as answer:
            assert json.load(answer)["checks"]["broker"] == "ok"
