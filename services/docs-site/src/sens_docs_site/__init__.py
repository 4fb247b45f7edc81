"""Serves the built documentation."""
