"""Metrics of the documentation's site."""

from prometheus_client import Counter

RESPONSES = Counter(
    "sens_docs_responses_total", "Responses, by the first digit of their status: 2xx, 3xx, 4xx, 5xx.", ["status"]
)
