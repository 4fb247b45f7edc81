"""The names that a tenant has: its metrics, and how devices and metrics are deleted."""
