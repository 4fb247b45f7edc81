"""Brokers of tenants' own: each with a session, a window and a promise of its own."""
