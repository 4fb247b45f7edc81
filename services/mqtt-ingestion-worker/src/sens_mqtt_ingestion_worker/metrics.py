"""Metrics of the ingestion worker. For any window: received = published + redelivered + discarded + buffered."""

from prometheus_client import Counter, Gauge

RECEIVED = Counter(
    "sens_ingestion_messages_received_total", "Messages received from the broker, redelivered ones included."
)
REDELIVERED = Counter(
    "sens_ingestion_messages_redelivered_total",
    "Messages recognised as copies of what the stream already has; acknowledged, not published again.",
)
ACKNOWLEDGED = Counter(
    "sens_ingestion_messages_acknowledged_total", "Messages acknowledged to the broker (PUBACK written)."
)
SUPERSEDED = Counter(
    "sens_ingestion_superseded_total",
    "Times that another process had published as this session, and nothing was published twice.",
)
CONNECTIONS = Counter(
    "sens_ingestion_mqtt_connections_total", "Connections to the broker that reached their subscriptions."
)
CONNECTED = Gauge("sens_ingestion_mqtt_connected_count", "1 while connected to the broker and subscribed, else 0.")
SUBSCRIPTIONS_ENDED = Counter(
    "sens_ingestion_subscriptions_ended_total",
    "Subscriptions that a session still had and the settings no longer name; ended.",
)
BETWEEN_SUBSCRIPTIONS = Counter(
    "sens_ingestion_messages_between_subscriptions_total",
    "Messages that came while a session had both its earlier and its new subscriptions; those without a time may be stored twice.",
)
AT_MOST_ONCE = Gauge(
    "sens_ingestion_subscriptions_at_most_once_count",
    "Topic filters that a broker grants QoS 0 only, of the platform's broker and of tenants' own: messages that come while there is no connection are lost.",
)
BUFFERED = Gauge("sens_ingestion_buffered_messages_count", "Messages received and not yet acknowledged.")
BUFFERED_BYTES = Gauge(
    "sens_ingestion_buffered_bytes", "Topics and payloads of the messages received and not yet acknowledged."
)
OLDEST_SECONDS = Gauge(
    "sens_ingestion_oldest_unacknowledged_seconds",
    "How long the oldest message that is not acknowledged to the broker has waited for the stream, 0 when there is none.",
)
PAUSED = Gauge("sens_ingestion_reading_paused_count", "1 while nothing is read from the broker, else 0.")
BROKERS = Gauge("sens_ingestion_brokers_count", "Brokers of tenants' own that this worker serves.")
BROKERS_CONNECTED = Gauge(
    "sens_ingestion_brokers_connected_count", "Brokers of tenants' own to which this worker is connected."
)
BROKERS_LEFT_OUT = Gauge(
    "sens_ingestion_brokers_left_out_count",
    "Brokers of tenants' own that no worker serves, because this one serves as many as it may.",
)
