"""A running path with a load at one end and a look at the other."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from tools.bench.figures import GENERATOR
from tools.bench.load import Chunk, Published, Shape, prepared, publish
from tools.stack.path import INGESTION, TELEMETRY, Stack, StackError
from tools.stack.server import HOST
from tools.stack.usage import Usage

PUBLISHED: Final = (INGESTION, "sens_ingestion_messages_published_total")
SETTLED: Final = (TELEMETRY, "sens_telemetry_messages_received_total")
STORED: Final = (TELEMETRY, "sens_telemetry_messages_stored_total")
_SHORTEST_POLL_SECONDS: Final = 0.02
_LONGEST_POLL_SECONDS: Final = 1.0
_STALL_SECONDS: Final = 120
_WARM_UP_MESSAGES: Final = 20_000


class Written(NamedTuple):
    """What a database has written.

    Attributes:
        wal: Bytes of WAL since it was made.
        disk: Its size, bytes.
    """

    wal: int
    disk: int


class MeasuredPath:
    """The path, its generator and its clock.

    Attributes:
        stack: The path.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._free_milliseconds = 0

    def prepare(self, shape: Shape) -> list[list[Chunk]]:
        """Return each connection's packets, with device times that no other packets of this path have."""
        first = self.take_times(shape.span_milliseconds)
        return [prepared(shape, number, first) for number in range(shape.connections)]

    def take_times(self, milliseconds: int) -> int:
        """Return the begin of a span of device time that nobody else gets; now, if now is free."""
        first = max(time.time_ns() // 1_000_000, self._free_milliseconds)
        self._free_milliseconds = first + milliseconds
        return first

    def publish(self, shape: Shape, packets: list[list[Chunk]]) -> Published:
        """Publish as fast as it is acknowledged."""
        return asyncio.run(publish(HOST, self.stack.mqtt_port, shape, packets))

    def warm_up(self, shape: Shape) -> None:
        """Let some messages through, so that devices are registered, connections open and tables made."""
        shape = shape._replace(messages=min(max(shape.devices, _WARM_UP_MESSAGES), shape.messages))
        settled = self.count(SETTLED)
        self.publish(shape, self.prepare(shape))
        self.reach(SETTLED, settled + shape.messages)

    def with_empty_tables[R](self, measure: Callable[["MeasuredPath", Shape], R]) -> Callable[[Shape], R]:
        """Return the measurement with empty tables at its begin, as Telegraf has them."""

        def measured(shape: Shape) -> R:
            values = ", ".join(self.stack.value_tables())
            self.stack.fetch(f"TRUNCATE {values}, sens.dead_letters, sens.dead_letter_usage")
            self.stack.fetch("CHECKPOINT")
            return measure(self, shape)

        return measured

    def usage(self) -> dict[str, Usage]:
        """Return what each process uses, the generator among them."""
        return self.stack.usage() | {GENERATOR: Usage(time.process_time(), 0.0)}

    def written(self) -> Written:
        """Return how much the database has written.

        The position in the WAL is exact at once; the server's statistics of it come late.
        """
        [[wal, disk]] = self.stack.fetch(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8, pg_database_size(current_database())"
        )
        return Written(wal, disk)

    def written_since(self, before: Written, messages: int) -> dict[str, float]:
        """Return what the database has written since then, bytes a message: members of `Rate`."""
        now = self.written()
        return {"wal_bytes": (now.wal - before.wal) / messages, "disk_bytes": (now.disk - before.disk) / messages}

    def columnstore_bytes(self, messages: int) -> float | None:
        """Move what is stored to TimescaleDB's columnstore, and return what it takes there, bytes a message; None without TimescaleDB."""
        if "TimescaleDB" not in self.stack.database_versions():
            return None
        for [chunk] in self.stack.fetch(
            "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
            " WHERE hypertable_schema = 'sens' AND hypertable_name = 'readings'"
        ):
            self.stack.fetch(f"CALL convert_to_columnstore('{chunk}')")
        [[size]] = self.stack.fetch("SELECT hypertable_size('sens.readings')")
        return float(size) / messages

    def count(self, counter: tuple[str, str]) -> float:
        """Return a worker's counter."""
        worker, metric = counter
        return self.stack.workers[worker].metric(metric)

    def reach(self, counter: tuple[str, str], wanted: float) -> float:
        """Wait until a counter is that high, and return when it was.

        It is read more often as it comes near: reading then costs the worker little, and the moment is known to 20 ms.

        Raises:
            StackError: It stands still.
        """
        started = moved = time.perf_counter()
        first = before = self.count(counter)
        while (now := self.count(counter)) < wanted:
            moment = time.perf_counter()
            if now > before:
                before, moved = now, moment
            elif moment > moved + _STALL_SECONDS:
                worker, name = counter
                raise StackError(f"{worker}: {name} is at {now:,.0f} of {wanted:,.0f} and stands still")
            left = (wanted - now) * (moment - started) / (now - first) if now > first else 0.2
            time.sleep(min(_LONGEST_POLL_SECONDS, max(_SHORTEST_POLL_SECONDS, left / 2)))
        return time.perf_counter()
