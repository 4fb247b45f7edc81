"""The database: TimescaleDB or plain PostgreSQL. All of the worker's SQL is here."""
