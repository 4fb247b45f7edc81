"""A real MQTT broker (3.1.1 and 5) with a simulated sensor fleet, for trials and tests."""
