"""Metrics of the ingestion worker. For any window: received = published + redelivered + discarded + buffered."""

from prometheus_client import Counter, Gauge, Histogram

RECEIVED = Counter(
    "sens_ingestion_messages_received_total", "Messages received from the broker, redelivered ones included."
)
REDELIVERED = Counter(
    "sens_ingestion_messages_redelivered_total",
    "Messages recognised as copies of what the stream already has; acknowledged, not published again.",
)
PUBLISHED = Counter("sens_ingestion_messages_published_total", "Messages whose envelope JetStream has stored.")
DISCARDED = Counter(
    "sens_ingestion_messages_discarded_total",
    "Messages over the rate that the tenant's limits allow; counted in an envelope's header, acknowledged, not stored.",
    ["tenant"],
)
LIMITS_AGE_SECONDS = Gauge(
    "sens_ingestion_limits_age_seconds",
    "Time since the tenants' limits were last read; the last known ones hold meanwhile.",
)
ACKNOWLEDGED = Counter(
    "sens_ingestion_messages_acknowledged_total", "Messages acknowledged to the broker (PUBACK written)."
)
ENVELOPES = Counter("sens_ingestion_envelopes_published_total", "Envelopes that JetStream has stored.")
PUBLISH_RETRIES = Counter(
    "sens_ingestion_publish_retries_total", "Attempts to publish an envelope that had to be repeated."
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
BUFFERED = Gauge("sens_ingestion_buffered_messages_count", "Messages received and not yet acknowledged.")
BUFFERED_BYTES = Gauge(
    "sens_ingestion_buffered_bytes", "Topics and payloads of the messages received and not yet acknowledged."
)
OLDEST_SECONDS = Gauge(
    "sens_ingestion_oldest_unacknowledged_seconds",
    "How long the oldest message that is not acknowledged to the broker has waited for the stream, 0 when there is none.",
)
PAUSED = Gauge("sens_ingestion_reading_paused_count", "1 while nothing is read from the broker, else 0.")
PUBLISH_SECONDS = Histogram(
    "sens_ingestion_publish_seconds",
    "From handing an envelope to NATS to JetStream's acknowledgement, retries included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
ENVELOPE_MESSAGES = Histogram(
    "sens_ingestion_envelope_messages",
    "Messages in an envelope.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
CLOCK_JUMPS = Counter(
    "sens_ingestion_clock_jumps_total", "Times that somebody set the machine's clock by half a second or more."
)
CLOCK_OFF_SECONDS = Gauge(
    "sens_ingestion_clock_off_seconds",
    "How far the machine's clock is from where it was before somebody set it, negative when it was set back; 0 after five minutes.",
)
CLOCK_EXHAUSTED = Counter(
    "sens_ingestion_clock_exhausted_total",
    "Times that the clock was set so that an interval of time passed for the third time: messages without a time may get the same one.",
)
