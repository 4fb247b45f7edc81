"""Ingest keys of a tenant: with them messages are posted, and nothing else is done."""
