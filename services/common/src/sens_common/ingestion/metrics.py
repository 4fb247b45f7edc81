"""Metrics that both ingestion workers have."""

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("sens_ingestion_messages_published_total", "Messages whose envelope JetStream has stored.")
DISCARDED = Counter(
    "sens_ingestion_messages_discarded_total",
    "Messages over the rate that the tenant's limits allow; counted in an envelope's header and not stored. By MQTT they are acknowledged,"
    " by HTTP refused with status 429.",
    ["tenant"],
)
LIMITS_AGE_SECONDS = Gauge(
    "sens_ingestion_limits_age_seconds",
    "Time since the tenants' limits were last read; the last known ones hold meanwhile.",
)
ENVELOPES = Counter("sens_ingestion_envelopes_published_total", "Envelopes that JetStream has stored.")
PUBLISH_RETRIES = Counter(
    "sens_ingestion_publish_retries_total", "Attempts to publish an envelope that had to be repeated."
)
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
