"""The metrics of a tenant, and the deletion of devices and metrics."""
