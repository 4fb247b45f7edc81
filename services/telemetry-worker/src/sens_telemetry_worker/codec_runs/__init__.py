"""Runs of codecs over messages that were received before: see migration 0022, and ADR "Redecoding"."""
