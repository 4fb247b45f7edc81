"""Devices, and the latest value of each of their metrics."""
