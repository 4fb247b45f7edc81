"""MQTT to JetStream: acknowledges to the broker only what the stream has stored."""
