"""Metrics of every service."""

from prometheus_client import Counter, Gauge

PROBLEMS = Gauge(
    "sens_service_problems_count",
    "Problems that a part of the service has; `/readyz` and the logs say which.",
    ["part"],
)
CONNECTIONS = Gauge("sens_http_connections_count", "Open connections to this process's HTTP server.")
CONNECTIONS_CLOSED = Counter(
    "sens_http_connections_closed_total",
    "Connections that the server closed to protect itself: header_timeout (no complete request in time), room (the idlest one made"
    " room for another), full (all were busy).",
    ["reason"],
)
for _reason in ("header_timeout", "room", "full"):
    CONNECTIONS_CLOSED.labels(_reason)
