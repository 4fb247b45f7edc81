"""MQTT to JetStream: acknowledges to the broker only what the log has stored."""
