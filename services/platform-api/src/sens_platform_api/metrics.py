"""Metrics of the API."""

from prometheus_client import Counter, Gauge, Histogram

from sens_common.https import OUTCOMES

REQUESTS = Counter(
    "sens_api_requests_total",
    "Answered requests, by method, route template and class of status (2xx).",
    ["method", "route", "status"],
)
REQUEST_SECONDS = Histogram(
    "sens_api_request_seconds",
    "From a request's arrival to the start of its answer.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PLAIN_HTTP = Counter(
    "sens_api_plain_http_requests_total",
    "Requests that came over plain HTTP and were not served, by outcome: redirected, refused, or key_exposed where a key came with it.",
    ["outcome"],
)
for _outcome in OUTCOMES:  # from 0 on: the first one is a rise too
    PLAIN_HTTP.labels(_outcome)
MEASUREMENTS = Counter("sens_api_measurements_sent_total", "Rows of measurements sent, raw and aggregated.")
LIVE_READERS = Gauge("sens_api_live_readers_count", "Readers connected to live data.")
LIVE_READINGS = Counter("sens_api_live_readings_sent_total", "Live readings sent to readers.")
LIVE_DROPPED = Counter(
    "sens_api_live_readings_dropped_total",
    "Live readings that a reader did not get, because it was slow or they were too large to be sent; it was told.",
)
REPLAYED = Counter("sens_api_dead_letters_replayed_total", "Dead letters put into the telemetry stream again.")
REFUSED = Counter(
    "sens_api_refused_total",
    "Requests refused (429) because a bound was reached: tenant_connections, answers, live_readers, import_lines, requests_per_key, wrong_keys.",
    ["reason"],
)
FAILED_LOGINS = Counter(
    "sens_api_failed_logins_total",
    "Requests for data without a valid key: missing, malformed, unknown (also revoked or expired), read_only (a key that may not write).",
    ["reason"],
)
WAITING = Gauge(
    "sens_api_requests_waiting_count",
    "Requests without a key that was valid before, or with one that asks too fast, that wait for their turn.",
)
ANSWERS = Gauge("sens_api_answers_count", "Answers with measurements that are being sent.")
for _bound in ("tenant_connections", "answers", "live_readers", "import_lines", "requests_per_key", "wrong_keys"):
    REFUSED.labels(_bound)
for _reason in ("missing", "malformed", "unknown", "read_only"):
    FAILED_LOGINS.labels(_reason)
LIMITS_TOLD = Counter(
    "sens_api_tenant_limits_written_total", "Tenants' limits written for the ingestion workers, or removed there."
)
DELETED = Counter(
    "sens_api_measurements_deleted_total", "Measurements deleted because their device or metric was deleted."
)
EXPIRED = Counter(
    "sens_api_expired_total",
    "What was deleted because it is older than it is kept: values of readings, aggregates, dead letters, kept messages (frames). Dropped partitions are not counted.",
    ["kind"],
)
for _kind in ("values", "rollups", "dead_letters", "frames"):
    EXPIRED.labels(_kind)
STORED_BYTES_FILLED = Gauge(
    "sens_api_stored_bytes_filled_ratio",
    "What a tenant's readings and aggregates take on disk, as a share of its limit; above 1 what comes goes to the dead letters. Tenants"
    " without a limit have none.",
    ["tenant"],
)
RETENTION_WAITING = Gauge(
    "sens_api_retention_waiting_seconds",
    "For how long something that is older than it is kept has been waiting to be deleted, because the rollups lack it; 0 when nothing waits.",
)
DROPPED_PARTITIONS = Counter(
    "sens_api_dropped_partitions_total",
    "Partitions or chunks of readings dropped because nobody keeps anything of them.",
)
ENDED_SQL_SESSIONS = Counter(
    "sens_api_sql_sessions_ended_total",
    "Sessions of tenants' SQL logins that were ended, because a statement or transaction went on for longer than it may.",
)
