"""The MQTT broker."""

from sens_mqtt_ingestion_worker.mqtt.connection import MqttConnection
from sens_mqtt_ingestion_worker.mqtt.source import MqttSource, PlatformBroker

__all__ = ["MqttConnection", "MqttSource", "PlatformBroker"]
