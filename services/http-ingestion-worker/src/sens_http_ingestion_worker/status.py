"""What waits for the stream, and what holds it: for the metrics and for ``/readyz``."""

from collections.abc import Mapping
from typing import Final

from sens_common.hops import amount, blocking_hop
from sens_http_ingestion_worker import metrics
from sens_http_ingestion_worker.pipeline import Pipeline
from sens_http_ingestion_worker.reception import Reception

_HOPS: Final[Mapping[str, str | None]] = {"nats": "NATS", "stream": "the stream"}
_SLOW_SECONDS: Final = 1.0


class IngestionStatus:
    """The messages between senders and the stream."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None

    def watch(self, pipeline: Pipeline, reception: Reception) -> None:
        """Look at these parts, and let the metrics do so whenever they are asked for."""
        self._pipeline = pipeline
        metrics.WAITING.set_function(lambda: pipeline.waiting_count)
        metrics.OLDEST_SECONDS.set_function(lambda: pipeline.oldest_seconds)
        metrics.BODIES_BYTES.set_function(lambda: reception.bytes_held)

    def describe(self, answers: Mapping[str, str]) -> str:
        """Return one sentence: which hop holds, and what waits here; see `sens_common.readiness.Describe`."""
        seconds = self._pipeline.oldest_seconds if self._pipeline is not None else 0.0
        held = blocking_hop(_HOPS, answers) or ("the stream holds: it is slow" if seconds > _SLOW_SECONDS else None)
        count = self._pipeline.waiting_count if self._pipeline is not None else 0
        waiting = f"{amount(count, 'message')} not answered, the oldest for {seconds:.0f} s" if count else ""
        told = "passes everything on" if held is None else f"{held}; senders get 503, and send again"
        return "; ".join(part for part in (told, waiting) if part)
