"""Fixtures of real servers, for every test."""

pytest_plugins = ["support.servers", "support.platform", "support.brokers", "support.workers"]
