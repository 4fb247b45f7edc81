"""Metrics of the broker and its simulated fleet.

Of the fleet: published = acknowledged + unacknowledged + what a lost connection made be sent again. A message that nobody reads is
acknowledged, and published once more when it is sent again.
"""

from prometheus_client import Counter, Gauge

CLIENTS = Gauge(
    "sens_broker_connections_count", "Connections to the broker, those that have not said CONNECT included."
)
SESSIONS = Gauge("sens_broker_sessions_count", "Sessions that the broker keeps, those whose client is away included.")
ENDED = Counter(
    "sens_broker_connections_ended_total",
    "Connections by what ended them: closed (by the client), or the reason for which the broker did.",
    ["reason"],
)
RECEIVED = Counter("sens_broker_messages_received_total", "Messages that clients have published.")
WITHOUT_SUBSCRIBER = Counter(
    "sens_broker_messages_without_subscriber_total", "Messages published to topics that nobody reads."
)
DROPPED = Counter(
    "sens_broker_messages_dropped_total",
    "Messages that a subscriber does not get: its buffer was full, or it takes none so large.",
)
EXPIRED = Counter("sens_broker_messages_expired_total", "Messages that waited longer than their sender said.")
NOT_RETAINED = Counter(
    "sens_broker_messages_not_retained_total", "Messages to be retained for which there was no room."
)

PUBLISHED = Counter(
    "sens_fleet_messages_published_total",
    "Messages written to the broker, those sent again after a lost connection included.",
)
ACKNOWLEDGED = Counter("sens_fleet_messages_acknowledged_total", "Messages that the broker has acknowledged (PUBACK).")
UNREAD = Counter(
    "sens_fleet_messages_unread_total",
    "Messages that the broker has acknowledged and nobody reads; while nobody reads any, they are sent again.",
)
MALFORMED = Counter("sens_fleet_messages_malformed_total", "Messages made malformed on purpose.")
SKIPPED = Counter(
    "sens_fleet_messages_skipped_total",
    "Messages never sent, because the fleet had fallen too far behind its schedule.",
)
UNACKNOWLEDGED = Gauge("sens_fleet_unacknowledged_messages_count", "Messages written and not yet acknowledged.")
CONNECTED = Gauge("sens_fleet_connected_count", "1 while the fleet is connected to the broker, else 0.")
CONNECTIONS = Counter("sens_fleet_connections_total", "Connections of the fleet that the broker accepted.")
