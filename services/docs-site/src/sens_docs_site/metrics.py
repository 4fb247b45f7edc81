"""Metrics of the documentation's site."""

from prometheus_client import Counter

PLAIN_HTTP = Counter(
    "sens_docs_plain_http_requests_total",
    "Requests that came over plain HTTP and were not served, by outcome: redirected, refused or key_exposed.",
    ["outcome"],
)
RESPONSES = Counter(
    "sens_docs_responses_total", "Responses, by the first digit of their status: 2xx, 3xx, 4xx, 5xx.", ["status"]
)
