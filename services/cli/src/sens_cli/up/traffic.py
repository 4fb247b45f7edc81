"""The numbers of the live line: from the database, the ingestion worker's metrics and NATS' monitoring port."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from sens_cli.up.counts import DatabaseCounts
from sens_cli.up.ports import Ports
from sens_cli.up.web import get
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM

RECEIVED_METRIC: Final = "sens_ingestion_messages_received_total"


class Traffic(NamedTuple):
    """What flows; None where the component that knows does not answer.

    Attributes:
        rate: Messages received a second, since the reading before.
        stored: Messages ever stored.
        lag: Envelopes in the stream that are not yet stored.
        dead_letters: Dead letters that are there now.
    """

    rate: float | None
    stored: int | None
    lag: int | None
    dead_letters: int | None

    def text(self) -> str:
        """Return the line that people see."""

        def show(value: float | None, digits: int = 0) -> str:
            return "-" if value is None else f"{value:,.{digits}f}"

        return (
            f"{show(self.rate, 1)} messages/s · stored {show(self.stored)} · lag {show(self.lag)}"
            f" · dead letters {show(self.dead_letters)}"
        )


class TrafficReader:
    """Reads the numbers, and knows the reading before."""

    def __init__(self, table: Ports, counts: DatabaseCounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._counts = counts
        self._clock = clock
        self._before: tuple[float, float] | None = None

    async def read(self) -> Traffic:
        """Return the numbers of now."""
        ingestion, jetstream, counts = await asyncio.gather(
            self._body(self._table.ingestion_operations, "/metrics"),
            self._body(self._table.nats_monitoring, "/jsz?consumers=true&streams=true"),
            self._counts.read(),
        )
        return Traffic(
            rate=self._rate(metric_sum(ingestion, RECEIVED_METRIC)),
            stored=counts.stored,
            lag=stream_lag(jetstream),
            dead_letters=counts.dead_letters,
        )

    def _rate(self, received: float | None) -> float | None:
        now = self._clock()
        before, self._before = self._before, None if received is None else (now, received)
        if before is None or received is None or received < before[1] or now <= before[0]:
            return None
        return (received - before[1]) / (now - before[0])

    async def _body(self, port: int, path: str) -> bytes:
        try:
            status, body = await get(port, path)
        except OSError:
            return b""
        return body if status == 200 else b""  # noqa: PLR2004 - OK


def metric_sum(exposition: bytes, name: str) -> float | None:
    """Return the sum of a metric over its labels, None when it is not there (Prometheus text format 0.0.4)."""
    total: float | None = None
    for line in exposition.decode("utf-8", errors="replace").splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in {" ", "{"}:
            try:
                value = float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])
            except (ValueError, IndexError):
                continue
            total = value if total is None else total + value
    return total


def stream_lag(answer: bytes) -> int | None:
    """Return the number of envelopes that are not stored yet from the answer of NATS' ``/jsz`` (NATS documentation, "Monitoring")."""
    lag = None
    try:
        for account in json.loads(answer).get("account_details", []):
            for stream in account["stream_detail"]:
                for consumer in stream.get("consumer_detail", []) if stream["name"] == TELEMETRY_STREAM else ():
                    if consumer["name"] == TELEMETRY_CONSUMER:
                        lag = int(consumer["num_pending"]) + int(consumer["num_ack_pending"])
    except (ValueError, KeyError, TypeError, AttributeError):  # not the answer that NATS documents
        return None
    return lag
