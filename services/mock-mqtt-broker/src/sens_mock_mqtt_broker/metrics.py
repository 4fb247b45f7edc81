"""Metrics of the simulated fleet. Published = acknowledged + unacknowledged + what a lost connection made be sent again."""

from prometheus_client import Counter, Gauge

PUBLISHED = Counter(
    "sens_fleet_messages_published_total",
    "Messages written to the broker, those sent again after a lost connection included.",
)
ACKNOWLEDGED = Counter("sens_fleet_messages_acknowledged_total", "Messages that the broker has acknowledged (PUBACK).")
MALFORMED = Counter("sens_fleet_messages_malformed_total", "Messages made malformed on purpose.")
SKIPPED = Counter(
    "sens_fleet_messages_skipped_total",
    "Messages never sent, because the fleet had fallen too far behind its schedule.",
)
UNACKNOWLEDGED = Gauge("sens_fleet_unacknowledged_messages_count", "Messages written and not yet acknowledged.")
CONNECTED = Gauge("sens_fleet_connected_count", "1 while the fleet is connected to the broker, else 0.")
CONNECTIONS = Counter("sens_fleet_connections_total", "Connections of the fleet that the broker accepted.")
