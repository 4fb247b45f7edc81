"""Metrics of the HTTP ingestion worker, beside those of both ingestion workers."""

from prometheus_client import Counter, Gauge, Histogram

from sens_http_ingestion_worker.tokens import Signature

ANSWERS = Counter("sens_ingestion_http_answers_total", "Requests answered, by status.", ["status"])
for _status in ("204", "400", "401", "403", "404", "405", "408", "413", "414", "415", "429", "431", "500", "503"):
    ANSWERS.labels(_status)
ANSWER_SECONDS = Histogram(
    "sens_ingestion_http_answer_seconds",
    "From the end of a request's body to its answer, of requests whose message the stream has stored.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
REPEATS = Counter(
    "sens_ingestion_http_repeats_total",
    "Requests whose Idempotency-Key and body the stream had already; answered like the first one, not stored again.",
)
LATE = Counter(
    "sens_ingestion_http_late_total",
    "Messages that were answered with 503 because the stream did not store them in time; it may have stored them later.",
)
WAITING = Gauge("sens_ingestion_http_waiting_messages_count", "Messages that wait for the stream.")
OLDEST_SECONDS = Gauge(
    "sens_ingestion_http_oldest_waiting_seconds",
    "How long the oldest message that is not answered has waited for the stream, 0 when there is none.",
)
BODIES_BYTES = Gauge(
    "sens_ingestion_http_bodies_bytes", "Bodies in memory, those that are still being received included."
)
KEYS = Gauge("sens_ingestion_http_keys_count", "Ingest keys that are known.")
TOKENS = Counter(
    "sens_ingestion_http_tokens_total",
    "Requests to sources with an AS key (Actility), by what their token said: right, wrong, missing, or unknown for a body that is signed in no known way.",
    ["token"],
)
for _token in Signature:
    TOKENS.labels(_token.value)
