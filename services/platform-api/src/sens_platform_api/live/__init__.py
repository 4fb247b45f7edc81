"""Newly stored readings, as they come."""
