"""Health, readiness, version and metrics of the process."""
