"""What the worker holds, for how long, and which hop is the bottleneck: for the metrics and for ``/readyz``."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

import prometheus_client

from sens_common.envelope import Message
from sens_common.hops import amount, blocking_hop
from sens_common.ingestion.metrics import DISCARDED
from sens_mqtt_ingestion_worker import metrics

_HOPS: Final[Mapping[str, str | None]] = {"nats": "NATS", "stream": "the stream", "mqtt": "the broker"}
"""Checks of ``/readyz`` and the hop of each; the first one that fails is told."""

_SLOW_SECONDS: Final = 2.0
_RECENT_SECONDS: Final = 60.0
_NAMED_TENANTS: Final = 5


class Waiting(NamedTuple):
    """What a connection has received and the pipeline has not taken yet.

    Attributes:
        message_count: Number of messages.
        byte_count: Bytes of their packets.
        reading_paused: Whether nothing is read from the broker, because too much waits.
    """

    message_count: int
    byte_count: int
    reading_paused: bool


class _Connection(Protocol):
    """The part of `pipeline.BrokerConnection` that is looked at."""

    @property
    def waiting(self) -> Waiting:
        """See `pipeline.BrokerConnection.waiting`."""


class IngestionStatus:
    """The messages between one broker and the stream.

    Attributes:
        connected_since: Seconds since the epoch, None while there is no connection.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, connected: prometheus_client.Gauge = metrics.CONNECTED
    ) -> None:
        self._clock = clock  # not the time of receipt: somebody may have set that clock
        self._connected = connected
        self.connected_since: float | None = None
        self._held: list[Message] = []
        self._held_since = 0.0
        self._discarded_at: dict[str, float] = {}  # by tenant
        self._connection: _Connection | None = None

    def export_metrics(self, others: Callable[[], Iterable["IngestionStatus"]] = tuple) -> None:
        """Let the metrics look here whenever they are asked for, and at what else the worker has of this kind."""

        def every() -> list[IngestionStatus]:
            return [self, *others()]

        metrics.BUFFERED.set_function(lambda: sum(each.message_count for each in every()))
        metrics.BUFFERED_BYTES.set_function(lambda: sum(each.byte_count for each in every()))
        metrics.OLDEST_SECONDS.set_function(lambda: max(each.oldest_seconds for each in every()))
        metrics.PAUSED.set_function(lambda: int(self._waiting.reading_paused))

    @contextlib.contextmanager
    def of(self, connection: _Connection) -> Iterator[None]:
        """Look at a connection while the context is open."""
        self._connection = connection
        self.connected_since = time.time()
        self._connected.inc()
        try:
            yield
        finally:
            self._connected.dec()
            self.connected_since = None
            self._connection = None
            self._held = []

    def hold(self, messages: list[Message]) -> None:
        """Take note of the messages that are about to be published and that the broker has no acknowledgement of, oldest first."""
        self._held = messages
        self._held_since = self._clock()

    def discarded(self, counts: Mapping[str, int]) -> None:
        """Take note of how many messages of each tenant were discarded, because they were over its rate."""
        for tenant, count in counts.items():
            DISCARDED.labels(tenant).inc(count)
            self._discarded_at[tenant] = self._clock()

    def _over_their_rate(self) -> str | None:
        since = self._clock() - _RECENT_SECONDS
        tenants = sorted(tenant for tenant, at in self._discarded_at.items() if at > since)
        if not tenants:
            return None
        more = len(tenants) - _NAMED_TENANTS
        return f"discards what is over the rate of {', '.join(tenants[:_NAMED_TENANTS])}{f' and {more} more' if more > 0 else ''}"

    @property
    def _waiting(self) -> Waiting:
        return self._connection.waiting if self._connection is not None else Waiting(0, 0, reading_paused=False)

    @property
    def message_count(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._held) + self._waiting.message_count

    @property
    def byte_count(self) -> int:
        """Bytes of their topics and payloads."""
        return self._waiting.byte_count + sum(len(message.topic) + len(message.payload) for message in self._held)

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest one has waited for the stream."""
        return self._clock() - self._held_since if self._held else 0.0

    def describe(self, answers: Mapping[str, str]) -> str:
        """Return one sentence: which hop holds, and what waits here; see `readiness.Describe`."""
        waiting = self._waiting
        message_count = self.message_count
        seconds = self.oldest_seconds
        held = blocking_hop(_HOPS, answers) or ("the stream holds: it is slow" if seconds > _SLOW_SECONDS else None)
        connected = answers.get("mqtt", "ok") == "ok"
        parts = []
        if message_count:
            parts.append(
                f"{amount(message_count, 'message')} ({self.byte_count:,} bytes) not acknowledged, the oldest for {seconds:.0f} s"
            )
        if waiting.reading_paused:
            parts.append("nothing is read from the broker")
        over = self._over_their_rate()
        if over is not None:
            parts.append(over)
        if held is None:
            return "; ".join(["passes everything on" if over is None else "passes everything else on", *parts])
        return "; ".join([held, *parts, *(["PUBACKs stop, the broker queues"] if connected else [])])
