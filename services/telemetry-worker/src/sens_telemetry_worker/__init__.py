"""JetStream to TimescaleDB: decodes, stores, dead-letters, and acknowledges last."""
